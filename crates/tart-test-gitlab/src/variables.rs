//! The variables a server defines for every job.

use std::time::SystemTime;

use crate::git::Project;
use crate::job::Job;
use crate::payload::{registry, repository_url};
use crate::runner::Runner;
use crate::settings::Settings;
use crate::spec::{Source, Variable};

/// The predefined variables, in about the order of a real server.
pub(crate) fn predefined(
    settings: &Settings,
    runner: &Runner,
    project: &Project,
    job: &Job,
) -> Vec<Variable> {
    let spec = &job.spec;
    let url = &settings.url;
    let project_url = format!("{url}/{}", project.path);
    let revision = &job.revision;
    let (namespace, name) = project.path.rsplit_once('/').unwrap_or(("", &project.path));
    let root = project.path.split('/').next().unwrap_or_default();
    let (protocol, authority) = url.split_once("://").unwrap_or(("http", url));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let registry = registry(settings);
    let title = revision.message.lines().next().unwrap_or_default();
    let description = revision.message.split_once("\n\n").map_or("", |(_, text)| text);
    let number = |value: u64| value.to_string();
    let plain = [
        ("CI_PIPELINE_ID", number(job.pipeline_id)),
        ("CI_PIPELINE_URL", format!("{project_url}/-/pipelines/{}", job.pipeline_id)),
        ("CI_JOB_ID", number(job.id)),
        ("CI_JOB_URL", format!("{project_url}/-/jobs/{}", job.id)),
        ("CI_JOB_STARTED_AT", timestamp(job.started_at.unwrap_or(job.created_at))),
        ("CI_REGISTRY_USER", "gitlab-ci-token".into()),
        ("CI_DEPENDENCY_PROXY_USER", "gitlab-ci-token".into()),
        ("CI_JOB_NAME", spec.name.clone()),
        ("CI_JOB_NAME_SLUG", slug(&spec.name)),
        ("CI_JOB_STAGE", spec.stage.clone()),
        ("CI_JOB_GROUP_NAME", spec.name.clone()),
        ("CI_NODE_TOTAL", "1".into()),
        ("CI_JOB_TIMEOUT", number(spec.timeout_secs)),
        ("CI", "true".into()),
        ("GITLAB_CI", "true".into()),
        ("CI_SERVER", "yes".into()),
        ("CI_SERVER_URL", url.clone()),
        ("CI_SERVER_FQDN", authority.into()),
        ("CI_SERVER_HOST", host.into()),
        ("CI_SERVER_PORT", port.into()),
        ("CI_SERVER_PROTOCOL", protocol.into()),
        ("CI_SERVER_SHELL_SSH_HOST", host.into()),
        ("CI_SERVER_SHELL_SSH_PORT", "22".into()),
        ("CI_SERVER_NAME", "GitLab".into()),
        ("CI_SERVER_VERSION", "19.4.0".into()),
        ("CI_SERVER_VERSION_MAJOR", "19".into()),
        ("CI_SERVER_VERSION_MINOR", "4".into()),
        ("CI_SERVER_VERSION_PATCH", "0".into()),
        ("CI_SERVER_REVISION", "0123456789a".into()),
        ("GITLAB_FEATURES", String::new()),
        ("CI_API_V4_URL", format!("{url}/api/v4")),
        ("CI_API_GRAPHQL_URL", format!("{url}/api/graphql")),
        ("CI_TEMPLATE_REGISTRY_HOST", "registry.gitlab.com".into()),
        ("CI_PROJECT_ID", number(project.id)),
        ("CI_PROJECT_NAME", name.into()),
        ("CI_PROJECT_TITLE", name.into()),
        ("CI_PROJECT_DESCRIPTION", String::new()),
        ("CI_PROJECT_PATH", project.path.clone()),
        ("CI_PROJECT_PATH_SLUG", slug(&project.path)),
        ("CI_PROJECT_NAMESPACE", namespace.into()),
        ("CI_PROJECT_NAMESPACE_ID", "1".into()),
        ("CI_PROJECT_NAMESPACE_SLUG", slug(namespace)),
        ("CI_PROJECT_ROOT_NAMESPACE", root.into()),
        ("CI_PROJECT_URL", project_url),
        ("CI_PROJECT_VISIBILITY", if project.public { "public" } else { "private" }.into()),
        ("CI_PROJECT_REPOSITORY_LANGUAGES", String::new()),
        ("CI_PROJECT_CLASSIFICATION_LABEL", String::new()),
        ("CI_DEFAULT_BRANCH", "main".into()),
        ("CI_CONFIG_PATH", ".gitlab-ci.yml".into()),
        ("CI_REGISTRY", registry.clone()),
        ("CI_REGISTRY_IMAGE", format!("{registry}/{}", project.path.to_lowercase())),
        ("CI_PIPELINE_IID", number(job.pipeline_id)),
        ("CI_PIPELINE_SOURCE", if is_merge_request(job) { "merge_request_event" } else { "push" }.into()),
        ("CI_PIPELINE_CREATED_AT", timestamp(job.created_at)),
        ("CI_PIPELINE_NAME", String::new()),
        ("CI_COMMIT_SHA", revision.sha.clone()),
        ("CI_COMMIT_SHORT_SHA", revision.sha.chars().take(8).collect()),
        ("CI_COMMIT_BEFORE_SHA", revision.before_sha.clone()),
        ("CI_COMMIT_REF_NAME", revision.reference.clone()),
        ("CI_COMMIT_REF_SLUG", slug(&revision.reference)),
        ("CI_COMMIT_REF_PROTECTED", spec.protected.to_string()),
        ("CI_COMMIT_MESSAGE", revision.message.clone()),
        ("CI_COMMIT_TITLE", title.into()),
        ("CI_COMMIT_DESCRIPTION", description.into()),
        ("CI_COMMIT_TIMESTAMP", revision.timestamp.clone()),
        ("CI_COMMIT_AUTHOR", revision.author.clone()),
        ("CI_RUNNER_ID", number(runner.id)),
        ("CI_RUNNER_DESCRIPTION", runner.description.clone()),
        ("CI_RUNNER_TAGS", serde_json::json!(runner.tags).to_string()),
        ("GITLAB_USER_ID", "1".into()),
        ("GITLAB_USER_EMAIL", "ada@example.com".into()),
        ("GITLAB_USER_LOGIN", "ada".into()),
        ("GITLAB_USER_NAME", "Ada Lovelace".into()),
    ];
    let mut variables: Vec<Variable> = plain.map(|(key, value)| Variable::new(key, value)).into();
    variables.extend([
        Variable::masked("CI_JOB_TOKEN", job.token.clone()),
        Variable::masked("CI_REGISTRY_PASSWORD", job.token.clone()),
        Variable::masked("CI_DEPENDENCY_PROXY_PASSWORD", job.token.clone()),
        Variable::masked("CI_REPOSITORY_URL", repository_url(settings, project, &job.token)),
    ]);
    variables.extend(source_variables(&spec.source, project).map(|(key, value)| Variable::new(key, value)));
    variables
}

