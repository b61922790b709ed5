//! The scripts that users write.

use super::writer::{Script, quote};
use crate::log::{BOLD_GREEN, CLEAR_LINE, RESET};
use crate::sections::SectionOptions;

/// How user commands are run and shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptOptions {
    /// `CI_DEBUG_TRACE`: the shell shows every command it runs.
    pub debug_trace: bool,
    /// `FF_ENABLE_BASH_EXIT_CODE_CHECK`: a failure ends the script even where the shell would let it pass.
    pub exit_code_check: bool,
    /// `FF_SCRIPT_SECTIONS` on a server that knows sections: a multi-line command is a folded section.
    pub sections: bool,
}

/// What the sections of a group of commands are called after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionPrefix {
    /// The lines of a step.
    Script,
    /// The lines of `after_script`.
    AfterScript,
    /// `pre_build_script` of the configuration.
    PreBuild,
    /// `post_build_script` of the configuration.
    PostBuild,
    /// What runs before the sources are fetched.
    PreClone,
    /// What runs after the sources are fetched.
    PostClone,
}

impl SectionPrefix {
    fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script_step",
            Self::AfterScript => "after_script_step",
            Self::PreBuild => "pre_build_script",
            Self::PostBuild => "post_build_script",
            Self::PreClone => "pre_clone_script",
            Self::PostClone => "post_clone_script",
        }
    }
}

/// Commands that run one after the other in one shell.
#[derive(Debug, Clone, Copy)]
pub struct Commands<'a> {
    /// What their sections are called after.
    pub prefix: SectionPrefix,
    /// Each may have several lines.
    pub commands: &'a [String],
}

/// The script of a step or of `after_script`: all groups in one shell, beginning in `build_dir`.
pub fn user_script(build_dir: &str, groups: &[Commands<'_>], options: ScriptOptions) -> String {
    let mut script = Script::new(options.debug_trace);
    script.load_gitlab_env(&[]);
    script.run(["cd", build_dir]);
    for group in groups {
        write_commands(&mut script, *group, options);
    }
    script.finish()
}

/// Adds the commands as they are, each after the line that shows it. They are not wrapped in any way, so a
/// construct may begin in one and end in another, as it may with GitLab Runner.
pub(super) fn write_commands(script: &mut Script, group: Commands<'_>, options: ScriptOptions) {
    for (number, command) in group.commands.iter().enumerate() {
        let command = command.replace('\0', "");
        let shown = command.trim();
        let section = (options.sections && shown.contains('\n'))
            .then(|| format!("section_{}_{number}", group.prefix.as_str()));
        show(script, shown, section.as_deref());
        script.line(&command);
        if command.ends_with('\\') {
            // Continues into an empty line instead of into what comes next.
            script.line("");
        }
        if options.exit_code_check {
            script.line("_runner_exit_code=$?");
            script.line("if [ \"$_runner_exit_code\" -ne 0 ]; then exit \"$_runner_exit_code\"; fi");
        }
        if let Some(name) = section {
            let end = format!("section_end:%s:{name}\\r{}", escaped(CLEAR_LINE));
            script.line(&format!("printf '{end}\\n' \"$(date +%s)\""));
        }
    }
}

fn show(script: &mut Script, command: &str, section: Option<&str>) {
    if let Some(name) = section {
        let suffix = SectionOptions { collapsed: true, hide_duration: true }.suffix();
        let start = format!("section_start:%s:{name}{suffix}\\r{}", escaped(CLEAR_LINE));
        let text = format!("{BOLD_GREEN}$ {command}{RESET}");
        script.line(&format!("printf '{start}%s\\n' \"$(date +%s)\" {}", quote(&text)));
        return;
    }
    match command.split_once('\n') {
        None if command.is_empty() => script.print(""),
        None => script.notice(&format!("$ {command}")),
        Some((first, _)) => script.notice(&format!("$ {first} # collapsed multi-line command")),
    }
}

/// A terminal sequence for the format of `printf`.
fn escaped(sequence: &str) -> String {
    sequence.replace('\x1b', "\\033")
}
