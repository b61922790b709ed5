//! Changing the file in place: comments and order stay, the new text is checked before it replaces the old one.

mod file;
mod setting;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use toml_edit::{ArrayOfTables, Datetime, DocumentMut, Item, Table, Value};

use crate::{
    load::{self, read},
    model::Config,
    problem::LoadError,
    secret::Secret,
};

/// Why a configuration was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file is unusable, or would be after the change.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The change would make the file unusable.
    #[error("the change was not made because the configuration would be wrong: {0}")]
    Refused(LoadError),
    /// Another process holds the lock.
    #[error("{} is being changed by another process; try again when that has ended", .0.display())]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `runners` is written as an inline list.
    #[error("`runners` is written as a list in {}: write each runner as a `[[runners]]` table", .0.display())]
    InlineRunners(PathBuf),
    /// A setting of a new runner or the template does not fit.
    #[error("{0}")]
    Setting(String),
    /// There is no runner with that number.
    #[error("the configuration has no runner number {0}")]
    NoRunner(usize),
}

/// A runner to append.
#[derive(Debug, Clone, Default)]
pub struct NewRunner {
    /// Its name.
    pub name: String,
    /// The instance.
    pub url: String,
    /// Its token.
    pub token: Secret,
    /// Its number in GitLab.
    pub id: u64,
    /// When the token was given out.
    pub token_obtained_at: Option<Timestamp>,
    /// When the token expires.
    pub token_expires_at: Option<Timestamp>,
    /// The executor; `microvm` if empty.
    pub executor: String,
    /// The text of a file with one `[[runners]]`, whose keys are taken over.
    pub template: Option<String>,
    /// Other keys, by their path below `runners` (`docker.image`), with the value as a command line gives it. They win
    /// over the template. A key of a list may be given several times; keys of tables take `name:value`.
    pub settings: Vec<(String, String)>,
}

/// A configuration file open for changes. Holds a lock against other editors until it is dropped.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    document: DocumentMut,
    config: Config,
    _lock: Option<std::fs::File>,
}

