use serde_json::{Value, json};
use tart_job::context::{Product, RunnerContext};
use tart_job::plan::JobPlan;

use super::*;

struct Case {
    payload: JobPayload,
    plan: JobPlan,
    runner: tart_config::Runner,
}

fn case(image: Value, docker: &str) -> Case {
    let payload: JobPayload = serde_json::from_value(json!({
        "id": 1,
        "token": "t0ken",
        "job_info": {"project_id": 3},
        "git_info": {"repo_url": "https://gitlab.example.com/g/p.git", "ref": "main", "sha": "0123"},
        "variables": [
            {"key": "VERSION", "value": "3"},
            {"key": "DOCKER_AUTH_CONFIG", "value": "{\"auths\":{}}"},
        ],
        "image": image,
        "credentials": [
            {"type": "registry", "url": "r.example.com", "username": "u", "password": "p"},
            {"type": "other", "url": "x", "username": "u", "password": "p"},
        ],
    }))
    .unwrap();
    let plan = plan(&payload);
    let text = format!(
        "[[runners]]\nname = \"a\"\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-x\"\n\
         executor = \"microvm\"\n[runners.docker]\n{docker}"
    );
    let loaded = tart_config::parse(std::path::Path::new("config.toml"), &text, &|_| None).unwrap();
    let runner = loaded.config.runners.into_iter().next().unwrap();
    Case { payload, plan, runner }
}

fn plan(payload: &JobPayload) -> JobPlan {
    let product = Product {
        name: "tart".to_owned(),
        version: "1".to_owned(),
        revision: "0".to_owned(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    };
    JobPlan::new(payload, &RunnerContext::plain(product)).unwrap()
}

impl Case {
    fn wishes(&self) -> Wishes<'_> {
        Wishes {
            wanted: None,
            job: self.payload.image.as_ref(),
            variables: &self.plan.variables,
            runner: &self.runner,
        }
    }
}

fn name(image: Value, docker: &str) -> Result<Choice, String> {
    case(image, docker).wishes().choose().map_err(|failure| failure.to_string())
}

fn named(text: &str) -> Result<Choice, String> {
    Ok(Choice::Name(text.to_owned()))
}

#[test]
fn the_most_particular_wish_wins() {
    let docker = "image = \"configured\"";
    assert_eq!(name(json!({"name": "ruby:$VERSION"}), docker), named("ruby:3"));
    assert_eq!(name(json!({"name": " "}), docker), named("configured"));
    assert_eq!(name(Value::Null, "image = \"a:$VERSION\""), named("a:3"));
    assert_eq!(name(Value::Null, ""), named("default"));
    let case = case(json!({"name": "job"}), docker);
    let wishes = Wishes { wanted: Some("/a/rootfs"), ..case.wishes() };
    assert_eq!(wishes.choose().unwrap(), Choice::Path("/a/rootfs".to_owned()));
}

#[test]
fn a_job_cannot_name_files_of_the_host() {
    for path in ["/etc", "./x", "../x", " /etc", "~/x"] {
        let case = case(json!({"name": path}), "");
        let failure = case.wishes().choose().unwrap_err();
        assert_eq!(failure.reason(), FailureReason::RunnerConfigurationError, "{path}");
    }
}

#[test]
fn variables_of_a_job_make_no_path_of_the_configured_image() {
    let variables = |value: &str| {
        let mut case = case(Value::Null, "image = \"$PREFIX/app\"");
        let variables = json!([{"key": "PREFIX", "value": value}]);
        case.payload.variables = serde_json::from_value(variables).unwrap();
        case.plan = plan(&case.payload);
        case.wishes().choose().map_err(|failure| failure.to_string())
    };
    assert_eq!(variables("r.example.com"), named("r.example.com/app"));
    insta::assert_snapshot!(variables("/etc").unwrap_err(), @"with the job's variables, `image` in [runners.docker]: `/etc/app` is a path; name an image");
    for prefix in ["", "..", " /etc", "~"] {
        assert!(variables(prefix).is_err(), "{prefix:?}");
    }
    let written = Ok(Choice::Path("/images/$VERSION".to_owned()));
    assert_eq!(
        name(Value::Null, "image = \"/images/$VERSION\""),
        written,
        "a path is taken as it is written"
    );
}

