//! How sources come into the guest.

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

#[tokio::test]
async fn submodules_and_lfs_files_are_fetched_with_the_jobs_token() {
    let scene = Scene::start(&Config::default()).await;
    let library = scene.server.create_project("group/lib").await;
    let inner = library.commit_file("lib.txt", "text of the library\n").await;
    let project = scene.server.create_project("group/app").await;
    library.allow_jobs_of(&project);
    project
        .commit("main")
        .file("a.txt", "1\n")
        .submodule("vendor/lib", "../lib.git", &inner)
        .lfs_attributes(&["*.bin"])
        .lfs_file("big.bin", b"contents of the large file\n")
        .create()
        .await;
    project.commit_file("a.txt", "2\n").await;
    let lines = [
        "cat vendor/lib/lib.txt big.bin a.txt",
        "echo commits=$(git rev-list --count HEAD)",
        // The token is in the environment of the job, but in no file of the checkout.
        "echo leaks=$(grep -rlF \"$CI_JOB_TOKEN\" . ~ | wc -l)",
        "git status --porcelain; git remote -v",
    ];
    let spec = JobSpec::of(&project, lines).depth(1).env("GIT_SUBMODULE_STRATEGY", "recursive");
    let job = scene.server.enqueue(spec).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    let log = job.log();
    for expected in ["text of the library", "contents of the large file", "commits=1", "leaks=0"] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    scene.finish();
}

#[tokio::test]
async fn the_git_strategies_do_what_they_say() {
    let scene = Scene::start(&Config::default().concurrent(2)).await;
    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "1\n").await;
    let count = "echo files=$(ls -A | wc -l) git=$(ls -d .git 2>/dev/null)";
    let mut jobs = Vec::new();
    for (strategy, expected) in
        [("none", "files=0 git="), ("empty", "files=0 git="), ("clone", "files=2 git=.git")]
    {
        let spec = JobSpec::of(&project, [count]).name(strategy).env("GIT_STRATEGY", strategy);
        jobs.push((scene.server.enqueue(spec).await, expected));
    }
    let tart = scene.run();
    for (job, expected) in jobs {
        assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
        assert!(job.log().contains(expected), "no {expected:?} in {}", job.log());
    }
    scene.drain(tart).await;
    scene.finish();
}
