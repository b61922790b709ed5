//! Submodules, after the sources of the project itself.

use super::sources::{Sources, SourcesError};
use super::writer::{Script, command};
use crate::settings::SubmoduleStrategy;

/// Adds the update of the submodules.
pub(super) fn update(script: &mut Script, sources: &Sources<'_>) -> Result<(), SourcesError> {
    let git = sources.git;
    let recursive = match &git.submodule_strategy {
        SubmoduleStrategy::None => {
            script.notice("Skipping Git submodules setup");
            return Ok(());
        }
        SubmoduleStrategy::Normal => false,
        SubmoduleStrategy::Recursive => true,
        SubmoduleStrategy::Invalid(other) => return Err(SourcesError::SubmoduleStrategy(other.clone())),
    };
    if git.submodule_paths.iter().any(|path| path == ":(exclude)") {
        return Err(SourcesError::SubmodulePaths);
    }
    let recursive: Option<&str> = recursive.then_some("--recursive");

    let how = if recursive.is_some() { " recursively" } else { "" };
    match git.submodule_depth {
        0 => script.notice(&format!("Updating/initializing submodules{how}...")),
        depth => {
            script.notice(&format!("Updating/initializing submodules{how} with git depth set to {depth}..."));
        }
    }
    let sync = with_paths(sources, ["git", "submodule", "sync"].into_iter().chain(recursive));
    let depth = format!("--depth={}", git.submodule_depth);
    let depth = (git.submodule_depth > 0).then_some(depth.as_str());
    let flags = git.submodule_update_flags.iter().map(String::as_str);
    let update =
        ["git", "submodule", "update", "--init"].into_iter().chain(recursive).chain(depth).chain(flags);
    let update = format!("GIT_LFS_SKIP_SMUDGE=1 {}", with_paths(sources, update));
    let foreach =
        |inner: &str| command(["git", "submodule", "foreach"].into_iter().chain(recursive).chain([inner]));
    let clean = git
        .clean_flags
        .as_ref()
        .map(|flags| foreach(&command(["git", "clean"].into_iter().chain(flags.iter().map(String::as_str)))));
    let reset = foreach("git reset --hard");

    script.line(&with_paths(sources, ["git", "submodule", "init"]));
    script.line(&sync);
    if let Some(clean) = &clean {
        script.line(clean);
    }
    script.line(&reset);
    script.line(&format!("if ! {update}; then"));
    script.warning("Updating submodules failed. Retrying...");
    if git.submodule_update_flags.iter().any(|flag| flag == "--remote") {
        // The branch to follow may be missing from a shallow or filtered first fetch.
        script.line(&foreach("git fetch origin '+refs/heads/*:refs/remotes/origin/*'"));
    }
    script.line(&sync);
    script.line(&update);
    script.line(&reset);
    script.line("fi");
    if recursive.is_some() {
        // In a kept directory whose configuration was reset, inner submodules are only known from the update on.
        script.line(&with_paths(sources, ["git", "submodule", "--quiet", "sync", "--recursive"]));
    }
    if let Some(clean) = &clean {
        script.line(clean);
    }
    script.notice("Updated submodules");
    if !git.lfs_skip_smudge {
        script.line("if git lfs version >/dev/null 2>&1; then");
        script.line(&foreach("git lfs pull"));
        script.line("fi");
    }
    Ok(())
}

fn with_paths<'w>(sources: &'w Sources<'_>, words: impl IntoIterator<Item = &'w str>) -> String {
    let paths = sources.git.submodule_paths.iter().map(String::as_str);
    let separator = (!sources.git.submodule_paths.is_empty()).then_some("--");
    command(words.into_iter().chain(separator).chain(paths))
}
