//! Puts shell text together.

use std::borrow::Cow;

use crate::log::{BOLD_GREEN, RESET, YELLOW};

/// Variables that bash does not let anyone set; trying to would end a POSIX shell.
const READ_ONLY: &str = "BASHOPTS|BASH_VERSINFO|EUID|PPID|SHELLOPTS|UID";

/// Quotes a word for a POSIX shell. NUL bytes, which no shell can hold, are left out.
pub fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\0', "").replace('\'', r"'\''")))
}

/// Quotes words and joins them to a command.
pub(super) fn command<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A line in bold green.
pub(crate) fn notice(text: &str) -> String {
    format!("{BOLD_GREEN}{text}{RESET}")
}

/// A script in the making.
#[derive(Default)]
pub(super) struct Script {
    text: String,
}

impl Script {
    /// Begins a script: stops at the first failing command, also in a pipe where the shell can do that.
    pub(super) fn new(debug_trace: bool) -> Self {
        let mut script = Self::default();
        script.line("set -e");
        script.line("set +C");
        // `command` keeps a shell without that option from ending; a subshell would cost a fork.
        script.line("command set -o pipefail 2>/dev/null || :");
        script.line("trap 'exit 1' TERM");
        if debug_trace {
            script.line("set -x");
        }
        script
    }

    /// Exports what earlier stages wrote to the `GITLAB_ENV` file. `except` is a pattern of names that stay.
    pub(super) fn load_gitlab_env(&mut self, except: &[&str]) {
        let mut kept = READ_ONLY.to_owned();
        for name in except {
            kept.push('|');
            kept.push_str(name);
        }
        self.line("if [ -r \"$GITLAB_ENV\" ]; then");
        self.line("  while IFS= read -r _tart_line || [ -n \"$_tart_line\" ]; do");
        self.line("    case \"$_tart_line\" in [A-Za-z_]*=*) ;; *) continue ;; esac");
        self.line(&format!("    case \"${{_tart_line%%=*}}\" in *[!A-Za-z0-9_]*|{kept}) continue ;; esac"));
        self.line("    export \"$_tart_line\"");
        self.line("  done < \"$GITLAB_ENV\"");
        self.line("  unset _tart_line");
        self.line("fi");
    }

    /// Adds shell text as it is, and a line feed.
    pub(super) fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Adds a command whose words mean nothing but themselves.
    pub(super) fn run<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) {
        self.line(&command(words));
    }

    /// Prints text as it is, and a line feed.
    pub(super) fn print(&mut self, text: &str) {
        self.line(&format!(r"printf '%s\n' {}", quote(text)));
    }

    /// Prints a line in bold green.
    pub(super) fn notice(&mut self, text: &str) {
        self.print(&notice(text));
    }

    /// Prints a line in yellow.
    pub(super) fn warning(&mut self, text: &str) {
        self.print(&format!("{YELLOW}{text}{RESET}"));
    }

    pub(super) fn finish(mut self) -> String {
        self.line("exit 0");
        self.text
    }
}
