//! `variables`.

use indexmap::IndexMap;

use crate::{
    error::Result,
    job::Reader,
    node::{Node, Value},
};

/// A variable of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub value: String,
    /// Whether `$` in the value stays as it is (`expand: false`).
    pub raw: bool,
}

/// Reads a `variables` map. Only global ones have a description and options.
pub(crate) fn read(reader: Reader<'_>, node: &Node, global: bool) -> Result<IndexMap<String, Variable>> {
    if node.is_null() {
        return Ok(IndexMap::new());
    }
    let map = reader.map(node, "variables")?;
    map.iter().map(|(name, node)| Ok((name.clone(), variable(reader, name, node, global)?))).collect()
}

fn variable(reader: Reader<'_>, name: &str, node: &Node, global: bool) -> Result<Variable> {
    let key = format!("variables:{name}");
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(
            reader.error(node, format!("`{name}` is no name for a variable: use letters, digits and `_`"))
        );
    }
    let scalar = |node: &Node, key: &str| {
        let text = node.scalar().ok_or_else(|| reader.wrong(node, key, "a string, a number or a boolean"))?;
        if text.contains('\0') {
            return Err(reader.error(node, format!("`{key}` must not contain a null character")));
        }
        Ok(text)
    };
    match &node.value {
        Value::Map(map) => {
            let known: &[&str] =
                if global { &["value", "description", "options", "expand"] } else { &["value", "expand"] };
            reader.known_keys(map, &key, known)?;
            let expand =
                map.get("expand").map_or(Ok(true), |node| reader.flag(node, &format!("{key}:expand")))?;
            Ok(Variable {
                value: map.get("value").map_or(Ok(String::new()), |node| scalar(node, &key))?,
                raw: !expand,
            })
        }
        _ => Ok(Variable { value: scalar(node, &key)?, raw: false }),
    }
}
