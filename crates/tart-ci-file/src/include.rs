//! `include:` of files of the repository.

use crate::{
    conditions::Conditions,
    error::{Error, Result},
    files::{Files, matches},
    job::{Reader, When},
    node::{Budget, Map, Node, Value, deep_merge},
    rules::{self, Rule},
    yaml,
};

/// The most files that may be included in all.
const MAX_INCLUDES: usize = 150;

/// Reads files and lays what they include below them.
pub(crate) struct Includer<'a> {
    files: &'a dyn Files,
    /// Without them, all conditions count as met.
    conditions: Option<&'a Conditions<'a>>,
    budget: &'a mut Budget,
    pub(crate) warnings: Vec<String>,
    included: usize,
}

impl<'a> Includer<'a> {
    pub(crate) fn new(
        files: &'a dyn Files,
        conditions: Option<&'a Conditions<'a>>,
        budget: &'a mut Budget,
    ) -> Self {
        Self { files, conditions, budget, warnings: Vec::new(), included: 0 }
    }

    /// The content of a file with all that it includes. `chain` holds the files that led here.
    pub(crate) fn load(&mut self, path: &str, chain: &mut Vec<String>) -> Result<Map> {
        let text = self.files.read(path).map_err(|reason| Error::File {
            path: path.to_owned(),
            text: format!("cannot read {path}: {reason}"),
        })?;
        self.parse(path, &text, chain)
    }

    fn parse(&mut self, path: &str, text: &str, chain: &mut Vec<String>) -> Result<Map> {
        let document = yaml::parse(path, text, self.budget)?;
        self.warnings.extend(document.warnings);
        if let Some(at) = document.spec {
            return Err(Error::invalid(
                &at,
                "files with a `spec:` header take inputs, which are not supported locally: write the values into the \
                 file, or run the pipeline on GitLab",
            ));
        }
        let at = document.root.at.clone();
        let mut own = match document.root.value {
            Value::Map(map) => map,
            Value::Null => Map::new(),
            _ => return Err(Error::invalid(&at, "a CI file must be a map of jobs and keywords")),
        };
        let mut merged = Map::new();
        if let Some(include) = own.shift_remove("include") {
            chain.push(path.to_owned());
            let items = match include.value {
                Value::List(items) => items,
                Value::Null => Vec::new(),
                _ => vec![include],
            };
            for item in &items {
                for (path, text) in self.fetch(item)? {
                    if chain.contains(&path) {
                        let text = format!("`{path}` includes itself: {} -> {path}", chain.join(" -> "));
                        return Err(item.error(text));
                    }
                    let included = self.parse(&path, &text, chain)?;
                    deep_merge(&mut merged, included);
                }
            }
            chain.pop();
        }
        deep_merge(&mut merged, own);
        Ok(merged)
    }

    /// Whether the rules of an entry include it.
    fn is_due(&mut self, item: &Node) -> Result<bool> {
        let Some(node) = item.as_map().and_then(|map| map.get("rules")).filter(|node| !node.is_null()) else {
            return Ok(true);
        };
        let rules = rules::read(Reader { owner: "`include`" }, node, When::JOB)?;
        let Some(conditions) = self.conditions else { return Ok(true) };
        self.warnings.extend(rules.iter().filter_map(Rule::note));
        Ok(rules::first(&rules, conditions)?.is_some_and(|rule| rule.when != Some(When::Never)))
    }

    /// The files that one entry names, with their texts.
    fn fetch(&mut self, item: &Node) -> Result<Vec<(String, String)>> {
        if !self.is_due(item)? {
            return Ok(Vec::new());
        }
        let written = local(item)?;
        let name = self.conditions.map_or_else(|| written.clone(), |conditions| conditions.expand(&written));
        if name.contains('$') {
            let text = format!(
                "the path `{name}` has a variable that is not known here; those of the file itself are not known yet \
                 when files are included"
            );
            return Err(item.error(text));
        }
        let path = name.trim_start_matches('/').to_owned();
        if !path.ends_with(".yml") && !path.ends_with(".yaml") {
            return Err(
                item.error(format!("`{name}` cannot be included: its name must end in `.yml` or `.yaml`"))
            );
        }
        let paths = if path.contains('*') {
            let listed =
                self.files.list().map_err(|reason| item.error(format!("cannot list files: {reason}")))?;
            let found: Vec<String> = listed.into_iter().filter(|file| matches(&path, file)).collect();
            if found.is_empty() {
                return Err(item.error(format!("no file matches `{name}`")));
            }
            found
        } else {
            vec![path]
        };
        let mut texts = Vec::new();
        for path in paths {
            self.included += 1;
            if self.included > MAX_INCLUDES {
                return Err(item.error(format!("more than {MAX_INCLUDES} files are included")));
            }
            let text = self
                .files
                .read(&path)
                .map_err(|reason| item.error(format!("cannot include `{path}`: {reason}")))?;
            texts.push((path, text));
        }
        Ok(texts)
    }
}

/// The path of an entry, which must be a file of this repository.
fn local(item: &Node) -> Result<String> {
    match &item.value {
        Value::Text(text) if text.starts_with("https://") || text.starts_with("http://") => {
            Err(item.error(elsewhere("remote", text)))
        }
        Value::Text(text) => Ok(text.clone()),
        Value::Map(map) => {
            for kind in ["remote", "project", "template", "component", "artifact"] {
                if let Some(value) = map.get(kind) {
                    return Err(item.error(elsewhere(kind, &value.scalar().unwrap_or_default())));
                }
            }
            if map.contains_key("inputs") {
                return Err(
                    item.error("`include:inputs` is not supported locally: write the values into the file")
                );
            }
            match map.get("local").map(|path| &path.value) {
                Some(Value::Text(path)) => Ok(path.clone()),
                _ => Err(item.error("an entry of `include` needs `local:` with the path of a file")),
            }
        }
        _ => Err(item.error(format!("an entry of `include` must be a path or a map, not {}", item.kind()))),
    }
}

fn elsewhere(kind: &str, name: &str) -> String {
    format!(
        "`include:{kind}` ({name}) is not in this repository, and nothing is fetched from the network: save a copy of \
         the file in the repository and include it with `local:`"
    )
}