#[test]
fn only_images_of_the_list_are_allowed() {
    let docker = "image = \"mine:1\"\nallowed_images = [\"ruby:*\", \"r.example.com/team/**\"]";
    for allowed in ["ruby:3", "mine:1", "r.example.com/team/a/b:1"] {
        assert_eq!(name(json!({"name": allowed}), docker), named(allowed));
    }
    insta::assert_snapshot!(name(json!({"name": "x/ruby:3"}), docker).unwrap_err(), @"
    the image `x/ruby:3` is not on the runner's list of allowed images (`allowed_images` in [runners.docker]):
    - ruby:*
    - r.example.com/team/**
    ");
}

#[test]
fn a_job_chooses_among_the_allowed_policies() {
    let policies = |image: Value, docker: &str| {
        let case = case(image, docker);
        case.wishes()
            .policies()
            .map(|chosen| PullPolicy::list(&chosen))
            .map_err(|failure| failure.to_string())
    };
    let list = "pull_policy = [\"always\", \"if-not-present\"]";
    let never = json!({"name": "a", "pull_policy": ["never"]});
    assert_eq!(policies(json!({"name": "a"}), ""), Ok("[always]".to_owned()));
    assert_eq!(policies(json!({"name": "a"}), list), Ok("[always if-not-present]".to_owned()));
    assert_eq!(
        policies(json!({"name": "a", "pull_policy": ["if-not-present"]}), list),
        Ok("[if-not-present]".to_owned())
    );
    assert_eq!(
        policies(never.clone(), "allowed_pull_policies = [\"always\", \"never\"]"),
        Ok("[never]".to_owned())
    );
    insta::assert_snapshot!(policies(never, list).unwrap_err(), @"pull_policy ([never]) defined in GitLab pipeline config is not one of the allowed_pull_policies ([always if-not-present])");
    insta::assert_snapshot!(policies(json!({"name": "a"}), "allowed_pull_policies = [\"never\"]").unwrap_err(), @"pull_policy ([always]) defined in Runner config is not one of the allowed_pull_policies ([never])");
}

#[test]
fn the_runners_user_wins_over_the_jobs() {
    let user = |docker: &str| {
        let image = json!({"name": "a", "executor_opts": {"docker": {"user": "job$VERSION"}}});
        case(image, docker).wishes().user().map_err(|failure| failure.to_string())
    };
    assert_eq!(user(""), Ok(Some("job3".to_owned())));
    assert_eq!(user("user = \"1000\""), Ok(Some("1000".to_owned())));
    assert_eq!(user("allowed_users = [\"job*\"]"), Ok(Some("job3".to_owned())));
    insta::assert_snapshot!(user("allowed_users = [\"1000\"]").unwrap_err(), @"
    the user `job3` is not on the runner's list of allowed users (`allowed_users` in [runners.docker]):
    - 1000
    ");
}

#[test]
fn an_entrypoint_is_replaced_or_taken_away() {
    let entrypoint = |value: Value, docker: &str| {
        case(json!({"name": "a", "entrypoint": value}), docker).wishes().entrypoint()
    };
    assert_eq!(entrypoint(json!([]), ""), None);
    assert_eq!(entrypoint(json!([""]), ""), Some(Vec::new()));
    let shell = ["/bin/sh", "-c", "echo $VERSION $$ && exec \"$@\"", "--"].map(str::to_owned).to_vec();
    assert_eq!(entrypoint(json!(shell), ""), Some(shell), "variables are the shell's business");
    assert_eq!(entrypoint(json!([""]), "disable_entrypoint_overwrite = true"), None);
}

#[test]
fn credentials_are_gathered() {
    let case = case(json!({"name": "a"}), "");
    let request = case.wishes().request("a".to_owned(), &case.payload).unwrap();
    assert_eq!(request.credentials.job_config.as_deref(), Some("{\"auths\":{}}"));
    assert_eq!(request.credentials.job.len(), 1);
    assert!(!format!("{request:?}").contains("auths"));
}
