//! From a resolved map to a [`Job`].

use std::time::Duration;

use indexmap::IndexMap;

use super::{
    AllowFailure, Instance, Job, Need, Retry, VariableScope, When, cache_list, image, inputs, services,
    storage,
};
use crate::{
    duration,
    error::{Error, Result, nearest},
    node::{Map, Node, Value},
    parallel::{self, Variant},
    policy, rules,
    variables::{self, Variable},
};

/// Keywords whose values are typed.
const TYPED: &[&str] = &[
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "dependencies",
    "hooks",
    "image",
    "inputs",
    "needs",
    "parallel",
    "retry",
    "script",
    "services",
    "stage",
    "tags",
    "timeout",
    "variables",
    "when",
];
/// Keywords that are kept as they are; some are typed too.
const RAW: &[&str] = &[
    "allow_failure",
    "coverage",
    "dast_configuration",
    "environment",
    "except",
    "execution",
    "id_tokens",
    "identity",
    "inherit",
    "interruptible",
    "manual_confirmation",
    "only",
    "pages",
    "publish",
    "release",
    "resource_group",
    "rules",
    "run",
    "secrets",
    "start_in",
    "trigger",
];

/// Reads values of one job (or of `default`) and says in errors whose they are.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// `job `name`` or ``default``, for messages.
    pub(crate) owner: &'a str,
}

impl Reader<'_> {
    pub(crate) fn wrong(&self, node: &Node, key: &str, expected: &str) -> Error {
        node.error(format!("{}: `{key}` must be {expected}, not {}", self.owner, node.kind()))
    }

    pub(crate) fn error(&self, node: &Node, text: impl std::fmt::Display) -> Error {
        node.error(format!("{}: {text}", self.owner))
    }

    pub(crate) fn text(&self, node: &Node, key: &str) -> Result<String> {
        match node.value {
            Value::Null => Err(self.wrong(node, key, "a string")),
            _ => node.scalar().ok_or_else(|| self.wrong(node, key, "a string")),
        }
    }

    pub(crate) fn flag(&self, node: &Node, key: &str) -> Result<bool> {
        match node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong(node, key, "`true` or `false`")),
        }
    }

    pub(crate) fn map<'n>(&self, node: &'n Node, key: &str) -> Result<&'n Map> {
        node.as_map().ok_or_else(|| self.wrong(node, key, "a map"))
    }

    /// A list of strings; lists inside of it, which references leave, are opened.
    pub(crate) fn texts(&self, node: &Node, key: &str) -> Result<Vec<String>> {
        match &node.value {
            Value::Text(text) => Ok(vec![text.clone()]),
            Value::Null => Ok(Vec::new()),
            _ => self.only_list(node, key),
        }
    }

    /// As [`Reader::texts`], but a single string is wrong.
    pub(crate) fn only_list(&self, node: &Node, key: &str) -> Result<Vec<String>> {
        let Value::List(items) = &node.value else { return Err(self.wrong(node, key, "a list of strings")) };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::List(_) => texts.extend(self.only_list(item, key)?),
                _ => texts.push(self.text(item, key)?),
            }
        }
        Ok(texts)
    }

    pub(crate) fn one_of(&self, node: &Node, key: &str, words: &[&str]) -> Result<String> {
        let text = self.text(node, key)?;
        // Variables are replaced when the job runs.
        if words.contains(&text.as_str()) || text.contains('$') {
            return Ok(text);
        }
        Err(self.error(node, format!("`{key}` must be one of {}, not `{text}`", words.join(", "))))
    }

    /// One of the words that stand for values.
    pub(crate) fn choice<T: Copy>(&self, node: &Node, key: &str, words: &[(&str, T)]) -> Result<T> {
        let text = self.text(node, key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(node, format!("`{key}` must be one of {}, not `{text}`", words.join(", ")))
        })
    }

    /// Refuses keys that are not among `known`.
    pub(crate) fn known_keys(&self, map: &Map, key: &str, known: &[&str]) -> Result<()> {
        for (name, node) in map {
            if !known.contains(&name.as_str()) {
                let meant = nearest(name, known.iter().copied());
                let hint = meant.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
                let place = if key.is_empty() { "keyword".into() } else { format!("key of `{key}`") };
                return Err(self.error(node, format!("unknown {place} `{name}`{hint}")));
            }
        }
        Ok(())
    }
}

/// How deep lists in scripts may nest.
const MAX_SCRIPT_DEPTH: usize = 10;