fn is_merge_request(job: &Job) -> bool {
    matches!(job.spec.source, Source::MergeRequest(_))
}

fn source_variables(source: &Source, project: &Project) -> impl Iterator<Item = (&'static str, String)> {
    let list = match source {
        Source::Branch(name) => vec![("CI_COMMIT_BRANCH", name.clone())],
        Source::Tag(name) => vec![("CI_COMMIT_TAG", name.clone()), ("CI_COMMIT_TAG_MESSAGE", String::new())],
        Source::MergeRequest(iid) => vec![
            ("CI_MERGE_REQUEST_IID", iid.to_string()),
            ("CI_MERGE_REQUEST_REF_PATH", format!("refs/merge-requests/{iid}/head")),
            ("CI_MERGE_REQUEST_PROJECT_ID", project.id.to_string()),
            ("CI_MERGE_REQUEST_PROJECT_PATH", project.path.clone()),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main".into()),
        ],
    };
    list.into_iter()
}

fn timestamp(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).expect("the clock is near the present");
    format!("{at:.0}")
}

/// Lower case, 63 bytes, letters and digits with dashes between them.
fn slug(text: &str) -> String {
    let dashed: String = text
        .to_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(63)
        .collect();
    dashed.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_short_lower_case_and_trimmed() {
        assert_eq!(slug("Feature/Größe_1-"), "feature-gr--e-1");
        assert_eq!(slug(&"a".repeat(70)).len(), 63);
    }
}
