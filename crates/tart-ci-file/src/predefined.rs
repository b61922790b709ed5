//! The `CI_*` variables that a server sets.

use crate::{
    context::{ExecContext, MergeRequest},
    job::{Job, When},
};

/// Predefined variables of a job. What a runner adds itself, such as `CI_PROJECT_DIR`, is not here; neither is
/// `CI_JOB_TOKEN`, as no server would accept one.
pub(crate) fn variables(job: &Job, context: &ExecContext) -> Vec<(&'static str, String)> {
    let mut found = vec![
        ("CI", "true".into()),
        ("GITLAB_CI", "true".into()),
        ("CI_PIPELINE_ID", context.pipeline_id.to_string()),
        ("CI_JOB_ID", context.job_id.to_string()),
    ];
    found.extend(of_job(job));
    found.extend(of_pipeline(context));
    found
}

/// Those of a job that are known before it exists, which its rules may ask for.
pub(crate) fn of_job(job: &Job) -> Vec<(&'static str, String)> {
    let mut found = vec![
        ("CI_JOB_NAME", job.name.clone()),
        ("CI_JOB_NAME_SLUG", slug(&job.name)),
        ("CI_JOB_STAGE", job.stage.clone()),
        ("CI_NODE_TOTAL", job.instance.map_or(1, |instance| instance.total).to_string()),
    ];
    if let Some(instance) = job.instance {
        found.push(("CI_NODE_INDEX", instance.index.to_string()));
    }
    if job.when == When::Manual {
        found.push(("CI_JOB_MANUAL", "true".into()));
    }
    found
}

/// Those that all jobs of a pipeline share and that are known before the pipeline exists.
pub(crate) fn of_pipeline(context: &ExecContext) -> Vec<(&'static str, String)> {
    let commit = &context.commit;
    let message = commit.message.trim_end();
    let (title, description) = message.split_once('\n').unwrap_or((message, ""));
    let mut found = vec![
        ("CI_PIPELINE_IID", context.pipeline_id.to_string()),
        ("CI_PIPELINE_SOURCE", context.source.to_string()),
        ("CI_CONFIG_PATH", context.config_path.clone()),
        ("CI_REPOSITORY_URL", context.sources.repo_url.clone()),
        ("CI_COMMIT_SHA", commit.sha.clone()),
        ("CI_COMMIT_SHORT_SHA", commit.sha.chars().take(8).collect()),
        ("CI_COMMIT_BEFORE_SHA", "0".repeat(commit.sha.len())),
        ("CI_COMMIT_REF_NAME", commit.ref_name.clone()),
        ("CI_COMMIT_REF_SLUG", slug(&commit.ref_name)),
        ("CI_COMMIT_REF_PROTECTED", commit.is_protected.to_string()),
        ("CI_COMMIT_MESSAGE", commit.message.clone()),
        ("CI_COMMIT_TITLE", title.to_owned()),
        ("CI_COMMIT_DESCRIPTION", description.trim().to_owned()),
        ("CI_COMMIT_AUTHOR", commit.author.clone()),
        ("CI_COMMIT_TIMESTAMP", commit.timestamp.clone()),
        ("CI_DEFAULT_BRANCH", context.project.default_branch.clone()),
        ("GITLAB_USER_LOGIN", context.user.login.clone()),
        ("GITLAB_USER_NAME", context.user.name.clone()),
        ("GITLAB_USER_EMAIL", context.user.email.clone()),
    ];
    match &context.merge_request {
        Some(request) => merge_request(&mut found, context, request),
        None if commit.is_tag => found.push(("CI_COMMIT_TAG", commit.ref_name.clone())),
        None => found.push(("CI_COMMIT_BRANCH", commit.ref_name.clone())),
    }
    project(&mut found, context);
    server(&mut found, &context.server_url);
    found
}

