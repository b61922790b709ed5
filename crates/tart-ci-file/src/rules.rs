//! `rules:` of jobs, of the workflow and of includes.

use indexmap::IndexMap;

use crate::{
    conditions::Conditions,
    error::{Location, Result},
    expression::Expression,
    job::{Need, Reader, When, needs},
    node::{Map, Node, Value},
    variables::{self, Variable},
};

/// How deep lists of rules may nest, which references leave.
const MAX_DEPTH: usize = 10;
/// The most patterns of one clause, as in GitLab.
const MAX_PATTERNS: usize = 50;

/// A rule: what has to hold, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) at: Location,
    condition: Option<Expression>,
    changes: Option<Changes>,
    exists: Option<Exists>,
    pub(crate) when: Option<When>,
    pub(crate) start_in: Option<String>,
    pub(crate) allow_failure: Option<bool>,
    pub(crate) variables: IndexMap<String, Variable>,
    pub(crate) needs: Option<Vec<Need>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Changes {
    paths: Vec<String>,
    compare_to: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Exists {
    paths: Vec<String>,
    /// They are looked for in another project.
    elsewhere: bool,
}

impl Rule {
    /// Whether all clauses hold.
    pub(crate) fn holds(&self, conditions: &Conditions<'_>) -> Result<bool> {
        if !self.condition.as_ref().is_none_or(|condition| conditions.hold(condition)) {
            return Ok(false);
        }
        if let Some(exists) = &self.exists
            && (exists.elsewhere || !conditions.exist(&exists.paths))
        {
            return Ok(false);
        }
        let Some(changes) = &self.changes else { return Ok(true) };
        conditions
            .changes(&changes.paths, changes.compare_to.as_deref())
            .map_err(|why| crate::Error::invalid(&self.at, format!("`rules:changes`: {why}")))
    }

    /// The rule in a few words.
    pub(crate) fn describe(&self) -> String {
        let mut clauses: Vec<String> = Vec::new();
        clauses.extend(self.condition.iter().map(|condition| format!("`{}`", condition.as_str())));
        clauses.extend(self.changes.iter().map(|_| "`changes`".to_owned()));
        clauses.extend(self.exists.iter().map(|_| "`exists`".to_owned()));
        let clauses = if clauses.is_empty() { "no condition".to_owned() } else { clauses.join(" and ") };
        format!("the rule at {} ({clauses})", self.at)
    }

    /// Whether the rule asks for something that is not known here.
    pub(crate) fn note(&self) -> Option<String> {
        let elsewhere = self.exists.as_ref().is_some_and(|exists| exists.elsewhere);
        elsewhere.then(|| {
            format!("{}: `exists:project` asks for files of another project, which count as absent", self.at)
        })
    }
}

/// The first rule that holds.
pub(crate) fn first<'r>(rules: &'r [Rule], conditions: &Conditions<'_>) -> Result<Option<&'r Rule>> {
    for rule in rules {
        if rule.holds(conditions)? {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

/// Reads rules. `words` are the values that `when` may have.
pub(crate) fn read(reader: Reader<'_>, node: &Node, words: &[(&str, When)]) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    collect(reader, node, words, 0, &mut rules)?;
    Ok(rules)
}

fn collect(
    reader: Reader<'_>,
    node: &Node,
    words: &[(&str, When)],
    depth: usize,
    rules: &mut Vec<Rule>,
) -> Result<()> {
    let Value::List(items) = &node.value else { return Err(reader.wrong(node, "rules", "a list of maps")) };
    for item in items {
        match &item.value {
            Value::Map(map) => rules.push(rule(reader, item, map, words)?),
            Value::List(_) if depth < MAX_DEPTH => collect(reader, item, words, depth + 1, rules)?,
            _ => return Err(reader.wrong(item, "rules", "a list of maps")),
        }
    }
    Ok(())
}

fn rule(reader: Reader<'_>, node: &Node, map: &Map, words: &[(&str, When)]) -> Result<Rule> {
    let known = [
        "if",
        "changes",
        "exists",
        "when",
        "start_in",
        "allow_failure",
        "variables",
        "needs",
        "interruptible",
        "auto_cancel",
    ];
    reader.known_keys(map, "rules", &known)?;
    if map.is_empty() {
        return Err(reader.error(node, "a rule is empty"));
    }
    let get = |key: &str| map.get(key).filter(|node| !node.is_null());
    let when = get("when").map(|node| reader.choice(node, "rules:when", words)).transpose()?;
    let start_in = get("start_in").map(|node| reader.text(node, "rules:start_in")).transpose()?;
    if (when == Some(When::Delayed)) != start_in.is_some() {
        return Err(reader.error(node, "`start_in` and `when: delayed` belong together"));
    }
    Ok(Rule {
        at: node.at.clone(),
        condition: get("if").map(|node| condition(reader, node, "rules:if")).transpose()?,
        changes: get("changes").map(|node| changes(reader, node)).transpose()?,
        exists: get("exists").map(|node| exists(reader, node)).transpose()?,
        when,
        start_in,
        allow_failure: get("allow_failure")
            .map(|node| reader.flag(node, "rules:allow_failure"))
            .transpose()?,
        variables: get("variables")
            .map_or(Ok(IndexMap::new()), |node| variables::read(reader, node, false))?,
        needs: get("needs").map(|node| needs(reader, node)).transpose()?,
    })
}

/// Reads an expression.
pub(crate) fn condition(reader: Reader<'_>, node: &Node, key: &str) -> Result<Expression> {
    let text = reader.text(node, key)?;
    Expression::parse(&text).map_err(|why| reader.error(node, format!("`{key}: {text}`: {why}")))
}

fn changes(reader: Reader<'_>, node: &Node) -> Result<Changes> {
    let Value::Map(map) = &node.value else {
        return Ok(Changes { paths: paths(reader, node, "rules:changes")?, compare_to: None });
    };
    reader.known_keys(map, "rules:changes", &["paths", "compare_to"])?;
    let Some(found) = map.get("paths") else {
        return Err(reader.error(node, "`rules:changes` has no `paths`"));
    };
    let compare_to = map.get("compare_to").filter(|node| !node.is_null());
    Ok(Changes {
        paths: paths(reader, found, "rules:changes:paths")?,
        compare_to: compare_to.map(|node| reader.text(node, "rules:changes:compare_to")).transpose()?,
    })
}

fn exists(reader: Reader<'_>, node: &Node) -> Result<Exists> {
    let Value::Map(map) = &node.value else {
        return Ok(Exists { paths: paths(reader, node, "rules:exists")?, elsewhere: false });
    };
    reader.known_keys(map, "rules:exists", &["paths", "project", "ref"])?;
    let Some(found) = map.get("paths") else {
        return Err(reader.error(node, "`rules:exists` has no `paths`"));
    };
    Ok(Exists {
        paths: paths(reader, found, "rules:exists:paths")?,
        elsewhere: map.get("project").is_some_and(|project| !project.is_null()),
    })
}

/// Patterns of files.
pub(crate) fn paths(reader: Reader<'_>, node: &Node, key: &str) -> Result<Vec<String>> {
    let paths = reader.only_list(node, key)?;
    if paths.len() > MAX_PATTERNS {
        return Err(reader.error(node, format!("`{key}` has more than {MAX_PATTERNS} patterns")));
    }
    Ok(paths)
}
