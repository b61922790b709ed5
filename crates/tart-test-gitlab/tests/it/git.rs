//! Real git against the server.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tart_test_gitlab::{
    Endpoint, Fault, JobSpec, JobState, Options, ProjectHandle, RunnerOptions, TestGitlab,
};
use tempfile::TempDir;

use crate::client::{Client, SOON, body, header, send, text};

/// Runs git in a directory, without any configuration of the machine.
async fn git(directory: &Path, arguments: &[&str]) -> Output {
    let mut git = tokio::process::Command::new("git");
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("GIT_")) {
        git.env_remove(key);
    }
    git.current_dir(directory)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", directory.join("gitconfig"))
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", directory)
        .output()
        .await
        .expect("git is installed")
}

async fn git_ok(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn git_fails(directory: &Path, arguments: &[&str]) -> String {
    let output = git(directory, arguments).await;
    assert!(!output.status.success(), "git {arguments:?} went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Scene {
    server: TestGitlab,
    project: ProjectHandle,
    client: Client,
    directory: TempDir,
}

async fn scene_with(options: Options) -> Scene {
    let server = TestGitlab::start_with(options).await;
    let project = server.create_project("group/app").await;
    let runner = server.add_runner(RunnerOptions::default());
    let client = Client::new(&server, &runner);
    Scene { server, project, client, directory: tempfile::tempdir().expect("a directory") }
}

async fn scene() -> Scene {
    scene_with(Options::default()).await
}

impl Scene {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Enqueues and takes a job.
    async fn run(&self, spec: JobSpec) -> Value {
        self.server.enqueue(spec).await;
        self.client.take_job().await
    }
}

#[tokio::test]
async fn a_clone_needs_the_token_of_a_running_job() {
    let scene = scene().await;
    let sha = scene.project.commit("main").file("a/b.txt", "text").executable("run", "#!").create().await;
    let job = scene.server.enqueue(JobSpec::of(&scene.project, ["true"])).await;
    let errors = git_fails(scene.path(), &["clone", &scene.project.url(), "none"]).await;
    assert!(errors.contains("could not read Username"), "{errors}");
    let wrong = scene.project.url_with_token("wrong");
    let errors = git_fails(scene.path(), &["clone", &wrong, "wrong"]).await;
    assert!(errors.contains("Authentication failed"), "{errors}");
    let waiting = scene.project.url_with_token(&job.token());
    git_fails(scene.path(), &["clone", &waiting, "waiting"]).await;

    let taken = scene.client.take_job().await;
    git_ok(scene.path(), &["clone", text(&taken["git_info"]["repo_url"]), "app"]).await;
    let app = scene.path().join("app");
    assert_eq!(git_ok(&app, &["rev-parse", "HEAD"]).await, sha);
    assert_eq!(std::fs::read_to_string(app.join("a/b.txt")).expect("the file"), "text");
    job.abort();
    git_fails(&app, &["fetch", "origin"]).await;
    scene.server.assert_no_violations();
}

#[tokio::test]
async fn a_missing_token_is_answered_with_a_challenge() {
    let scene = scene().await;
    let url = format!("{}/info/refs?service=git-upload-pack", scene.project.url());
    let answer = reqwest::get(&url).await.expect("an answer");
    assert_eq!(answer.status(), 401);
    assert_eq!(header(&answer, "www-authenticate"), Some("Basic realm=\"GitLab\""));
    scene.project.commit_file("a", "b").await;
    scene.project.make_public();
    let answer = reqwest::get(&url).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), Some("application/x-git-upload-pack-advertisement"));
}

#[tokio::test]
async fn the_refspecs_of_the_payload_fetch_the_commit_of_an_old_pipeline() {
    let scene = scene().await;
    scene.project.commit_file("a", "1").await;
    let old = scene.project.commit_file("a", "2").await;
    let job = scene.server.enqueue(JobSpec::of(&scene.project, ["true"]).depth(1)).await;
    let new = scene.project.commit("main").file("a", "3").message("Three\n\nMore.").create().await;
    assert_ne!(old, new);
    let taken = scene.client.take_job().await;
    assert_eq!(taken["git_info"]["sha"], old);
    assert_eq!(job.sha(), old);
    git_ok(scene.path(), &["init", "--quiet", "."]).await;
    let mut fetch = vec!["fetch", "--quiet", "--depth", "1", text(&taken["git_info"]["repo_url"])];
    fetch.extend(taken["git_info"]["refspecs"].as_array().expect("a list").iter().map(text));
    git_ok(scene.path(), &fetch).await;
    git_ok(scene.path(), &["checkout", "--quiet", &old]).await;
    assert_eq!(git_ok(scene.path(), &["rev-list", "--count", "HEAD"]).await, "1");
    let shown = git_ok(scene.path(), &["log", "-1", "--format=%s/%b", "refs/remotes/origin/main"]).await;
    assert_eq!(shown, "Three/More.");
}

