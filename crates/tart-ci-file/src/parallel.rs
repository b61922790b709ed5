//! `parallel: N` and `parallel:matrix`.

use indexmap::IndexMap;

use crate::{
    error::Result,
    job::{Instance, Job, Reader},
    node::{Map, Node, Value},
    variables::Variable,
};

/// The most instances of one job.
const MAX_INSTANCES: usize = 200;

/// What distinguishes one instance.
pub(crate) struct Variant {
    name: String,
    variables: IndexMap<String, Variable>,
    instance: Instance,
}

impl Variant {
    /// The name of the instance.
    pub(crate) fn into_name(self) -> String {
        self.name
    }

    /// The instance of a job.
    pub(crate) fn of(self, job: &Job) -> Job {
        let mut instance = job.clone();
        instance.name = self.name;
        instance.scope.own.extend(self.variables.keys().cloned());
        instance.variables.extend(self.variables);
        instance.instance = Some(self.instance);
        instance
    }
}

/// The instances that `parallel` asks for.
pub(crate) fn variants(reader: Reader<'_>, name: &str, node: &Node) -> Result<Vec<Variant>> {
    match &node.value {
        Value::Int(total @ 1..=200) => {
            let total = usize::try_from(*total).unwrap_or(1);
            let variant = |index| Variant {
                name: format!("{name} {index}/{total}"),
                variables: IndexMap::new(),
                instance: Instance { index, total },
            };
            Ok((1..=total).map(variant).collect())
        }
        Value::Map(map) => {
            reader.known_keys(map, "parallel", &["matrix"])?;
            let Some(Node { value: Value::List(entries), .. }) = map.get("matrix") else {
                return Err(reader.error(node, "`parallel:matrix` must be a list of maps"));
            };
            matrix(reader, name, node, entries)
        }
        _ => Err(reader
            .error(node, format!("`parallel` must be a number from 1 to {MAX_INSTANCES} or a `matrix`"))),
    }
}

fn matrix(reader: Reader<'_>, name: &str, node: &Node, entries: &[Node]) -> Result<Vec<Variant>> {
    let mut rows: Vec<Vec<(String, String)>> = Vec::new();
    for entry in entries {
        let map = reader.map(entry, "parallel:matrix")?;
        rows.extend(product(reader, node, map)?);
        if rows.len() > MAX_INSTANCES {
            return Err(too_many(reader, node));
        }
    }
    if rows.is_empty() {
        return Err(reader.error(node, "`parallel:matrix` is empty"));
    }
    let total = rows.len();
    let variant = |(index, row): (usize, Vec<(String, String)>)| {
        let values: Vec<&str> = row.iter().map(|(_, value)| value.as_str()).collect();
        Variant {
            name: format!("{name}: [{}]", values.join(", ")),
            variables: row
                .iter()
                .map(|(key, value)| (key.clone(), Variable { value: value.clone(), raw: false }))
                .collect(),
            instance: Instance { index: index + 1, total },
        }
    };
    Ok(rows.into_iter().enumerate().map(variant).collect())
}

/// All combinations of a map's values; the first key changes most slowly.
fn product(reader: Reader<'_>, node: &Node, map: &Map) -> Result<Vec<Vec<(String, String)>>> {
    let mut rows = vec![Vec::new()];
    for (key, values) in map {
        let values = match &values.value {
            Value::List(_) => reader.only_list(values, "parallel:matrix")?,
            _ => vec![reader.text(values, "parallel:matrix")?],
        };
        if rows.len().saturating_mul(values.len()) > MAX_INSTANCES {
            return Err(too_many(reader, node));
        }
        let with = |row: &Vec<(String, String)>, value: &String| {
            let mut row = row.clone();
            row.push((key.clone(), value.clone()));
            row
        };
        rows = rows.iter().flat_map(|row| values.iter().map(|value| with(row, value))).collect();
    }
    Ok(if map.is_empty() { Vec::new() } else { rows })
}

fn too_many(reader: Reader<'_>, node: &Node) -> crate::error::Error {
    reader.error(node, format!("`parallel:matrix` makes more than {MAX_INSTANCES} jobs"))
}
