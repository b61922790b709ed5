//! `only:` and `except:`, the older way to say when a job runs.

use crate::{
    conditions::Conditions,
    error::{Error, Location, Result},
    expression::{Expression, pattern},
    job::Reader,
    node::{Node, Value},
    rules::{condition, paths},
};

/// Both of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Policies {
    only: Option<Policy>,
    except: Option<Policy>,
}

/// What one of them asks for. All that is given has to hold for `only`; `except` leaves a job out by any.
#[derive(Debug, Clone, PartialEq)]
struct Policy {
    at: Location,
    refs: Option<Vec<String>>,
    variables: Option<Vec<Expression>>,
    changes: Option<Vec<String>>,
    kubernetes: bool,
}

/// Reads both.
pub(crate) fn read(reader: Reader<'_>, only: Option<&Node>, except: Option<&Node>) -> Result<Policies> {
    Ok(Policies {
        only: only.map(|node| policy(reader, node, "only")).transpose()?,
        except: except.map(|node| policy(reader, node, "except")).transpose()?,
    })
}

fn policy(reader: Reader<'_>, node: &Node, key: &str) -> Result<Policy> {
    let at = node.at.clone();
    let Value::Map(map) = &node.value else {
        let refs = Some(refs(reader, node, key)?);
        return Ok(Policy { at, refs, variables: None, changes: None, kubernetes: false });
    };
    reader.known_keys(map, key, &["refs", "variables", "changes", "kubernetes"])?;
    let get = |key: &str| map.get(key).filter(|node| !node.is_null());
    let expressions = |node: &Node| {
        let Value::List(items) = &node.value else {
            return Err(reader.wrong(node, &format!("{key}:variables"), "a list of expressions"));
        };
        items.iter().map(|item| condition(reader, item, &format!("{key}:variables"))).collect()
    };
    Ok(Policy {
        at,
        refs: get("refs").map(|node| refs(reader, node, &format!("{key}:refs"))).transpose()?,
        variables: get("variables").map(expressions).transpose()?,
        changes: get("changes").map(|node| paths(reader, node, &format!("{key}:changes"))).transpose()?,
        kubernetes: get("kubernetes").is_some(),
    })
}

/// Names of branches and tags, patterns, and words such as `tags`.
fn refs(reader: Reader<'_>, node: &Node, key: &str) -> Result<Vec<String>> {
    let refs = reader.only_list(node, key)?;
    for written in &refs {
        if let Some(Err(why)) = pattern(without_project(written).0) {
            return Err(reader.error(node, format!("`{key}`: {why}")));
        }
    }
    Ok(refs)
}

impl Policies {
    /// `Ok` says why a job runs, `Err` why it does not.
    pub(crate) fn decide(&self, conditions: &Conditions<'_>) -> Result<std::result::Result<String, String>> {
        let event = event(conditions);
        match &self.only {
            None if !refs_match(&BY_DEFAULT.map(str::to_owned), conditions) => {
                let text =
                    format!("without `rules` or `only`, it runs for branches and tags, not for {event}");
                return Ok(Err(text));
            }
            None => {}
            Some(only) => {
                if let Some(missing) = only.missing(conditions)? {
                    return Ok(Err(format!("`only` at {} does not take {missing}", only.at)));
                }
            }
        }
        if let Some(except) = &self.except
            && let Some(found) = except.found(conditions)?
        {
            return Ok(Err(format!("`except` at {} leaves out {found}", except.at)));
        }
        Ok(Ok(match (&self.only, &self.except) {
            (Some(only), _) => format!("`only` at {}", only.at),
            (None, Some(except)) => format!("not left out by `except` at {}", except.at),
            (None, None) => "no condition".to_owned(),
        }))
    }
}

/// What jobs without `only` are for.
const BY_DEFAULT: [&str; 2] = ["branches", "tags"];

impl Policy {
    /// What `only` asks for in vain. Without `refs`, it is for branches and tags.
    fn missing(&self, conditions: &Conditions<'_>) -> Result<Option<String>> {
        let by_default = BY_DEFAULT.map(str::to_owned);
        if !refs_match(self.refs.as_deref().unwrap_or(&by_default), conditions) {
            return Ok(Some(event(conditions)));
        }
        if let Some(variables) = &self.variables
            && !variables.iter().any(|expression| conditions.hold(expression))
        {
            return Ok(Some("these variables".to_owned()));
        }
        if let Some(changes) = &self.changes
            && !self.changes(changes, conditions)?
        {
            return Ok(Some("these changes".to_owned()));
        }
        Ok(self.kubernetes.then(|| "a pipeline without a Kubernetes cluster".to_owned()))
    }

    /// What `except` asks for and finds. Nothing here has a Kubernetes cluster.
    fn found(&self, conditions: &Conditions<'_>) -> Result<Option<String>> {
        if self.refs.as_ref().is_some_and(|refs| refs_match(refs, conditions)) {
            return Ok(Some(event(conditions)));
        }
        if self.variables.iter().flatten().any(|expression| conditions.hold(expression)) {
            return Ok(Some("these variables".to_owned()));
        }
        if let Some(changes) = &self.changes
            && self.changes(changes, conditions)?
        {
            return Ok(Some("these changes".to_owned()));
        }
        Ok(None)
    }

    fn changes(&self, patterns: &[String], conditions: &Conditions<'_>) -> Result<bool> {
        conditions.changes(patterns, None).map_err(|why| Error::invalid(&self.at, why))
    }
}

/// What the pipeline is for, in words.
fn event(conditions: &Conditions<'_>) -> String {
    let context = conditions.context;
    let (source, name) = (context.source, &context.commit.ref_name);
    if context.merge_request.is_some() {
        return "merge requests".to_owned();
    }
    let kind = if context.commit.is_tag { "tag" } else { "branch" };
    format!("{} to the {kind} `{name}`", source.policy())
}

fn refs_match(refs: &[String], conditions: &Conditions<'_>) -> bool {
    let context = conditions.context;
    let commit = &context.commit;
    refs.iter().any(|written| {
        let (name, project) = without_project(written);
        if project.is_some_and(|project| project != context.project.path) {
            return false;
        }
        let for_request = context.merge_request.is_some();
        match name {
            "tags" if commit.is_tag => return true,
            "branches" if !commit.is_tag && !for_request => return true,
            _ => {}
        }
        if name == context.source.as_str() || name == context.source.policy() {
            return true;
        }
        match pattern(name) {
            Some(pattern) => pattern.is_ok_and(|pattern| pattern.is_match(&commit.ref_name)),
            None => name == commit.ref_name,
        }
    })
}

/// `ref@group/project`. A pattern has its `@` inside.
fn without_project(written: &str) -> (&str, Option<&str>) {
    if written.starts_with('/') {
        return match written.rsplit_once('@') {
            Some((name, project)) if pattern(name).is_some() => (name, Some(project)),
            _ => (written, None),
        };
    }
    written.split_once('@').map_or((written, None), |(name, project)| (name, Some(project)))
}
