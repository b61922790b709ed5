//! `workflow:`: whether there is a pipeline at all, and its name.

use crate::{
    conditions::Conditions,
    error::Result,
    job::{Reader, When},
    node::Node,
    rules::{self, Rule},
};

/// What it says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Workflow {
    name: Option<String>,
    rules: Option<Vec<Rule>>,
}

/// Whether there is a pipeline.
pub(crate) enum Outcome<'a> {
    /// There is; a rule may have variables for it.
    Runs(Option<&'a Rule>),
    /// There is none, and why.
    Refused(String),
}

impl Workflow {
    pub(crate) fn read(node: Option<&Node>) -> Result<Self> {
        let reader = Reader { owner: "`workflow`" };
        let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(Self::default()) };
        let map = reader.map(node, "workflow")?;
        reader.known_keys(map, "", &["name", "rules", "auto_cancel"])?;
        let get = |key: &str| map.get(key).filter(|node| !node.is_null());
        Ok(Self {
            name: get("name").map(|node| reader.text(node, "name")).transpose()?,
            rules: get("rules").map(|node| rules::read(reader, node, When::WORKFLOW)).transpose()?,
        })
    }

    pub(crate) fn decide(&self, conditions: &Conditions<'_>) -> Result<Outcome<'_>> {
        let Some(rules) = &self.rules else { return Ok(Outcome::Runs(None)) };
        Ok(match rules::first(rules, conditions)? {
            Some(rule) if rule.when == Some(When::Never) => {
                Outcome::Refused(format!("{} of `workflow` says `when: never`", rule.describe()))
            }
            Some(rule) => Outcome::Runs(Some(rule)),
            None => Outcome::Refused("no rule of `workflow` holds".to_owned()),
        })
    }

    /// The name of the pipeline, if it has one.
    pub(crate) fn name(&self, conditions: &Conditions<'_>) -> Option<String> {
        let name = conditions.expand(self.name.as_ref()?);
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        self.rules.iter().flatten().filter_map(Rule::note)
    }
}
