//! `extends:` between jobs.

use indexmap::IndexMap;

use crate::{
    error::{Result, nearest},
    node::{Budget, Map, Node, Value, deep_merge},
};

/// How many jobs may extend one another in a row, the first not counted.
const MAX_LEVELS: usize = 10;

/// Resolves `extends` of all top-level maps.
pub(crate) fn resolve(config: Map, budget: &mut Budget) -> Result<Map> {
    let mut resolver = Resolver { config: &config, done: IndexMap::new(), budget };
    for name in config.keys() {
        resolver.entry(name, &mut Vec::new())?;
    }
    let mut done = resolver.done;
    Ok(config
        .iter()
        .map(|(name, node)| match done.swap_remove(name) {
            Some((map, _)) => (name.clone(), Node::new(node.at.clone(), Value::Map(map))),
            None => (name.clone(), node.clone()),
        })
        .collect())
}

struct Resolver<'a> {
    config: &'a Map,
    /// Resolved maps and how many levels they extend.
    done: IndexMap<String, (Map, usize)>,
    budget: &'a mut Budget,
}

impl Resolver<'_> {
    /// Resolves one map, if it is one and extends others. `chain` holds the jobs that led here. Returns the levels.
    fn entry(&mut self, name: &str, chain: &mut Vec<String>) -> Result<usize> {
        if let Some((_, levels)) = self.done.get(name) {
            return Ok(*levels);
        }
        let config = self.config;
        let Some((node, map)) = config.get(name).and_then(|node| Some((node, node.as_map()?))) else {
            return Ok(0);
        };
        let Some(extends) = map.get("extends").filter(|extends| !extends.is_null()) else { return Ok(0) };
        let bases = base_names(extends)?;
        chain.push(name.to_owned());
        let mut merged = Map::new();
        let mut levels = 0;
        for base in bases {
            if chain.contains(&base) {
                let text = format!("`extends` goes round in a circle: {} -> {base}", chain.join(" -> "));
                return Err(extends.error(text));
            }
            let Some(base_node) = config.get(&base) else {
                let meant = nearest(&base, config.keys().map(String::as_str));
                let hint = meant.map(|job| format!("; did you mean `{job}`?")).unwrap_or_default();
                return Err(extends.error(format!("`{name}` extends `{base}`, which does not exist{hint}")));
            };
            let Some(base_map) = base_node.as_map() else {
                return Err(
                    extends.error(format!("`{name}` extends `{base}`, which is {}", base_node.kind()))
                );
            };
            // Checked before going down, so that a long chain does not use up the stack.
            if chain.len() > MAX_LEVELS {
                return Err(extends.error(format!("`extends` is nested more than {MAX_LEVELS} levels deep")));
            }
            levels = levels.max(1 + self.entry(&base, chain)?);
            let resolved = self.done.get(&base).map_or(base_map, |(map, _)| map);
            self.budget.charge_map(&extends.at, resolved)?;
            deep_merge(&mut merged, resolved.clone());
        }
        chain.pop();
        if levels > MAX_LEVELS {
            return Err(extends.error(format!("`extends` is nested more than {MAX_LEVELS} levels deep")));
        }
        self.budget.charge_map(&node.at, map)?;
        deep_merge(&mut merged, map.clone());
        self.done.insert(name.to_owned(), (merged, levels));
        Ok(levels)
    }
}

fn base_names(extends: &Node) -> Result<Vec<String>> {
    let wrong = || extends.error("`extends` must be the name of a job or a list of names");
    match &extends.value {
        Value::Text(name) => Ok(vec![name.clone()]),
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(name) => Ok(name.clone()),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}
