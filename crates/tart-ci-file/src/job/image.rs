//! `image` and `services`.

use indexmap::IndexMap;

use super::Reader;
use crate::{
    error::Result,
    node::{Map, Node, Value},
    variables::{self, Variable},
};

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The reference, which may have variables.
    pub name: String,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Pull policies in order; the runner's if empty.
    pub pull_policy: Vec<String>,
    /// `docker:platform`.
    pub platform: Option<String>,
    /// `docker:user`.
    pub user: Option<String>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its image.
    pub image: Image,
    /// Its names, divided by blanks or commas.
    pub alias: Option<String>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Variables of the service only.
    pub variables: IndexMap<String, Variable>,
}

pub(crate) fn image(reader: Reader<'_>, node: &Node) -> Result<Image> {
    match &node.value {
        Value::Map(map) => {
            reader.known_keys(
                map,
                "image",
                &["name", "entrypoint", "pull_policy", "docker", "kubernetes", "ports"],
            )?;
            from_map(reader, node, map, "image")
        }
        _ => Ok(Image { name: reader.text(node, "image")?, ..Image::default() }),
    }
}

pub(crate) fn services(reader: Reader<'_>, node: &Node) -> Result<Vec<Service>> {
    let Value::List(items) = &node.value else { return Err(reader.wrong(node, "services", "a list")) };
    let mut found = Vec::new();
    for item in items {
        match &item.value {
            Value::List(_) => found.extend(services(reader, item)?),
            Value::Map(map) => found.push(service(reader, item, map)?),
            _ => {
                let image = Image { name: reader.text(item, "services")?, ..Image::default() };
                found.push(Service { image, ..Service::default() });
            }
        }
    }
    Ok(found)
}

fn service(reader: Reader<'_>, node: &Node, map: &Map) -> Result<Service> {
    let known = [
        "name",
        "entrypoint",
        "pull_policy",
        "docker",
        "kubernetes",
        "ports",
        "alias",
        "command",
        "variables",
    ];
    reader.known_keys(map, "services", &known)?;
    Ok(Service {
        image: from_map(reader, node, map, "services")?,
        alias: map.get("alias").map(|node| reader.text(node, "services:alias")).transpose()?,
        command: map.get("command").map(|node| reader.texts(node, "services:command")).transpose()?,
        variables: map
            .get("variables")
            .map_or(Ok(IndexMap::new()), |node| variables::read(reader, node, false))?,
    })
}

fn from_map(reader: Reader<'_>, node: &Node, map: &Map, key: &str) -> Result<Image> {
    let Some(name) = map.get("name") else {
        return Err(reader.error(node, format!("`{key}` has no `name`")));
    };
    let docker = map.get("docker").map(|node| reader.map(node, "docker")).transpose()?;
    let option = |name: &str| {
        docker.and_then(|docker| docker.get(name)).map(|node| reader.text(node, name)).transpose()
    };
    let policies = map.get("pull_policy").map_or(Ok(Vec::new()), |node| reader.texts(node, "pull_policy"))?;
    if let Some(wrong) =
        policies.iter().find(|policy| !["always", "if-not-present", "never"].contains(&policy.as_str()))
    {
        let expected = "`always`, `if-not-present` or `never`";
        return Err(reader.error(node, format!("`{key}:pull_policy` must be {expected}, not `{wrong}`")));
    }
    Ok(Image {
        name: reader.text(name, &format!("{key}:name"))?,
        entrypoint: map.get("entrypoint").map(|node| reader.texts(node, "entrypoint")).transpose()?,
        pull_policy: policies,
        platform: option("platform")?,
        user: option("user")?,
    })
}