/// A pipeline of a merge request has no branch. It is taken for the first of its project.
fn merge_request(found: &mut Vec<(&'static str, String)>, context: &ExecContext, request: &MergeRequest) {
    let project = &context.project;
    let url = format!("{}/{}", context.server_url, project.path);
    let title = context.commit.message.lines().next().unwrap_or_default();
    found.extend([
        ("CI_MERGE_REQUEST_ID", "1".to_owned()),
        ("CI_MERGE_REQUEST_IID", "1".to_owned()),
        ("CI_MERGE_REQUEST_REF_PATH", "refs/merge-requests/1/head".to_owned()),
        ("CI_MERGE_REQUEST_EVENT_TYPE", "detached".to_owned()),
        ("CI_MERGE_REQUEST_TITLE", title.to_owned()),
        ("CI_MERGE_REQUEST_DRAFT", "false".to_owned()),
        ("CI_MERGE_REQUEST_PROJECT_ID", project.id.to_string()),
        ("CI_MERGE_REQUEST_PROJECT_PATH", project.path.clone()),
        ("CI_MERGE_REQUEST_PROJECT_URL", url.clone()),
        ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", project.id.to_string()),
        ("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", project.path.clone()),
        ("CI_MERGE_REQUEST_SOURCE_PROJECT_URL", url),
        ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", context.commit.ref_name.clone()),
        ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", String::new()),
        ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", request.target_branch.clone()),
        ("CI_MERGE_REQUEST_TARGET_BRANCH_SHA", String::new()),
        (
            "CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED",
            (request.target_branch == project.default_branch).to_string(),
        ),
        ("CI_MERGE_REQUEST_DIFF_BASE_SHA", request.base_sha.clone()),
        ("CI_OPEN_MERGE_REQUESTS", format!("{}!1", project.path)),
    ]);
}

fn project(found: &mut Vec<(&'static str, String)>, context: &ExecContext) {
    let path = &context.project.path;
    let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
    let root = path.split('/').next().unwrap_or_default();
    found.extend([
        ("CI_PROJECT_ID", context.project.id.to_string()),
        ("CI_PROJECT_NAME", name.to_owned()),
        ("CI_PROJECT_TITLE", name.to_owned()),
        ("CI_PROJECT_PATH", path.clone()),
        ("CI_PROJECT_PATH_SLUG", slug(path)),
        ("CI_PROJECT_NAMESPACE", namespace.to_owned()),
        ("CI_PROJECT_ROOT_NAMESPACE", if namespace.is_empty() { String::new() } else { root.to_owned() }),
        ("CI_PROJECT_URL", format!("{}/{path}", context.server_url)),
        ("CI_PROJECT_VISIBILITY", "private".into()),
    ]);
}

fn server(found: &mut Vec<(&'static str, String)>, url: &str) {
    let (protocol, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, port)
        }
        _ => (authority, if protocol == "http" { "80" } else { "443" }),
    };
    found.extend([
        ("CI_SERVER", "yes".to_owned()),
        ("CI_SERVER_NAME", "GitLab".to_owned()),
        ("CI_SERVER_URL", url.to_owned()),
        ("CI_SERVER_PROTOCOL", protocol.to_owned()),
        ("CI_SERVER_HOST", host.to_owned()),
        ("CI_SERVER_PORT", port.to_owned()),
        ("CI_SERVER_FQDN", authority.to_owned()),
        ("CI_API_V4_URL", format!("{url}/api/v4")),
    ]);
}

/// Lower case, at most 63 characters, `-` for all but letters and digits, none of them at the ends.
fn slug(text: &str) -> String {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(63)
        .collect();
    plain.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_fit_for_host_names() {
        assert_eq!(slug("Feature/Größe_1"), "feature-gr--e-1");
        assert_eq!(slug("test: [linux, 3.2]"), "test---linux--3-2");
        assert_eq!(slug(&format!("{}/x", "a".repeat(62))), "a".repeat(62));
    }

    #[test]
    fn the_servers_parts_come_from_its_address() {
        let mut found = Vec::new();
        server(&mut found, "http://gitlab.example.com:8080/sub");
        let of = |name: &str| found.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(of("CI_SERVER_HOST"), Some("gitlab.example.com"));
        assert_eq!(of("CI_SERVER_PORT"), Some("8080"));
        assert_eq!(of("CI_API_V4_URL"), Some("http://gitlab.example.com:8080/sub/api/v4"));
    }
}