impl Editor {
    /// Opens an existing file.
    ///
    /// # Errors
    ///
    /// If it is missing, has problems, or is locked for longer than ten seconds.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let path = file::resolve(path)?;
        let lock = file::lock(&path)?;
        let text = read(&path)?;
        Self::from_text(path, text, Some(lock))
    }

    /// Opens a file, which is a new one with `concurrent = 1` if there is none. Its directory is made if needed.
    ///
    /// # Errors
    ///
    /// As [`Editor::open`], but not if the file is missing.
    pub fn open_or_create(path: &Path) -> Result<Self, EditError> {
        file::make_directory(path)?;
        match Self::open(path) {
            Err(EditError::Load(LoadError::NotFound(_))) => {
                let lock = file::lock(path)?;
                let text = match read(path) {
                    Err(LoadError::NotFound(_)) => "concurrent = 1\n".to_owned(),
                    other => other?,
                };
                Self::from_text(path.to_owned(), text, Some(lock))
            }
            other => other,
        }
    }

    /// The text of a file that has nothing but this runner.
    ///
    /// # Errors
    ///
    /// As [`Editor::append`].
    pub fn render(new: &NewRunner) -> Result<String, EditError> {
        let mut editor = Self::from_text(PathBuf::from("config.toml"), String::new(), None)?;
        editor.append(new)?;
        Ok(editor.document.to_string().trim_start().to_owned())
    }

    fn from_text(path: PathBuf, text: String, lock: Option<std::fs::File>) -> Result<Self, EditError> {
        let config = check(&path, &text)?;
        // The checker parses with the same grammar, so that this does not fail in practice.
        let Ok(document) = text.parse() else {
            return Err(EditError::Setting(format!("{} is not valid TOML", path.display())));
        };
        Ok(Self { path, document, config, _lock: lock })
    }

    /// The configuration with all changes so far. Its runners are in the order of the numbers used here.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of the runner with that address and token.
    pub fn find(&self, url: &str, token: &Secret) -> Option<usize> {
        let url = url.trim_end_matches('/');
        self.config.runners.iter().position(|runner| runner.url == url && runner.token == *token)
    }

    /// Appends a runner at the end of the file.
    ///
    /// # Errors
    ///
    /// If a setting or the template does not fit, or the file would have problems.
    pub fn append(&mut self, new: &NewRunner) -> Result<(), EditError> {
        let mut table = match &new.template {
            Some(template) => setting::template(template)?,
            None => Table::new(),
        };
        let executor = if new.executor.is_empty() { "microvm" } else { &new.executor };
        for (key, value) in [("name", new.name.as_str()), ("url", &new.url), ("token", new.token.expose())] {
            if !value.is_empty() {
                table.insert(key, value.into());
            }
        }
        if let Some(id) = i64::try_from(new.id).ok().filter(|id| *id != 0) {
            table.insert("id", id.into());
        }
        set_time(&mut table, "token_obtained_at", new.token_obtained_at);
        set_time(&mut table, "token_expires_at", new.token_expires_at);
        if !new.executor.is_empty() || !table.contains_key("executor") {
            table.insert("executor", executor.into());
        }
        setting::apply(&mut table, &new.settings)?;
        self.change(|document, path| {
            // The end of the file, after tables of any other name and after the file's last comment.
            let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
            document.set_trailing("");
            table.set_position(Some(isize::MAX));
            table.decor_mut().set_prefix(format!("{trailing}\n"));
            runners(document, path)?.push(table);
            Ok(())
        })
    }

    /// Removes a runner with its sub-tables. A comment right above it goes too; what is divided from it by a blank
    /// line stays.
    ///
    /// # Errors
    ///
    /// If there is no runner with that number.
    pub fn remove(&mut self, index: usize) -> Result<(), EditError> {
        self.change(|document, path| {
            let tables = runners(document, path)?;
            let table = tables.get(index).ok_or(EditError::NoRunner(index))?;
            let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
            let kept =
                prefix.rfind("\n\n").and_then(|at| prefix.get(..at + 1)).unwrap_or_default().to_owned();
            tables.remove(index);
            if kept.trim().is_empty() {
                return Ok(());
            }
            if let Some(next) = tables.get_mut(index) {
                let own =
                    next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
                next.decor_mut().set_prefix(format!("{kept}{own}"));
            } else {
                let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
                document.set_trailing(format!("{kept}{trailing}"));
            }
            Ok(())
        })
    }

    /// Replaces a runner's token, with the times it came with.
    ///
    /// # Errors
    ///
    /// If there is no runner with that number.
    pub fn set_token(
        &mut self,
        index: usize,
        token: &Secret,
        obtained_at: Option<Timestamp>,
        expires_at: Option<Timestamp>,
    ) -> Result<(), EditError> {
        self.change(|document, path| {
            let table = runners(document, path)?.get_mut(index).ok_or(EditError::NoRunner(index))?;
            set_value(table, "token", token.expose().into());
            set_time(table, "token_obtained_at", obtained_at);
            set_time(table, "token_expires_at", expires_at);
            Ok(())
        })
    }

    /// Replaces the file, with mode 0600, and returns what it now says.
    ///
    /// # Errors
    ///
    /// If the new file cannot be written; the old one is then unchanged.
    pub fn save(self) -> Result<Config, EditError> {
        file::replace(&self.path, &self.document.to_string())?;
        Ok(self.config)
    }

    /// Makes a change, unless the result would have problems.
    fn change(
        &mut self,
        change: impl FnOnce(&mut DocumentMut, &Path) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let mut document = self.document.clone();
        change(&mut document, &self.path)?;
        let text = document.to_string();
        let refused = |error| match error {
            EditError::Load(error) => EditError::Refused(error),
            other => other,
        };
        self.config = check(&self.path, &text).map_err(refused)?;
        self.document =
            text.parse().map_err(|_| EditError::Setting("the change breaks the file's syntax".into()))?;
        Ok(())
    }
}

fn check(path: &Path, text: &str) -> Result<Config, EditError> {
    Ok(load::parse(path, text, &|name| std::env::var(name).ok())?.config)
}

fn runners<'d>(document: &'d mut DocumentMut, path: &Path) -> Result<&'d mut ArrayOfTables, EditError> {
    let item = document.entry("runners").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or_else(|| EditError::InlineRunners(path.to_owned()))
}

/// Sets a value and keeps what stands around the old one.
fn set_value(table: &mut Table, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// Sets a time, or removes it.
fn set_time(table: &mut Table, key: &str, time: Option<Timestamp>) {
    match time.and_then(|time| time.to_string().parse::<Datetime>().ok()) {
        Some(time) => set_value(table, key, time.into()),
        None => {
            table.remove(key);
        }
    }
}
