//! The `get_sources` stage.

use super::JOB_TREE_NAMES;
use super::submodules;
use super::user::{Commands, ScriptOptions, SectionPrefix, write_commands};
use super::writer::{Script, command, quote};
use crate::dirs::JobDirs;
use crate::settings::{GitSettings, GitStrategy, SubmoduleStrategy};

const STALE_LOCKS: [&str; 4] = ["index.lock", "shallow.lock", "HEAD.lock", "config.lock"];

/// Configuration of the repository that outlives the stage, because it also suits the job's own git.
const REPOSITORY_CONFIG: [(&str, &str); 3] =
    [("fetch.recurseSubmodules", "false"), ("credential.interactive", "never"), ("gc.autoDetach", "false")];

/// Whether any tracked attributes name Git LFS.
const USES_LFS: &str = "git grep --quiet filter=lfs -- .gitattributes '*/.gitattributes'";

/// What is said where the sources are left alone.
pub(crate) const SKIPPED_SOURCES: [&str; 3] =
    ["Skipping Git repository setup", "Skipping Git checkout", "Skipping Git submodules setup"];

/// Why no script can be made for the sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    /// `GIT_SUBMODULE_STRATEGY` is not one.
    #[error("unknown GIT_SUBMODULE_STRATEGY `{0}`: use none, normal or recursive")]
    SubmoduleStrategy(String),
    /// `GIT_SUBMODULE_PATHS` has an exclusion that excludes nothing.
    #[error(
        "GIT_SUBMODULE_PATHS: `:(exclude)` must be followed by its path without a space: `:(exclude)path`"
    )]
    SubmodulePaths,
    /// Something of the job's `git_info` would be an option to git.
    #[error("the job's {what} `{value}` cannot be used with git")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Its value.
        value: String,
    },
}

/// What the script depends on.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The job's directories.
    pub dirs: &'a JobDirs,
    /// The job's settings.
    pub git: &'a GitSettings,
    /// Without credentials.
    pub remote_url: &'a str,
    /// `sha256`, or else `sha1`.
    pub object_format: &'a str,
    /// The commit.
    pub sha: &'a str,
    /// The branch or tag, to be shown.
    pub git_ref: &'a str,
    /// What is fetched.
    pub refspecs: &'a [String],
    /// How much history is fetched; 0 is all.
    pub depth: u32,
    /// Git's configuration and hooks are not kept from an earlier job.
    pub clean_git_config: bool,
    /// Commands that run before.
    pub before: &'a [String],
    /// Commands that run after.
    pub after: &'a [String],
    /// How the commands are run and shown.
    pub options: ScriptOptions,
}

/// The script of `get_sources`. Credentials and git's configuration come with the environment.
///
/// # Errors
/// A setting of the job that cannot be followed; the stage fails with this text.
pub fn get_sources(sources: &Sources<'_>) -> Result<String, SourcesError> {
    let build_dir = sources.dirs.build_dir.as_str();
    let mut script = Script::new(sources.options.debug_trace);
    script.load_gitlab_env(&JOB_TREE_NAMES);
    script.run(["mkdir", "-p", &sources.dirs.builds_dir]);
    script.run(["cd", &sources.dirs.builds_dir]);
    match sources.git.strategy {
        GitStrategy::None => {
            script.run(["mkdir", "-p", build_dir]);
            SKIPPED_SOURCES.iter().for_each(|line| script.notice(line));
        }
        GitStrategy::Empty => {
            script.notice("Skipping Git repository setup and creating an empty build directory");
            script.run(["rm", "-rf", "--", build_dir]);
            script.run(["mkdir", "-p", build_dir]);
            SKIPPED_SOURCES.iter().skip(1).for_each(|line| script.notice(line));
        }
        GitStrategy::Clone | GitStrategy::Fetch => {
            check(sources)?;
            run_hooks(&mut script, SectionPrefix::PreClone, sources.before, sources.options);
            script.run(["cd", &sources.dirs.builds_dir]);
            fetch(&mut script, sources);
            if sources.git.checkout {
                checkout(&mut script, sources);
            } else {
                script.notice("Skipping Git checkout");
            }
            submodules::update(&mut script, sources)?;
            run_hooks(&mut script, SectionPrefix::PostClone, sources.after, sources.options);
        }
    }
    Ok(script.finish())
}

/// Refuses what git would take for an option.
fn check(sources: &Sources<'_>) -> Result<(), SourcesError> {
    let refspecs = sources.refspecs.iter().map(|refspec| ("refspec", refspec.as_str()));
    let values =
        [("repository URL", sources.remote_url), ("commit", sources.sha)].into_iter().chain(refspecs);
    for (what, value) in values {
        if value.is_empty() || value.starts_with('-') || value.contains(['\0', '\n']) {
            return Err(SourcesError::Unusable { what, value: value.to_owned() });
        }
    }
    Ok(())
}

/// Hooks share the stage's shell, so that what they export holds for git. What they change of the shell's options
/// does not stay.
fn run_hooks(script: &mut Script, prefix: SectionPrefix, commands: &[String], options: ScriptOptions) {
    if !commands.is_empty() {
        write_commands(script, Commands { prefix, commands }, options);
        script.line("set -e");
    }
}