/// A script: a string, or strings in lists that nest up to ten levels.
pub(crate) fn script(reader: Reader<'_>, node: &Node, key: &str) -> Result<Vec<String>> {
    fn collect(
        reader: Reader<'_>,
        node: &Node,
        key: &str,
        depth: usize,
        lines: &mut Vec<String>,
    ) -> Result<()> {
        match &node.value {
            Value::Text(text) => lines.push(text.clone()),
            Value::List(items) if depth <= MAX_SCRIPT_DEPTH => {
                for item in items {
                    collect(reader, item, key, depth + 1, lines)?;
                }
            }
            Value::List(_) => {
                return Err(reader.error(
                    node,
                    format!("`{key}` has lists nested more than {MAX_SCRIPT_DEPTH} levels deep"),
                ));
            }
            Value::Map(_) => {
                let hint = "put a command with `: ` in it into quotes";
                return Err(reader.error(node, format!("`{key}` must hold strings, not a map; {hint}")));
            }
            _ => return Err(reader.wrong(node, key, "a string or a list of strings")),
        }
        Ok(())
    }
    let mut lines = Vec::new();
    collect(reader, node, key, 0, &mut lines)?;
    Ok(lines)
}

/// Reads a job whose defaults and inherited variables are in place. `parallel` is left to the caller.
pub(crate) fn job(name: &str, node: &Node, inherited: &IndexMap<String, Variable>) -> Result<Job> {
    let owner = format!("job `{name}`");
    let reader = Reader { owner: &owner };
    let map = reader.map(node, name)?;
    let known: Vec<&str> = TYPED.iter().chain(RAW).copied().chain(["extends"]).collect();
    reader.known_keys(map, "", &known)?;
    let get = |key: &str| map.get(key).filter(|node| !node.is_null());
    let script_of = |key: &str| get(key).map_or(Ok(Vec::new()), |node| script(reader, node, key));

    let not_runnable = if map.contains_key("trigger") {
        Some("it triggers another pipeline, which only GitLab can do")
    } else if map.contains_key("run") {
        Some("it consists of `run` steps, which are not supported; write a `script`")
    } else {
        None
    };
    let lines = script_of("script")?;
    if not_runnable.is_none() && lines.iter().all(|line| line.trim().is_empty()) {
        return Err(reader.error(node, "there is no `script`; every job needs one"));
    }
    let mut variables = inherited.clone();
    let own = get("variables").map_or(Ok(IndexMap::new()), |node| variables::read(reader, node, false))?;
    let scope = VariableScope { own: own.keys().cloned().collect(), ..VariableScope::default() };
    variables.extend(own);
    let rules = get("rules").map(|node| rules::read(reader, node, When::JOB)).transpose()?;
    let policies = policy::read(reader, get("only"), get("except"))?;
    if rules.is_some()
        && let Some(node) = get("only").or_else(|| get("except"))
    {
        return Err(reader.error(node, "`only` and `except` cannot be used together with `rules`"));
    }
    let when = get("when").map_or(Ok(When::OnSuccess), |node| reader.choice(node, "when", When::JOB))?;
    // Only jobs that are manual by themselves, not by a rule, are optional unless they say so.
    let optional = when == When::Manual && rules.is_none();
    let by_default = if optional { AllowFailure::Yes } else { AllowFailure::No };
    Ok(Job {
        name: name.to_owned(),
        base: name.to_owned(),
        at: node.at.clone(),
        stage: get("stage").map_or(Ok("test".into()), |node| reader.text(node, "stage"))?,
        before_script: script_of("before_script")?,
        script: lines,
        after_script: script_of("after_script")?,
        image: get("image").map(|node| image(reader, node)).transpose()?,
        services: get("services").map_or(Ok(Vec::new()), |node| services(reader, node))?,
        variables,
        timeout: get("timeout").map(|node| timeout(reader, node)).transpose()?,
        retry: get("retry").map_or(Ok(Retry::default()), |node| retry(reader, node))?,
        tags: get("tags").map_or(Ok(Vec::new()), |node| reader.only_list(node, "tags"))?,
        needs: get("needs").map(|node| needs(reader, node)).transpose()?,
        dependencies: get("dependencies").map(|node| reader.only_list(node, "dependencies")).transpose()?,
        artifacts: get("artifacts").map(|node| storage::artifacts(reader, node)).transpose()?,
        cache: get("cache").map_or(Ok(Vec::new()), |node| cache_list(reader, node))?,
        inputs: get("inputs").map_or(Ok(Vec::new()), |node| inputs::inputs(reader, node))?,
        hooks: get("hooks").map_or(Ok(IndexMap::new()), |node| hooks(reader, node))?,
        when,
        start_in: get("start_in").map(|node| reader.text(node, "start_in")).transpose()?,
        allow_failure: get("allow_failure").map_or(Ok(by_default), |node| allow_failure(reader, node))?,
        resource_group: get("resource_group").map(|node| reader.text(node, "resource_group")).transpose()?,
        rules,
        policies,
        scope,
        instance: None::<Instance>,
        not_runnable,
        raw: map
            .iter()
            .filter(|(key, _)| RAW.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.to_json()))
            .collect(),
    })
}