#[tokio::test]
async fn any_commit_can_be_fetched_by_its_name_with_both_protocols() {
    for version in ["0", "2"] {
        let scene = scene().await;
        let first = scene.project.commit_file("a", "1").await;
        scene.project.commit("main").remove("a").file("b", "2").create().await;
        let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
        git_ok(scene.path(), &["init", "--quiet", "."]).await;
        let protocol = format!("protocol.version={version}");
        let url = text(&taken["git_info"]["repo_url"]);
        git_ok(scene.path(), &["-c", &protocol, "fetch", "--quiet", "--depth", "1", url, &first]).await;
        assert_eq!(git_ok(scene.path(), &["ls-tree", "--name-only", "FETCH_HEAD"]).await, "a");
        let requests = scene.server.requests();
        let spoken = requests.iter().any(|request| request.header("git-protocol") == Some("version=2"));
        assert_eq!(spoken, version == "2");
    }
}

#[tokio::test]
async fn compressed_requests_are_understood_and_big_answers_arrive() {
    let scene = scene().await;
    let mut noise = Vec::new();
    let mut seed = 1_u32;
    noise.resize_with(3 << 20, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    });
    scene.project.commit_file("noise", noise.clone()).await;
    // Git compresses requests above 1 KiB, which 40 wanted commits make.
    for number in 0..40 {
        let branch = format!("branch-{number}");
        scene.project.commit(&branch).file("a", branch.as_str()).create().await;
    }
    let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
    git_ok(scene.path(), &["clone", "--quiet", text(&taken["git_info"]["repo_url"]), "app"]).await;
    assert_eq!(std::fs::read(scene.path().join("app/noise")).expect("the file"), noise);
    let compressed = |request: &tart_test_gitlab::Request| request.header("content-encoding") == Some("gzip");
    assert!(scene.server.requests().iter().any(compressed));
}