fn fetch(script: &mut Script, sources: &Sources<'_>) {
    let build_dir = sources.dirs.build_dir.as_str();
    match sources.depth {
        0 => script.notice("Fetching changes..."),
        depth => script.notice(&format!("Fetching changes with git depth set to {depth}...")),
    }
    if sources.git.strategy == GitStrategy::Clone {
        script.run(["rm", "-rf", "--", build_dir]);
    }
    script.run(["mkdir", "-p", build_dir]);
    script.run(["cd", build_dir]);
    script.line("_tart_fresh=yes");
    script.line("if [ -d .git ]; then");
    script.line("_tart_fresh=no");
    clean_repository(script, sources);
    script.line("fi");

    let mut init = vec!["git", "-c", "init.defaultBranch=none", "init", "--template="];
    if sources.object_format == "sha256" {
        init.push("--object-format=sha256");
    }
    script.run(init);
    for (key, value) in REPOSITORY_CONFIG {
        script.run(["git", "config", key, value]);
    }
    script.line("if git remote get-url origin >/dev/null 2>&1; then");
    script.run(["git", "remote", "set-url", "origin", sources.remote_url]);
    script.line("else");
    script.run(["git", "remote", "add", "origin", sources.remote_url]);
    script.line("fi");
    script.line("if [ \"$_tart_fresh\" = yes ]; then");
    script.notice("Created fresh repository.");
    script.line("fi");

    let depth = format!("--depth={}", sources.depth);
    match sources.depth {
        0 => {
            script.line("if [ -f .git/shallow ]; then");
            script.line(&fetch_command(sources, Some("--unshallow")));
            script.line("else");
            script.line(&fetch_command(sources, None));
            script.line("fi");
        }
        _ => script.line(&fetch_command(sources, Some(&depth))),
    }
}

fn fetch_command(sources: &Sources<'_>, depth: Option<&str>) -> String {
    let flags = sources.git.fetch_flags.iter().map(String::as_str);
    let refspecs = sources.refspecs.iter().map(String::as_str);
    command(
        ["git", "fetch", "--no-recurse-submodules"]
            .into_iter()
            .chain(depth)
            .chain(flags)
            .chain(["--", "origin"])
            .chain(refspecs),
    )
}

/// What an earlier job that was killed, or that meant harm, may have left in the repository.
fn clean_repository(script: &mut Script, sources: &Sources<'_>) {
    let locks = STALE_LOCKS.iter().map(|lock| format!(".git/{lock}"));
    let locks: Vec<String> = locks.chain([".git/hooks/post-checkout".to_owned()]).collect();
    script.run(["rm", "-f", "--"].into_iter().chain(locks.iter().map(String::as_str)));
    script.line("if [ -d .git/refs ]; then find .git/refs -type f -name '*.lock' -exec rm -f -- {} +; fi");
    let modules = sources.git.submodule_strategy != SubmoduleStrategy::None;
    if modules {
        let names = STALE_LOCKS.map(|lock| format!("-name {lock}")).join(" -o ");
        script.line(&format!(
            "if [ -d .git/modules ]; then find .git/modules -type f \\( {names} -o -path '*/refs/*.lock' \\) -exec rm -f -- {{}} +; fi"
        ));
    }
    if !sources.clean_git_config {
        return;
    }
    // A repository of SHA-256 objects is only one with these lines, so the new configuration starts with them.
    let config = if sources.object_format == "sha256" {
        "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n"
    } else {
        "[core]\n\trepositoryformatversion = 0\n"
    };
    script.line("rm -rf -- .git/hooks .git/config");
    script.line(&format!("printf %s {} > .git/config", quote(config)));
    if modules {
        // `git submodule sync` restores the address of a submodule, but not what is fetched from it.
        let config = format!("{config}[remote \"origin\"]\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
        let blank = format!("{}/git-module-config", sources.dirs.temp_dir);
        let outside_refs = "! -path '*/refs/*' ! -path '*/logs/*'";
        script.line("if [ -d .git/modules ]; then");
        script.run(["mkdir", "-p", &sources.dirs.temp_dir]);
        script.line(&format!("printf %s {} > {}", quote(&config), quote(&blank)));
        script.line(&format!(
            "find .git/modules -depth -type d -name hooks {outside_refs} -exec rm -rf -- {{}} +"
        ));
        script.line(&format!(
            "find .git/modules -type f -name config {outside_refs} -exec cp -- {} {{}} \\;",
            quote(&blank)
        ));
        script.line("fi");
    }
}

fn checkout(script: &mut Script, sources: &Sources<'_>) {
    let short: String = sources.sha.chars().take(8).collect();
    script.notice(&format!("Checking out {short} as detached HEAD (ref is {})...", sources.git_ref));
    let checkout = ["git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", sources.sha, "--"];
    script.line(&format!("GIT_LFS_SKIP_SMUDGE=1 {}", command(checkout)));
    if let Some(flags) = &sources.git.clean_flags {
        script.run(["git", "clean"].into_iter().chain(flags.iter().map(String::as_str)));
    }
    if !sources.git.lfs_skip_smudge {
        // Starting git-lfs takes longer than all the rest of a small checkout.
        script.line(&format!("if {USES_LFS} && git lfs version >/dev/null 2>&1; then"));
        script.line("git lfs pull");
        script.line("fi");
        script.print("");
    }
}