fn timeout(reader: Reader<'_>, node: &Node) -> Result<Duration> {
    let text = reader.text(node, "timeout")?;
    duration::parse(&text).filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
        reader.error(node, format!("`timeout` must be a duration such as `1h 30m`, not `{text}`"))
    })
}

fn retry(reader: Reader<'_>, node: &Node) -> Result<Retry> {
    let max = |node: &Node| match node.value {
        Value::Int(max @ 0..=2) => Ok(u32::try_from(max).unwrap_or_default()),
        _ => Err(reader.error(node, "`retry` must be 0, 1 or 2")),
    };
    let Value::Map(map) = &node.value else { return Ok(Retry { max: max(node)?, ..Retry::default() }) };
    reader.known_keys(map, "retry", &["max", "when", "exit_codes"])?;
    let codes =
        map.get("exit_codes").map_or(Ok(Vec::new()), |node| exit_codes(reader, node, "retry:exit_codes"))?;
    Ok(Retry {
        max: map.get("max").map_or(Ok(0), max)?,
        when: map.get("when").map_or(Ok(Vec::new()), |node| reader.texts(node, "retry:when"))?,
        exit_codes: codes,
    })
}

fn exit_codes(reader: Reader<'_>, node: &Node, key: &str) -> Result<Vec<i64>> {
    let code = |node: &Node| match node.value {
        Value::Int(code) => Ok(code),
        _ => Err(reader.wrong(node, key, "a number or a list of numbers")),
    };
    match &node.value {
        Value::List(items) => items.iter().map(code).collect(),
        _ => Ok(vec![code(node)?]),
    }
}

fn allow_failure(reader: Reader<'_>, node: &Node) -> Result<AllowFailure> {
    match &node.value {
        Value::Bool(true) => Ok(AllowFailure::Yes),
        Value::Bool(false) => Ok(AllowFailure::No),
        Value::Map(map) => {
            reader.known_keys(map, "allow_failure", &["exit_codes"])?;
            let Some(codes) = map.get("exit_codes") else {
                return Err(reader.error(node, "`allow_failure` has no `exit_codes`"));
            };
            exit_codes(reader, codes, "allow_failure:exit_codes").map(AllowFailure::ExitCodes)
        }
        _ => Err(reader.wrong(node, "allow_failure", "`true`, `false` or a map with `exit_codes`")),
    }
}

pub(crate) fn needs(reader: Reader<'_>, node: &Node) -> Result<Vec<Need>> {
    let Value::List(items) = &node.value else { return Err(reader.wrong(node, "needs", "a list")) };
    let mut needs = Vec::new();
    for item in items {
        match &item.value {
            Value::Text(job) => needs.push(Need { job: job.clone(), artifacts: true, optional: false }),
            Value::List(_) => needs.extend(self::needs(reader, item)?),
            Value::Map(map) => {
                // Jobs of other pipelines do not exist here, and their artifacts cannot be fetched.
                if map.contains_key("pipeline") || map.contains_key("project") {
                    continue;
                }
                reader.known_keys(map, "needs", &["job", "artifacts", "optional", "parallel", "ref"])?;
                let Some(job) = map.get("job") else {
                    return Err(reader.error(item, "an entry of `needs` has no `job`"));
                };
                let flag =
                    |key: &str, default| map.get(key).map_or(Ok(default), |node| reader.flag(node, key));
                let job = reader.text(job, "needs:job")?;
                let jobs = match map.get("parallel").filter(|node| !node.is_null()) {
                    Some(node) => {
                        parallel::variants(reader, &job, node)?.into_iter().map(Variant::into_name).collect()
                    }
                    None => vec![job],
                };
                let (artifacts, optional) = (flag("artifacts", true)?, flag("optional", false)?);
                needs.extend(jobs.into_iter().map(|job| Need { job, artifacts, optional }));
            }
            _ => return Err(reader.wrong(item, "needs", "a list of job names or maps")),
        }
    }
    Ok(needs)
}

fn hooks(reader: Reader<'_>, node: &Node) -> Result<IndexMap<String, Vec<String>>> {
    let map = reader.map(node, "hooks")?;
    reader.known_keys(map, "hooks", &["pre_get_sources_script"])?;
    map.iter().map(|(name, node)| Ok((name.clone(), script(reader, node, name)?))).collect()
}
