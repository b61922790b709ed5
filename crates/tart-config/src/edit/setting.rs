//! Keys of a new runner from a template or a command line.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use super::EditError;
use crate::{
    schema::{self, Key, Kind, join},
    suggest,
};

/// The only `[[runners]]` of a template.
pub(super) fn template(text: &str) -> Result<Table, EditError> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        EditError::Setting(format!("the template is not valid TOML: {}", error.message()))
    })?;
    let tables = document.get("runners").and_then(Item::as_array_of_tables);
    let (Some(table), 1) =
        (tables.and_then(|tables| tables.get(0)), tables.map_or(0, toml_edit::ArrayOfTables::len))
    else {
        return Err(EditError::Setting("the template must have exactly one `[[runners]]`".into()));
    };
    let mut table = table.clone();
    forget_positions(&mut table);
    Ok(table)
}

/// Tables remember where they stood in their file; those of a template must follow their new parent.
fn forget_positions(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => forget_positions(table),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(forget_positions),
            Item::None | Item::Value(_) => {}
        }
    }
}

/// Sets the keys of `settings`; several values of one key make a list.
pub(super) fn apply(table: &mut Table, settings: &[(String, String)]) -> Result<(), EditError> {
    let mut paths: Vec<&str> = Vec::new();
    for (path, _) in settings {
        if !paths.contains(&path.as_str()) {
            paths.push(path);
        }
    }
    for path in paths {
        let values: Vec<&str> =
            settings.iter().filter(|(other, _)| other == path).map(|(_, value)| value.as_str()).collect();
        let full = join("runners", path);
        let (parent, name) = full.rsplit_once('.').unwrap_or(("", &full));
        let Some(section) =
            schema::section(parent).filter(|section| !section.repeated || parent == "runners")
        else {
            return Err(EditError::Setting(format!("there is no setting `{full}`")));
        };
        let Some(key) = section.key(name) else {
            return Err(EditError::Setting(suggest::unknown_key(section, name)));
        };
        let value = value(key, &full, &values)?;
        descend(table, parent.strip_prefix("runners.").unwrap_or_default(), &full)?
            .insert(key.name, Item::Value(value));
    }
    Ok(())
}

/// The sub-table at a dotted path, made if it is missing.
fn descend<'t>(table: &'t mut Table, path: &str, full: &str) -> Result<&'t mut Table, EditError> {
    let mut table = table;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let item = table.entry(name).or_insert_with(|| {
            let mut child = Table::new();
            child.set_implicit(true);
            Item::Table(child)
        });
        table = item.as_table_mut().ok_or_else(|| {
            EditError::Setting(format!("`{full}` cannot be set: the template writes `{name}` inline"))
        })?;
    }
    Ok(table)
}

fn value(key: &Key, path: &str, values: &[&str]) -> Result<Value, EditError> {
    let wrong = |expected: &str| EditError::Setting(format!("`{path}` must be {expected}"));
    let last = values.last().copied().unwrap_or_default();
    Ok(match key.kind {
        Kind::Bool => last.parse::<bool>().map_err(|_| wrong("`true` or `false`"))?.into(),
        Kind::Int(..) => last.parse::<i64>().map_err(|_| wrong("an integer"))?.into(),
        Kind::List | Kind::Environment => Value::Array(Array::from_iter(values.iter().copied())),
        Kind::TextOrList if values.len() > 1 => Value::Array(Array::from_iter(values.iter().copied())),
        Kind::TextMap | Kind::BoolMap => {
            let mut map = InlineTable::new();
            for entry in values {
                let (name, value) = entry.split_once(':').ok_or_else(|| wrong("written as `name:value`"))?;
                let value = match key.kind {
                    Kind::BoolMap => value
                        .parse::<bool>()
                        .map_err(|_| wrong("written as `name:true` or `name:false`"))?
                        .into(),
                    _ => Value::from(value),
                };
                map.insert(name, value);
            }
            Value::InlineTable(map)
        }
        Kind::ListMap | Kind::Foreign => return Err(wrong("written into the file; it has no short form")),
        _ => last.into(),
    })
}
