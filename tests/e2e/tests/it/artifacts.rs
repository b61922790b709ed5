//! What jobs leave behind, and what the next ones get of it.

use std::path::Path;
use std::process::Command;

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{Artifacts, Endpoint, Fault, JobHandle, JobSpec, JobState, Options, TestGitlab};

/// What Info-ZIP makes of an archive.
fn info_zip(program: &str, arguments: &[&str], archive: &Path) -> String {
    let mut command = Command::new(program);
    // It writes names as this says.
    command.env("LC_ALL", "C.UTF-8").args(arguments).arg(archive);
    let output = command.output().expect("Info-ZIP is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn what_a_job_leaves_behind_is_there_in_the_next() {
    let server = TestGitlab::start_with(Options::default().direct_download()).await;
    let scene = Scene::with_server(server, &Config::default());
    let project = scene.server.create_project("group/app").await;
    project.commit_file("tracked.txt", "in git\n").await;
    let make = [
        "mkdir -p out/empty 'out/a b' reports; echo content > 'out/a b/ä ö.txt'",
        "printf '#!/bin/sh\\necho ran\\n' > out/run; chmod 750 out/run; ln -s run out/link; ln -s /etc/passwd out/away",
        "truncate -s 200M out/sparse; echo tail >> out/sparse; echo secret > out/key.pem; echo '<x/>' > reports/j.xml",
        "touch -d 2001-02-03T04:05:06Z out/run; echo loose > untracked.txt; echo '{}' > reports/sast.json",
    ];
    let archive = Artifacts::paths(["out/", "missing/*.log", "$WHERE/*.txt"]).exclude(["out/**/*.pem"]);
    let spec = JobSpec::of(&project, make)
        .env("WHERE", "nowhere")
        .env("RUNNER_GENERATE_ARTIFACTS_METADATA", "true")
        .artifacts(archive.name("build-$CI_COMMIT_REF_NAME").expire_in("1 week"))
        .artifacts(Artifacts::report("junit", "gzip", "junit.xml", "reports/*.xml"))
        .artifacts(Artifacts::report("sast", "raw", "gl-sast.json", "reports/sast.json"));
    let first = scene.server.enqueue(spec).await;
    let check = [
        "cat 'out/a b/ä ö.txt'; ./out/link; stat -c 'mode=%a time=%Y' out/run; readlink out/link",
        "echo size=$(stat -c %s out/sparse) last=$(tail -n 1 out/sparse) disk=$(du -k out/sparse | cut -f1)",
        "test -d out/empty && test ! -e out/key.pem && test ! -e reports && echo complete",
        "sed -n 's/.*out.run.*sha256.:.\\([0-9a-f]*\\).*/\\1  out\\/run/p' build-main-metadata.json | sha256sum -c -",
        "grep -q 'RUNNER_GENERATE_ARTIFACTS_METADATA.:..[,}]' build-main-metadata.json",
    ];
    let second = JobSpec::of(&project, check).env("FF_USE_PARALLEL_ARTIFACT_TRANSFER", "true");
    let second = scene.server.enqueue(second.dependency(&first)).await;
    let tart = scene.run();
    assert_eq!(first.wait_finished(JOB).await, JobState::Success, "{}", first.log());
    assert_eq!(second.wait_finished(JOB).await, JobState::Success, "{}", second.log());
    scene.drain(tart).await;

    let log = first.log();
    for expected in [
        "Uploading artifacts for successful job",
        "Uploading artifacts...",
        "out/: found 8 matching artifact files and directories",
        "WARNING: missing/*.log: no matching files. Ensure that the artifact path is relative to the working directory (/builds/group/app)",
        "Uploading artifacts as \"archive\" to coordinator... 201 Created",
        "Uploading artifacts as \"junit\" to coordinator... 201 Created",
        &format!("responseStatus=201 Created token={}", &first.token()["glcbt-".len()..][..9]),
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    let uploaded = first.artifacts();
    let shown: Vec<_> = uploaded
        .iter()
        .map(|a| format!("{} {} {} {:?}", a.kind, a.format, a.filename, a.expire_in))
        .collect();
    assert_eq!(
        shown,
        [
            "archive zip build-main.zip Some(\"1 week\")",
            "junit gzip junit.xml.gz None",
            "sast raw gl-sast.json None"
        ]
    );
    assert_eq!(&*uploaded[2].content, b"{}\n");
    let file = scene.path("artifacts.zip");
    std::fs::write(&file, &uploaded[0].content).unwrap();
    info_zip("unzip", &["-tqq"], &file);
    let names = info_zip("zipinfo", &["-1"], &file);
    assert!(
        names.contains("out/empty/\n") && names.contains("out/link\n") && !names.contains("pem"),
        "{names}"
    );
    // Holes are no bytes.
    assert!(uploaded[0].content.len() < 2 << 20, "{} bytes", uploaded[0].content.len());

    let log = second.log();
    for expected in [
        "Downloading artifacts",
        &format!(" ({})...", first.id()),
        "Downloading artifacts from coordinator... ok host=",
        "content",
        "ran",
        "mode=750 time=981173106",
        "last=tail",
        "complete",
        "out/run: OK",
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    scene.finish();
}

#[tokio::test]
async fn archives_with_zstd_are_there_in_the_next_job_too() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let tart = scene.run();
    let show = "echo $(cat zipzstd/x tarzstd/x) $(stat -c 'mode=%a' zipzstd/x tarzstd/x)";
    let mut last = JobSpec::of(&project, [show]);
    for format in ["zipzstd", "tarzstd"] {
        let script = format!("mkdir {format}; echo from-{format} > {format}/x; chmod 700 {format}/x");
        let artifacts = Artifacts::report("archive", format, "all", format);
        let job = scene.server.enqueue(JobSpec::of(&project, [script]).artifacts(artifacts)).await;
        assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
        last = last.dependency(&job);
    }
    let last = scene.server.enqueue(last).await;
    assert_eq!(last.wait_finished(JOB).await, JobState::Success, "{}", last.log());
    scene.drain(tart).await;
    let (log, expected) = (last.log(), "from-zipzstd from-tarzstd mode=700 mode=700");
    assert!(log.contains(expected), "no {expected:?} in {log}");
    scene.finish();
}

#[tokio::test]
async fn failed_jobs_leave_what_they_are_told_to_and_nothing_is_no_failure() {
    let scene = Scene::start(&Config::default()).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let fails = JobSpec::of(&project, ["echo log > log.txt; exit 3"])
        .artifacts(Artifacts::paths(["a.txt"]))
        .artifacts(Artifacts::paths(["log.txt"]).when("on_failure").name("logs"));
    let failed = scene.server.enqueue(fails).await;
    let nothing = JobSpec::of(&project, ["true"]).artifacts(Artifacts::paths(["no/*"]));
    let nothing = scene.server.enqueue(nothing).await;
    let untracked = Artifacts::paths::<&str>([]).untracked();
    let untracked =
        JobSpec::of(&project, ["echo 1 > new; echo 2 > other"]).artifacts(untracked.exclude(["other"]));
    let untracked = scene.server.enqueue(untracked).await;
    let tart = scene.run();
    assert_eq!(failed.wait_finished(JOB).await, JobState::Failed);
    assert_eq!(nothing.wait_finished(JOB).await, JobState::Success, "{}", nothing.log());
    assert_eq!(untracked.wait_finished(JOB).await, JobState::Success, "{}", untracked.log());
    scene.drain(tart).await;
    assert!(failed.log().contains("Uploading artifacts for failed job"), "{}", failed.log());
    let names = |job: &tart_test_gitlab::JobHandle| -> Vec<String> {
        job.artifacts().into_iter().map(|artifact| artifact.filename).collect()
    };
    assert_eq!(names(&failed), ["logs.zip"]);
    assert!(nothing.log().contains("ERROR: No files to upload"), "{}", nothing.log());
    assert!(nothing.artifacts().is_empty());
    let file = scene.path("untracked.zip");
    std::fs::write(&file, &untracked.artifacts()[0].content).unwrap();
    assert_eq!(info_zip("zipinfo", &["-1"], &file), "new\n");
    scene.finish();
}

#[tokio::test]
async fn servers_that_refuse_artifacts_are_asked_again_where_that_helps() {
    let server = TestGitlab::start_with(Options::default().max_artifact_bytes(64 << 10)).await;
    let scene = Scene::with_server(server, &Config::default());
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let small = || JobSpec::of(&project, ["true"]).artifacts(Artifacts::paths(["a.txt"]));
    let tart = scene.run();

    let faults = scene.server.faults();
    faults.times(2, Endpoint::UploadArtifacts, Fault::Status(503));
    let busy = scene.server.enqueue(small()).await;
    assert_eq!(busy.wait_finished(JOB).await, JobState::Success, "{}", busy.log());
    assert_eq!(busy.log().matches("Retrying...").count(), 2, "{}", busy.log());
    assert_eq!(busy.artifacts().len(), 1);

    let large = JobSpec::of(&project, ["head -c 1000000 /dev/urandom > large"]);
    let large = scene.server.enqueue(large.artifacts(Artifacts::paths(["large"]))).await;
    assert_eq!(large.wait_finished(JOB).await, JobState::Failed, "{}", large.log());
    assert!(large.log().contains("the artifacts are too large for the server"), "{}", large.log());
    assert!(large.artifacts().is_empty() && !large.log().contains("Retrying..."), "{}", large.log());

    faults.next(Endpoint::DownloadArtifacts, Fault::ResetMidBody);
    let gets = JobSpec::of(&project, ["cat a.txt"]).dependency(&busy);
    let gets = scene.server.enqueue(gets).await;
    assert_eq!(gets.wait_finished(JOB).await, JobState::Success, "{}", gets.log());
    assert_eq!(gets.log().matches("Retrying...").count(), 1, "{}", gets.log());

    faults.next(Endpoint::DownloadArtifacts, Fault::Status(404));
    let lost = scene.server.enqueue(JobSpec::of(&project, ["echo unreachable"]).dependency(&busy)).await;
    assert_eq!(lost.wait_finished(JOB).await, JobState::Failed, "{}", lost.log());
    assert!(lost.log().contains("the server has no such artifacts"), "{}", lost.log());
    assert!(!lost.log().contains("\nunreachable"), "{}", lost.log());
    scene.drain(tart).await;
    scene.finish();
}

/// What the official runner sends with every request (the server is strict).
const HEADERS: [&str; 4] = [
    "--header",
    "X-Request-Id: 0123456789ab4def8123456789abcdef",
    "--user-agent",
    "gitlab-runner 19.4.0 (HEAD; go1.25; linux/amd64)",
];

/// Runs curl against the API of artifacts `of` a job, as the official runner of a running job would.
async fn curl(scene: &Scene, job: &JobHandle, of: &JobHandle, arguments: &[&str], query: &str) {
    let url = format!("{}/api/v4/jobs/{}/artifacts{query}", scene.server.url(), of.id());
    let token = format!("JOB-TOKEN: {}", job.token());
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--header", &token])
        .args(HEADERS)
        .args(arguments)
        .arg(url);
    let output = curl.output().await.expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

#[tokio::test]
async fn curl_gets_what_a_job_left_and_jobs_get_what_curl_left() {
    let scene = Scene::start(&Config::default()).await;
    let bare = |lines: [&str; 2]| JobSpec::script(lines).env("GIT_STRATEGY", "none");
    let artifacts = Artifacts::paths(["out"]);
    let left =
        bare(["mkdir out; seq 100000 > out/numbers", "echo 'a line' > 'out/ä b'"]).artifacts(artifacts);
    let left = scene.server.enqueue(left).await;
    let tart = scene.run();
    assert_eq!(left.wait_finished(JOB).await, JobState::Success, "{}", left.log());
    // What is made and sent by others is as good.
    let tree = scene.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("by curl"), "of zip and curl\n").unwrap();
    let made = Command::new("zip").args(["-qr", "../made.zip", "."]).current_dir(&tree).status();
    assert!(made.expect("zip is installed").success());
    let given = bare(["echo it runs", "sleep 20"]).artifacts(Artifacts::paths(["none"])).dependency(&left);
    let given = scene.server.enqueue(given).await;
    given.wait_log_contains("it runs", JOB).await;
    let got = scene.path("got.zip");
    curl(&scene, &given, &left, &["--output", &got.to_string_lossy()], "").await;
    assert_eq!(std::fs::read(&got).unwrap(), &*left.artifacts()[0].content);
    assert_eq!(info_zip("unzip", &["-Z1"], &got), "out/\nout/numbers\nout/ä b\n");
    let form = format!("file=@{}", scene.path("made.zip").display());
    curl(&scene, &given, &given, &["--form", &form], "?artifact_type=archive&artifact_format=zip").await;
    assert_eq!(given.wait_finished(JOB).await, JobState::Success, "{}", given.log());
    let next = scene.server.enqueue(bare(["cat 'by curl'", "stat -c %s 'by curl'"]).dependency(&given)).await;
    assert_eq!(next.wait_finished(JOB).await, JobState::Success, "{}", next.log());
    assert!(next.log().contains("of zip and curl"), "{}", next.log());
    scene.drain(tart).await;
    scene.finish();
}
