//! An ordered list of variables, in which the last one of a name wins.

use std::collections::HashMap;
use std::fmt;

use super::expand::expand;

/// A variable of a job. `Debug` does not show its value.
#[derive(Clone, PartialEq, Eq)]
pub struct JobVariable {
    /// The name.
    pub key: String,
    /// The value; the content, for a file variable.
    pub value: String,
    /// May be given to services.
    pub public: bool,
    /// Set by the runner: given to services as well.
    pub internal: bool,
    /// The value is hidden in the log.
    pub masked: bool,
    /// The value is written to a file, and the variable holds its path.
    pub file: bool,
    /// References inside the value stay as they are.
    pub raw: bool,
}

impl JobVariable {
    /// A variable the runner sets, whose value is taken as it is.
    pub fn internal(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            public: true,
            internal: true,
            masked: false,
            file: false,
            raw: true,
        }
    }
}

impl From<&tart_spec::Variable> for JobVariable {
    fn from(variable: &tart_spec::Variable) -> Self {
        Self {
            key: variable.key.clone(),
            value: variable.value.clone(),
            public: variable.public,
            internal: false,
            masked: variable.masked,
            file: variable.file,
            raw: variable.raw,
        }
    }
}

impl fmt::Debug for JobVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobVariable").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Variables in order. `Debug` shows names only.
#[derive(Clone, Debug, Default)]
pub struct VariableSet {
    entries: Vec<JobVariable>,
    last: HashMap<String, usize>,
    /// Where file variables are; with a trailing slash.
    file_dir: String,
}

impl VariableSet {
    /// An empty set whose file variables are in `file_dir`.
    pub fn new(file_dir: &str) -> Self {
        Self { file_dir: format!("{}/", file_dir.trim_end_matches('/')), ..Self::default() }
    }

    /// Appends a variable. File variables are kept with the path that refers to them.
    pub fn push(&mut self, variable: JobVariable) {
        self.last.insert(variable.key.clone(), self.entries.len());
        self.entries.push(variable);
    }

    /// All variables, in order, with those that a later one hides.
    pub fn iter(&self) -> impl Iterator<Item = &JobVariable> {
        self.entries.iter()
    }

    /// The variables that count, in order.
    pub fn effective(&self) -> impl Iterator<Item = &JobVariable> {
        self.entries
            .iter()
            .enumerate()
            .filter(|(at, entry)| self.last.get(&entry.key) == Some(at))
            .map(|(_, e)| e)
    }

    /// The last variable of a name.
    pub fn get(&self, key: &str) -> Option<&JobVariable> {
        self.last.get(key).and_then(|&at| self.entries.get(at))
    }

    /// The value of a variable; the content, for a file variable.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|variable| variable.value.as_str())
    }

    /// What a program sees in a variable: the path, for a file variable.
    pub fn exported(&self, variable: &JobVariable) -> String {
        if variable.file { self.file_path(&variable.key) } else { variable.value.clone() }
    }

    /// The path of a file variable.
    pub fn file_path(&self, key: &str) -> String {
        format!("{}{key}", self.file_dir)
    }

    /// Expands text with these variables; a file variable stands for its path.
    pub fn expand(&self, text: &str) -> String {
        self.expand_with(&self.paths(), text)
    }

    /// The set with every value expanded once, from the values as they are now. Raw variables are copied.
    pub fn expanded(&self) -> Self {
        let paths = self.paths();
        let mut set = self.clone();
        for variable in set.entries.iter_mut().filter(|variable| !variable.raw) {
            variable.value = self.expand_with(&paths, &variable.value);
        }
        set
    }

    fn paths(&self) -> HashMap<&str, String> {
        let files = self.effective().filter(|variable| variable.file);
        files.map(|variable| (variable.key.as_str(), self.file_path(&variable.key))).collect()
    }

    fn expand_with(&self, paths: &HashMap<&str, String>, text: &str) -> String {
        expand(text, |name| match paths.get(name) {
            Some(path) => Some(path.as_str()),
            None => self.value(name),
        })
    }
}
