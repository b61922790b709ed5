//! YAML values with the lines they are from.

use indexmap::IndexMap;

use crate::error::{Error, Location, Result};

/// A map in the order of the file.
pub(crate) type Map = IndexMap<String, Node>;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Location,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
    /// `!reference [job, key]`, not resolved yet.
    Reference(Vec<String>),
}

impl Node {
    pub(crate) fn new(at: Location, value: Value) -> Self {
        Self { at, value }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// An error at this node.
    pub(crate) fn error(&self, text: impl Into<String>) -> Error {
        Error::invalid(&self.at, text)
    }

    /// What the node is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Reference(_) => "a `!reference`",
        }
    }

    /// The text of a scalar, as GitLab turns it into a string.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Null => Some(String::new()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(ruby_float(*value)),
            Value::Text(text) => Some(text.clone()),
            Value::List(_) | Value::Map(_) | Value::Reference(_) => None,
        }
    }

    /// The node as JSON, for keys that are kept as they are.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            Value::Reference(path) => path.iter().map(String::as_str).collect(),
        }
    }

    /// How much the node weighs: one for each value and each byte of text.
    pub(crate) fn weight(&self) -> usize {
        1 + match &self.value {
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(Self::weight).sum(),
            Value::Map(map) => map.iter().map(|(key, value)| key.len() + value.weight()).sum(),
            Value::Reference(path) => path.iter().map(String::len).sum(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        }
    }

    /// The number of values in the node, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(map) => map.values().map(Self::count).sum(),
            _ => 0,
        }
    }
}

/// A float as Ruby prints it: always with a fraction, with an exponent from 1e16.
fn ruby_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let text = format!("{value:?}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let fraction = if mantissa.contains('.') { "" } else { ".0" };
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}{fraction}e-{digits:0>2}"),
        None => format!("{mantissa}{fraction}e+{exponent:0>2}"),
    }
}

/// Lays `over` on `base`: maps are merged key by key, anything else is replaced.
pub(crate) fn deep_merge(base: &mut Map, over: Map) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Node { value: Value::Map(under), .. }), Node { value: Value::Map(over), .. }) => {
                deep_merge(under, over);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Bounds on what aliases, `extends` and `!reference` may copy together.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: usize,
    bytes: usize,
}

/// The most values after expansion.
pub(crate) const MAX_NODES: usize = 100_000;
/// The most text after expansion, in bytes.
pub(crate) const MAX_BYTES: usize = 16 << 20;

impl Budget {
    pub(crate) fn new() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_BYTES }
    }

    /// Takes a node from the budget before it is copied to `at`.
    pub(crate) fn charge(&mut self, at: &Location, node: &Node) -> Result<()> {
        self.charge_amount(at, node.count(), node.weight())
    }

    /// Takes a map's values from the budget.
    pub(crate) fn charge_map(&mut self, at: &Location, map: &Map) -> Result<()> {
        let nodes = map.values().map(Node::count).sum();
        let bytes = map.iter().map(|(key, value)| key.len() + value.weight()).sum();
        self.charge_amount(at, nodes, bytes)
    }

    pub(crate) fn charge_amount(&mut self, at: &Location, nodes: usize, bytes: usize) -> Result<()> {
        match (self.nodes.checked_sub(nodes), self.bytes.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) => {
                *self = Self { nodes, bytes };
                Ok(())
            }
            _ => Err(Error::invalid(
                at,
                format!(
                    "the configuration grows too large here: aliases, `extends` and `!reference` may make at most \
                     {MAX_NODES} values and {} MiB of text",
                    MAX_BYTES >> 20
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_ruby_does() {
        for (value, text) in [
            (1.1, "1.1"),
            (1.0, "1.0"),
            (1e3, "1000.0"),
            (1e20, "1.0e+20"),
            (1.5e-7, "1.5e-07"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(ruby_float(value), text);
        }
    }
}
