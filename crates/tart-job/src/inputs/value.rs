//! Values of expressions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A value, cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) data: Data,
    /// It is, holds or was made of what must not get into a template.
    pub(super) sensitive: bool,
    /// That goes for all that is in it, too.
    all_sensitive: bool,
    /// About how many bytes it takes to write it.
    pub(super) size: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Null,
    Bool(bool),
    /// Finite.
    Number(f64),
    Text(Rc<str>),
    Array(Rc<[Value]>),
    Object(Rc<BTreeMap<String, Value>>),
}

impl Value {
    fn plain(data: Data, size: usize) -> Self {
        Self { data, sensitive: false, all_sensitive: false, size }
    }

    pub(super) fn null() -> Self {
        Self::plain(Data::Null, 8)
    }

    pub(super) fn bool(value: bool) -> Self {
        Self::plain(Data::Bool(value), 8)
    }

    /// `None` for what is not finite.
    pub(super) fn number(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::plain(Data::Number(value), 32))
    }

    pub(super) fn text(text: &str) -> Self {
        Self::plain(Data::Text(text.into()), text.len())
    }

    /// Sensitive if one of its elements is.
    pub(super) fn array(elements: Vec<Self>) -> Self {
        let size = elements.iter().fold(8, |sum: usize, element| sum.saturating_add(element.size));
        let sensitive = elements.iter().any(|element| element.sensitive);
        Self { sensitive, ..Self::plain(Data::Array(elements.into()), size) }
    }

    /// Sensitive if one of its properties is.
    pub(super) fn object(properties: BTreeMap<String, Self>) -> Self {
        let size = properties
            .iter()
            .fold(8, |sum: usize, (key, value)| sum.saturating_add(key.len()).saturating_add(value.size));
        let sensitive = properties.values().any(|value| value.sensitive);
        Self { sensitive, ..Self::plain(Data::Object(Rc::new(properties)), size) }
    }

    /// A value of JSON, all of it as sensitive as it is said.
    pub(super) fn from_json(json: &serde_json::Value, sensitive: bool) -> Option<Self> {
        use serde_json::Value as Json;
        let mut value = match json {
            Json::Null => Self::null(),
            Json::Bool(value) => Self::bool(*value),
            Json::Number(number) => Self::number(number.as_f64()?)?,
            Json::String(text) => Self::text(text),
            Json::Array(elements) => {
                let elements: Option<Vec<Self>> =
                    elements.iter().map(|element| Self::from_json(element, sensitive)).collect();
                Self::array(elements?)
            }
            Json::Object(properties) => {
                let properties: Option<BTreeMap<String, Self>> = properties
                    .iter()
                    .map(|(key, value)| Some((key.clone(), Self::from_json(value, sensitive)?)))
                    .collect();
                Self::object(properties?)
            }
        };
        (value.sensitive, value.all_sensitive) = (sensitive, sensitive);
        Some(value)
    }

    /// The same, made by use of `other`: as sensitive as that.
    pub(super) fn marked_like(mut self, other: &Self) -> Self {
        self.sensitive |= other.sensitive;
        self.all_sensitive |= other.sensitive;
        self
    }

    /// The same, taken out of `owner`.
    pub(super) fn taken_from(mut self, owner: &Self) -> Self {
        self.sensitive |= owner.all_sensitive;
        self.all_sensitive |= owner.all_sensitive;
        self
    }

    /// What logic takes for true.
    pub(super) fn is_truthy(&self) -> bool {
        match &self.data {
            Data::Null => false,
            Data::Bool(value) => *value,
            Data::Number(number) => *number != 0.0,
            Data::Text(text) => !text.is_empty(),
            Data::Array(elements) => !elements.is_empty(),
            Data::Object(properties) => !properties.is_empty(),
        }
    }

    /// The kind, for people.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "null",
            Data::Bool(_) => "boolean",
            Data::Number(_) => "number",
            Data::Text(_) => "string",
            Data::Array(_) => "array",
            Data::Object(_) => "object",
        }
    }

    /// As text: strings as they are, arrays and objects as JSON.
    pub(super) fn write(&self, out: &mut String) {
        match &self.data {
            Data::Null => out.push_str("<null>"),
            Data::Text(text) => out.push_str(text),
            _ => self.write_json(out),
        }
    }

    fn write_json(&self, out: &mut String) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.data {
            Data::Null => out.push_str("null"),
            Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Data::Number(number) => out.push_str(&number.to_string()),
            Data::Text(text) => out.push_str(&quoted(text)),
            Data::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    element.write_json(out);
                }
                out.push(']');
            }
            Data::Object(properties) => {
                out.push('{');
                for (index, (key, value)) in properties.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(&quoted(key));
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }

    /// Values of different kinds are ordered by kind.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (&self.data, &other.data) {
            (Data::Bool(one), Data::Bool(two)) => one.cmp(two),
            (Data::Number(one), Data::Number(two)) => one.partial_cmp(two).unwrap_or(Ordering::Equal),
            (Data::Text(one), Data::Text(two)) => one.cmp(two),
            (Data::Array(one), Data::Array(two)) => {
                let elements = one.iter().zip(two.iter()).map(|(one, two)| one.compare(two));
                first_difference(elements).then(one.len().cmp(&two.len()))
            }
            (Data::Object(one), Data::Object(two)) => one
                .len()
                .cmp(&two.len())
                .then_with(|| one.keys().cmp(two.keys()))
                .then_with(|| first_difference(one.values().zip(two.values()).map(|(a, b)| a.compare(b)))),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match &self.data {
            Data::Null => 0,
            Data::Bool(_) => 1,
            Data::Number(_) => 2,
            Data::Text(_) => 3,
            Data::Array(_) => 4,
            Data::Object(_) => 5,
        }
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
