//! What the pipeline is made for: which branch or tag, and why.

use anyhow::bail;
use clap::Args;
use tart_ci_file::{MergeRequest, Source};

use super::Repository;

/// Which pipeline it would be on GitLab.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pipeline")]
pub(super) struct EventArgs {
    /// The branch or tag that the working tree is taken to be pushed to, instead of the current branch; it need not
    /// exist. `tags/NAME` is a tag in any case
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// What the pipeline is taken to be made for, as in CI_PIPELINE_SOURCE: push, merge_request_event (or mr),
    /// schedule, web, api, trigger, ...
    #[arg(long, value_name = "SOURCE", default_value = "push", hide_default_value = true)]
    source: Source,
    /// The branch that the merge request is for; the default branch without it
    #[arg(long, value_name = "BRANCH")]
    target_branch: Option<String>,
}

/// The event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) source: Source,
    pub(super) ref_name: String,
    pub(super) is_tag: bool,
    pub(super) default_branch: String,
    pub(super) merge_request: Option<MergeRequest>,
    /// The commit that changes are compared with. `None`: everything counts as changed.
    pub(super) base: Option<String>,
}

impl Event {
    pub(super) fn find(args: &EventArgs, repository: &Repository, current: &str) -> anyhow::Result<Self> {
        let default_branch = repository.default_branch().unwrap_or_else(|| current.to_owned());
        let (ref_name, is_tag) = match &args.reference {
            None => (current.to_owned(), false),
            Some(given) => reference(given, repository)?,
        };
        let is_request = args.source == Source::MergeRequestEvent;
        if args.target_branch.is_some() && !is_request {
            bail!("--target-branch is for `--source merge_request_event`");
        }
        if is_tag && is_request {
            bail!("a merge request is from a branch, and `{ref_name}` is a tag");
        }
        let merge_request = is_request.then(|| {
            let target_branch = args.target_branch.clone().unwrap_or_else(|| default_branch.clone());
            let tip = repository.branch_tip(&target_branch);
            MergeRequest {
                base_sha: tip.as_deref().and_then(|tip| repository.merge_base(tip)).unwrap_or_default(),
                target_sha: tip.unwrap_or_default(),
                target_branch,
            }
        });
        let base = match &merge_request {
            Some(request) => Some(request.base_sha.clone()).filter(|base| !base.is_empty()),
            None if args.source == Source::Push && !is_tag => pushed(repository, &ref_name, &default_branch),
            // As on GitLab, where such pipelines have nothing to compare with.
            None => None,
        };
        Ok(Self { source: args.source, ref_name, is_tag, default_branch, merge_request, base })
    }

    /// Only the default branch is protected, as in new projects.
    pub(super) fn is_protected(&self) -> bool {
        !self.is_tag && self.merge_request.is_none() && self.ref_name == self.default_branch
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let name = &self.ref_name;
        match &self.merge_request {
            Some(request) => format!("merge request of `{name}` to `{}`", request.target_branch),
            None => {
                let kind = if self.is_tag { "tag" } else { "branch" };
                match self.source {
                    Source::Push => format!("push to {kind} `{name}`"),
                    source => format!("{source} on {kind} `{name}`"),
                }
            }
        }
    }
}

/// The name of a branch or tag, and whether it is a tag.
fn reference(given: &str, repository: &Repository) -> anyhow::Result<(String, bool)> {
    let short = given.strip_prefix("refs/").unwrap_or(given);
    let (name, is_tag) = if let Some(name) = short.strip_prefix("tags/") {
        (name, true)
    } else if let Some(name) = short.strip_prefix("heads/") {
        (name, false)
    } else {
        (given, repository.branch_tip(given).is_none() && repository.has_tag(given))
    };
    if name.is_empty() || name.starts_with('-') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        bail!("--ref: `{given}` is no name of a branch or tag");
    }
    Ok((name.to_owned(), is_tag))
}

/// The commit before the push: what the server's branch has, else where the branch began, else the last commit but one.
fn pushed(repository: &Repository, branch: &str, default_branch: &str) -> Option<String> {
    let head = repository.commit("HEAD");
    let of_server = repository.commit(&format!("refs/remotes/origin/{branch}"));
    let began = || repository.branch_tip(default_branch);
    let base = of_server.or_else(began).and_then(|tip| repository.merge_base(&tip));
    // Where nothing is to be pushed, it is taken to be the last commit.
    base.filter(|base| head.as_ref() != Some(base) || repository.is_changed())
        .or_else(|| repository.commit("HEAD^"))
}
