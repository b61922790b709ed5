//! `inputs` of a job: each has its default here, as nobody is asked for another.

use serde_json::{Value as Json, json};

use super::read::Reader;
use crate::{error::Result, node::Node};

/// What describes an input.
const KEYS: &[&str] = &["default", "description", "options", "regex", "type"];

/// The inputs as a server sends them.
pub(super) fn inputs(reader: Reader<'_>, node: &Node) -> Result<Vec<Json>> {
    let input = |(name, node): (&String, &Node)| {
        let key = format!("inputs:{name}");
        let map = reader.map(node, &key)?;
        reader.known_keys(map, &key, KEYS)?;
        let Some(default) = map.get("default").filter(|default| !default.is_null()) else {
            return Err(reader.error(node, format!("`{key}` has no `default`; inputs of jobs need one")));
        };
        let types = ["string", "number", "boolean", "array"];
        let kind =
            map.get("type").map_or(Ok("string".to_owned()), |node| reader.one_of(node, "type", &types))?;
        let content = default.to_json();
        let fits = match kind.as_str() {
            "number" => content.is_number(),
            "boolean" => content.is_boolean(),
            "array" => content.is_array(),
            _ => content.is_string(),
        };
        if !fits {
            return Err(reader.wrong(default, &format!("{key}:default"), &format!("of the type {kind}")));
        }
        Ok(json!({ "key": name, "value": { "type": kind, "content": content, "sensitive": false } }))
    };
    reader.map(node, "inputs")?.iter().map(input).collect()
}
