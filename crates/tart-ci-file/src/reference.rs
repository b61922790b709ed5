//! `!reference [job, key]`, resolved after `extends`.

use crate::{
    error::{Result, nearest},
    node::{Budget, Map, Node, Value},
};

/// How many references may lead to one another.
const MAX_LEVELS: usize = 10;

/// Replaces all references in the configuration.
pub(crate) fn resolve(config: &Map, budget: &mut Budget) -> Result<Map> {
    let mut resolver = Resolver { config, budget, path: Vec::new() };
    config.iter().map(|(name, node)| Ok((name.clone(), resolver.node(node)?))).collect()
}

struct Resolver<'a> {
    config: &'a Map,
    budget: &'a mut Budget,
    /// The references being followed.
    path: Vec<Vec<String>>,
}

impl Resolver<'_> {
    fn node(&mut self, node: &Node) -> Result<Node> {
        let value = match &node.value {
            Value::Reference(target) => return self.follow(node, target),
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.node(item)).collect::<Result<_>>()?)
            }
            Value::Map(map) => Value::Map(
                map.iter().map(|(key, value)| Ok((key.clone(), self.node(value)?))).collect::<Result<_>>()?,
            ),
            other => other.clone(),
        };
        Ok(Node::new(node.at.clone(), value))
    }

    fn follow(&mut self, node: &Node, target: &[String]) -> Result<Node> {
        let written = || format!("`!reference [{}]`", target.join(", "));
        if self.path.iter().any(|followed| followed == target) {
            return Err(node.error(format!("{} leads back to itself", written())));
        }
        if self.path.len() >= MAX_LEVELS {
            return Err(node.error(format!("`!reference` is nested more than {MAX_LEVELS} levels deep")));
        }
        let found = self.find(node, target)?;
        self.budget.charge(&node.at, found)?;
        self.path.push(target.to_vec());
        let resolved = self.node(found)?;
        self.path.pop();
        Ok(resolved)
    }
}

impl<'a> Resolver<'a> {
    fn find(&self, node: &Node, target: &[String]) -> Result<&'a Node> {
        let mut map = Some(self.config);
        let mut found = None;
        for name in target {
            found = map.and_then(|map| map.get(name));
            let Some(next) = found else {
                let meant = map.and_then(|map| nearest(name, map.keys().map(String::as_str)));
                let hint = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                let text = format!("`!reference [{}]`: there is no `{name}`{hint}", target.join(", "));
                return Err(node.error(text));
            };
            map = next.as_map();
        }
        found.ok_or_else(|| node.error("`!reference` needs the name of a job"))
    }
}