#[tokio::test]
async fn chunked_requests_are_understood() {
    let scene = scene().await;
    let sha = scene.project.commit_file("a", "1").await;
    scene.project.make_public();
    let pieces =
        ["0014command=ls-r", "efs\n0001", "0000"].map(|piece| Ok::<_, std::io::Error>(piece.as_bytes()));
    let answer = reqwest::Client::new()
        .post(format!("{}/git-upload-pack", scene.project.url()))
        .header("Content-Type", "application/x-git-upload-pack-request")
        .header("Git-Protocol", "version=2")
        .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let refs = answer.text().await.expect("text");
    assert!(refs.contains(&format!("{sha} refs/heads/main")), "{refs}");
    assert_eq!(scene.server.requests()[0].header("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn tags_and_merge_requests_are_built_from_their_refs() {
    let scene = scene().await;
    let main = scene.project.commit_file("a", "1").await;
    scene.project.tag("v1", &main).await;
    let change = scene.project.commit("change").file("a", "2").create().await;
    scene.project.merge_request(1, &change).await;
    let tag = scene.run(JobSpec::of(&scene.project, ["true"]).tag("v1")).await;
    assert_eq!(
        (tag["git_info"]["ref_type"].as_str(), tag["git_info"]["sha"].as_str()),
        (Some("tag"), Some(&*main))
    );
    let change_job = scene.run(JobSpec::of(&scene.project, ["true"]).merge_request(1).depth(0)).await;
    assert_eq!(change_job["git_info"]["ref"], "refs/merge-requests/1/head");
    assert_eq!(change_job["git_info"]["sha"], change);
    let refs = change_job["git_info"]["refspecs"].as_array().expect("a list");
    assert!(refs.iter().any(|spec| spec == "+refs/heads/*:refs/remotes/origin/*"));
}

#[tokio::test]
async fn submodules_of_allowed_projects_are_cloned() {
    let scene = scene().await;
    let library = scene.server.create_project("group/lib").await;
    let lib_sha = library.commit_file("lib.txt", "lib").await;
    scene.project.commit("main").submodule("lib", "../lib.git", &lib_sha).create().await;
    let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
    let url = text(&taken["git_info"]["repo_url"]);
    let clone = ["clone", "--quiet", "--recurse-submodules", url, "app"];
    let errors = git_fails(scene.path(), &clone).await;
    assert!(errors.contains("403") || errors.contains("not allowed"), "{errors}");
    library.allow_jobs_of(&scene.project);
    git_ok(scene.path(), &["-C", "app", "submodule", "update", "--init"]).await;
    let file = scene.path().join("app/lib/lib.txt");
    assert_eq!(std::fs::read_to_string(file).expect("the file"), "lib");
}

#[tokio::test]
async fn pushes_are_refused() {
    let scene = scene().await;
    scene.project.commit_file("a", "1").await;
    let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
    git_ok(scene.path(), &["clone", "--quiet", text(&taken["git_info"]["repo_url"]), "app"]).await;
    let errors = git_fails(&scene.path().join("app"), &["push", "origin", "main:other"]).await;
    assert!(errors.contains("403"), "{errors}");
}

#[tokio::test]
async fn sha256_repositories_and_imported_ones_are_served() {
    let scene = scene().await;
    let project = scene.server.create_sha256_project("group/new").await;
    let sha = project.commit_file("a", "1").await;
    assert_eq!(sha.len(), 64);
    project.commit("main").remove("a").file("b", "2").create().await;
    let taken = scene.run(JobSpec::of(&project, ["true"])).await;
    assert_eq!(taken["git_info"]["repo_object_format"], "sha256");
    git_ok(scene.path(), &["clone", "--quiet", text(&taken["git_info"]["repo_url"]), "new"]).await;

    let local = scene.path().join("local");
    std::fs::create_dir(&local).expect("a directory");
    git_ok(&local, &["init", "--quiet", "--initial-branch=trunk"]).await;
    scene.project.import(&local).await.expect_err("there is no commit");
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"];
    git_ok(&local, &[&identity[..], &["commit", "--quiet", "--allow-empty", "-m", "Start"]].concat()).await;
    let head = scene.project.import(&local).await.expect("a repository");
    assert_eq!(head, git_ok(&local, &["rev-parse", "HEAD"]).await);
    assert_eq!(scene.project.rev_parse("refs/heads/trunk").await, head);
    assert_eq!(scene.project.rev_parse("refs/heads/main").await, head);
}

#[tokio::test]
async fn lfs_objects_are_downloaded() {
    let scene = scene().await;
    let content = b"large file".repeat(1000);
    let commit = scene.project.commit("main").lfs_attributes(&["*.bin"]).lfs_file("big.bin", &content);
    commit.create().await;
    let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
    git_ok(scene.path(), &["lfs", "install", "--skip-repo"]).await;
    git_ok(scene.path(), &["clone", "--quiet", text(&taken["git_info"]["repo_url"]), "app"]).await;
    assert_eq!(std::fs::read(scene.path().join("app/big.bin")).expect("the file"), content);
    let lfs = scene.server.requests().into_iter().filter(|request| request.endpoint == Some(Endpoint::Lfs));
    assert_eq!(lfs.count(), 2);
}

#[tokio::test]
async fn lfs_objects_that_are_not_there_are_said_to_be_missing() {
    let scene = scene().await;
    scene.project.make_public();
    let known = scene.project.lfs_pointer(b"known");
    let known = known.split(['\n', ':']).find(|word| word.len() == 64).expect("an object");
    let oids = [known, &"0".repeat(64), "../../config"];
    let objects: Vec<Value> = oids.iter().map(|oid| json!({ "oid": oid, "size": 5 })).collect();
    let batch = |operation: &str| {
        reqwest::Client::new()
            .post(format!("{}/info/lfs/objects/batch", scene.project.url()))
            .body(json!({ "operation": operation, "objects": objects }).to_string())
    };
    let answer = body(send(batch("download")).await).await;
    assert!(answer["objects"][0]["actions"]["download"]["href"].is_string());
    assert_eq!(answer["objects"][1]["error"]["code"], 404);
    assert_eq!(answer["objects"][2]["error"]["code"], 404);
    assert_eq!(send(batch("upload")).await.status(), 403);
}

#[tokio::test]
async fn git_over_tls_trusts_the_authority_only() {
    let scene = scene_with(Options::default().tls()).await;
    scene.project.commit_file("a", "1").await;
    scene.project.make_public();
    let ca = scene.path().join("ca.pem");
    std::fs::write(&ca, scene.server.ca_pem().expect("TLS")).expect("a file");
    git_fails(scene.path(), &["clone", &scene.project.url(), "bad"]).await;
    let trust = format!("http.sslCAInfo={}", ca.display());
    git_ok(scene.path(), &["-c", &trust, "clone", "--quiet", &scene.project.url(), "good"]).await;
}

#[tokio::test]
async fn git_meets_faults_too() {
    let scene = scene().await;
    scene.project.commit_file("a", "1").await;
    let taken = scene.run(JobSpec::of(&scene.project, ["true"])).await;
    let url = text(&taken["git_info"]["repo_url"]);
    scene.server.faults().next(Endpoint::Git, Fault::Status(500));
    let errors = git_fails(scene.path(), &["clone", url, "app"]).await;
    assert!(errors.contains("500"), "{errors}");
    scene.server.faults().next(Endpoint::Git, Fault::ResetMidBody);
    git_fails(scene.path(), &["clone", url, "app"]).await;
    git_ok(scene.path(), &["clone", "--quiet", url, "app"]).await;
    assert_eq!(
        scene.server.job(taken["id"].as_u64().expect("a number")).expect("it").state(),
        JobState::Running
    );
}

#[tokio::test]
async fn the_repositories_are_gone_with_the_server() {
    let scene = scene().await;
    scene.project.commit_file("a", "1").await;
    scene.run(JobSpec::of(&scene.project, ["true"])).await;
    let repository = scene.project.repository().to_owned();
    let Scene { server, project, .. } = scene;
    assert!(repository.is_dir());
    drop(project);
    server.shutdown(SOON).await;
    assert!(!repository.exists());
}
