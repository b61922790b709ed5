//! Help and error texts.

use crate::support::Home;

#[tokio::test]
async fn help_lists_the_commands() {
    let help = Home::new().run(&["--help"]).await.succeeded();
    insta::assert_snapshot!(help, @r"
    A GitLab Runner whose every job runs in its own microVM

    Usage: tart [OPTIONS] <COMMAND>

    Commands:
      register     Register a runner with GitLab and write it to the configuration
      run          Ask for jobs and run them, until a signal ends it
      run-single   Run jobs of one runner one after the other [alias: single]
      exec         Run jobs of a local .gitlab-ci.yml in microVMs, without GitLab
      list         List the runners of the configuration
      verify       Ask GitLab whether the runners of the configuration are valid
      unregister   Remove runners from GitLab and from the configuration
      reset-token  Replace the token of a runner by a new one
      lint         Check the configuration file
      assets       Build, list, check and remove what guests boot from
      image        Pull, list, import and remove images of jobs
      root-helper  Do for an unprivileged `tart run` what only root can do
      doctor       Check whether this host can run jobs
      version      Print the version
      completions  Print completions of the command line for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -v, --version  Print the version
      -h, --help     Print help

    Global options:
          --debug[=<BOOL>]       Log everything [env: RUNNER_DEBUG]
      -l, --log-level <LEVEL>    The least severe messages that are logged [env: LOG_LEVEL] [possible
                                 values: debug, info, warning, error, fatal, panic]
          --log-format <FORMAT>  The form of log messages, which go to the standard error [env:
                                 LOG_FORMAT] [possible values: runner, text, json]

    Exit codes: 0 success, 1 wrong usage or configuration, 2 this host lacks something, 3 the GitLab
    server refused or was not reached, 4 interrupted, 5 the job failed.
    ");
}

#[tokio::test]
async fn register_has_the_official_flags() {
    let help = Home::new().run(&["register", "-h"]).await.succeeded();
    insta::assert_snapshot!(help, @r"
    Register a runner with GitLab and write it to the configuration

    Usage: tart register [OPTIONS]

    Options:
      -c, --config <FILE>               The configuration file [env: CONFIG_FILE]
          --template-config <FILE>      A file with one [[runners]], whose keys the new runner gets
                                        [env: TEMPLATE_CONFIG_FILE]
      -u, --url <URL>                   The GitLab server [env: CI_SERVER_URL] [alias: --endpoint]
      -t, --token <TOKEN>               The runner's authentication token [env: CI_SERVER_TOKEN]
      -r, --registration-token <TOKEN>  An old registration token (deprecated) [env: REGISTRATION_TOKEN]
          --name <NAME>                 The runner's name [env: RUNNER_NAME] [alias: --description]
      -n, --non-interactive[=<BOOL>]    Ask no questions [env: REGISTER_NON_INTERACTIVE]
          --leave-runner[=<BOOL>]       Leave the runner in GitLab if it cannot be saved [env:
                                        REGISTER_LEAVE_RUNNER]
          --print                       Print the runner's configuration instead of saving it
          --executor <NAME>             The executor: `microvm`, or `docker` which means the same [env:
                                        RUNNER_EXECUTOR]
      -h, --help                        Print help

    Keys of the configuration:
          --limit <COUNT>                How many jobs run at once [env: RUNNER_LIMIT]
          --output-limit <KIB>           The cut of a job's log, in KiB [env: RUNNER_OUTPUT_LIMIT]
          --request-concurrency <COUNT>  The most requests for jobs at once [env:
                                         RUNNER_REQUEST_CONCURRENCY]
          --env <KEY=VALUE>              A variable of all jobs; may be repeated [env: RUNNER_ENV]
          --builds-dir <DIR>             Where projects are checked out in the machine [env:
                                         RUNNER_BUILDS_DIR]
          --cache-dir <DIR>              Where caches are in the machine [env: RUNNER_CACHE_DIR]
          --clone-url <URL>              Replaces scheme and host of the address that jobs clone from
                                         [env: CLONE_URL]
          --shell <SHELL>                The shell of scripts [env: RUNNER_SHELL]
          --feature-flags <NAME:BOOL>    A feature flag; may be repeated [env: FEATURE_FLAGS]
          --tls-ca-file <FILE>           Certificate authorities for GitLab [env: CI_SERVER_TLS_CA_FILE]
          --tls-cert-file <FILE>         Client certificate for GitLab [env: CI_SERVER_TLS_CERT_FILE]
          --tls-key-file <FILE>          Key of the client certificate [env: CI_SERVER_TLS_KEY_FILE]
          --docker-image <IMAGE>         The image of jobs that name none [env: DOCKER_IMAGE]
          --set <KEY=VALUE>              Any other key below [[runners]], such as microvm.memory=4g; may
                                         be repeated

    Only with a registration token:
          --tag-list <TAGS>          Tags, divided by commas [env: RUNNER_TAG_LIST]
          --run-untagged[=<BOOL>]    Take jobs without tags [default: only if there are no tags] [env:
                                     REGISTER_RUN_UNTAGGED]
          --locked[=<BOOL>]          Stay with the first project [default: true] [env: REGISTER_LOCKED]
          --access-level <LEVEL>     `not_protected` or `ref_protected` [env: REGISTER_ACCESS_LEVEL]
          --maximum-timeout <TIME>   The longest time of a job [env: REGISTER_MAXIMUM_TIMEOUT]
          --paused[=<BOOL>]          Take no jobs at first [env: REGISTER_PAUSED]
          --maintenance-note <TEXT>  A note for administrators [env: REGISTER_MAINTENANCE_NOTE]

    Global options:
          --debug[=<BOOL>]       Log everything [env: RUNNER_DEBUG]
      -l, --log-level <LEVEL>    The least severe messages that are logged [env: LOG_LEVEL] [possible
                                 values: debug, info, warning, error, fatal, panic]
          --log-format <FORMAT>  The form of log messages, which go to the standard error [env:
                                 LOG_FORMAT] [possible values: runner, text, json]

    Without --non-interactive, what is missing is asked for.
    ");
}

#[tokio::test]
async fn exec_explains_its_flags() {
    let help = Home::new().run(&["exec", "-h"]).await.succeeded();
    insta::assert_snapshot!(help, @r"
    Run jobs of a local .gitlab-ci.yml in microVMs, without GitLab

    Usage: tart exec [OPTIONS] [JOB]

    Arguments:
      [JOB]  The job

    Options:
      -f, --file <PATH>           The CI file; .gitlab-ci.yml at the top of the repository without it
          --cwd <DIR>             A directory of the repository, instead of the current one
          --variable <KEY=VALUE>  A variable for the job, which wins over those of the file; may be
                                  repeated [alias: --env]
          --image <IMAGE>         The image, whatever the job says: the name of an imported one, or the
                                  path of a root file system
          --timeout <TIME>        The time limit of a job that has none of its own [default: 1h]
          --vcpus <COUNT>         Virtual processors of the machine [default: 2]
          --memory <SIZE>         Memory of the machine [default: 1g]
          --disk <SIZE>           The most that the job may store [default: 20g]
          --list                  List the jobs of the pipeline instead, and why they are in it
      -h, --help                  Print help

    All jobs:
          --all                  Run all jobs of the pipeline, in the order of their stages and needs
          --concurrency <COUNT>  How many jobs run at a time; without it as many as the host has
                                 processors, and at most 4
          --manual <JOB>         A manual job that is to run too; may be repeated

    Pipeline:
          --ref <REF>               The branch or tag that the working tree is taken to be pushed to,
                                    instead of the current branch; it need not exist. `tags/NAME` is a
                                    tag in any case
          --source <SOURCE>         What the pipeline is taken to be made for, as in CI_PIPELINE_SOURCE:
                                    push, merge_request_event (or mr), schedule, web, api, trigger, ...
          --target-branch <BRANCH>  The branch that the merge request is for; the default branch without
                                    it

    Global options:
          --debug[=<BOOL>]       Log everything [env: RUNNER_DEBUG]
      -l, --log-level <LEVEL>    The least severe messages that are logged [env: LOG_LEVEL] [possible
                                 values: debug, info, warning, error, fatal, panic]
          --log-format <FORMAT>  The form of log messages, which go to the standard error [env:
                                 LOG_FORMAT] [possible values: runner, text, json]

    Exit codes: 0 the job succeeded, 5 it failed, 1 wrong usage or CI file, or a job of --all failed
    that may not, 2 this host cannot run jobs, 4 interrupted.
    ");
}

#[tokio::test]
async fn a_mistyped_command_is_answered_with_the_one_that_was_meant() {
    let said = Home::new().run(&["regster"]).await.failed(1);
    insta::assert_snapshot!(said, @r"
    error: unrecognized subcommand 'regster'

      tip: some similar subcommands exist: 'unregister', 'register'

    Usage: tart [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[tokio::test]
async fn no_configuration_says_how_to_make_one() {
    let home = Home::new();
    let said = home.run(&["list"]).await.failed(1).replace(&home.config().display().to_string(), "CONFIG");
    insta::assert_snapshot!(said, @"error: there is no configuration at CONFIG: create it with `tart register`, or name another with `--config`");
}

#[tokio::test]
async fn lint_lists_all_problems() {
    let home = Home::new();
    let config = home.config();
    std::fs::create_dir_all(config.parent().expect("a parent")).expect("it can be made");
    std::fs::write(&config, "concurent = 1\n[[runners]]\nurl = \"x\"\ntoken = \"glrt-secret\"\n")
        .expect("written");
    let said = home.run(&["lint"]).await.hides("glrt-secret").failed(1);
    insta::assert_snapshot!(said.replace(&config.display().to_string(), "CONFIG"), @r#"
    error: 2 problems in the configuration:
    CONFIG:1:1: unknown key `concurent`: did you mean `concurrent`?
    CONFIG:3:7: `runners.url` must be an address that begins with `https://`, such as "https://gitlab.example.com"
    "#);
}

#[tokio::test]
async fn a_job_needs_a_repository() {
    let home = Home::new();
    let said = home.run(&["exec", "build", "--cwd", "/"]).await.failed(1);
    insta::assert_snapshot!(said, @r"
    error: / is in no working tree of git: fatal: not a git repository (or any of the parent directories): .git
    hint: a job gets its sources from a repository; `git init` makes one
    ");
}

#[tokio::test]
async fn an_unknown_job_is_answered_with_the_one_that_was_meant() {
    let home = Home::new();
    let repository = env!("CARGO_MANIFEST_DIR");
    let said = home.run(&["exec", "chek", "--cwd", repository]).await.failed(1);
    insta::assert_snapshot!(said, @r"
    error: there is no job `chek`; did you mean `check`?
    jobs in this file:
      check
      test
    ");
}

const PIPELINE: &str = "
workflow: { name: 'Pipeline of $CI_COMMIT_REF_NAME' }
stages: [build, test, deploy]
compile: { stage: build, script: make }
unit: { stage: test, script: make check, needs: [compile], parallel: 2 }
docs: { stage: test, script: make docs, rules: [{ changes: ['docs/**/*'] }] }
lint: { stage: test, script: lint, needs: [] }
release: { stage: deploy, script: release, rules: [{ if: $CI_COMMIT_TAG }] }
review: { stage: deploy, script: deploy, only: [merge_requests] }
deploy: { stage: deploy, script: deploy, when: manual, except: [tags] }
";

/// A repository of two commits, of which the second changes `docs`.
fn repository(home: &Home) -> String {
    let directory = home.path("repository");
    std::fs::create_dir(&directory).expect("it is new");
    std::fs::write(directory.join(".gitlab-ci.yml"), PIPELINE).expect("it is writable");
    let script = "git init -q -b main . && git config user.name a && git config user.email a@b && git add . && \
                  git commit -q -m one && mkdir docs && echo > docs/a && git add . && git commit -q -m two";
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(&directory).status();
    assert!(made.expect("sh runs").success());
    directory.display().to_string()
}

#[tokio::test]
async fn jobs_are_listed_with_what_is_for_and_against_them() {
    let home = Home::new();
    let repository = repository(&home);
    let list = async |more: &[&str]| {
        let arguments = [&["exec", "--list", "--cwd", &repository], more].concat();
        home.run(&arguments).await.succeeded()
    };
    insta::assert_snapshot!(list(&[]).await, @"
    Pipeline of main: push to branch `main`

    STAGE   JOB       WHEN        NEEDS           WHY
    build   compile   on_success  nothing         no condition
    test    unit 1/2  on_success  compile         no condition
    test    unit 2/2  on_success  compile         no condition
    test    docs      on_success  earlier stages  the rule at .gitlab-ci.yml:6 (`changes`)
    test    lint      on_success  nothing         no condition
    deploy  deploy    manual      earlier stages  not left out by `except` at .gitlab-ci.yml:10

    NOT RUN  WHY
    release  no rule holds
    review   `only` at .gitlab-ci.yml:9 does not take pushes to the branch `main`
    ");
    insta::assert_snapshot!(list(&["--source", "mr", "--ref", "topic"]).await, @"
    Pipeline of topic: merge request of `topic` to `main`

    STAGE   JOB     WHEN        NEEDS    WHY
    deploy  review  on_success  nothing  `only` at .gitlab-ci.yml:9

    NOT RUN   WHY
    compile   without `rules` or `only`, it runs for branches and tags, not for merge requests
    unit 1/2  without `rules` or `only`, it runs for branches and tags, not for merge requests
    unit 2/2  without `rules` or `only`, it runs for branches and tags, not for merge requests
    docs      no rule holds
    lint      without `rules` or `only`, it runs for branches and tags, not for merge requests
    release   no rule holds
    deploy    without `rules` or `only`, it runs for branches and tags, not for merge requests
    ");
    let tag = list(&["--ref", "tags/v1"]).await;
    assert!(tag.contains("deploy  release   on_success"), "{tag}");
    let said = home.run(&["exec", "--list", "--cwd", &repository, "--source", "pull"]).await.failed(1);
    assert!(said.contains("expected one of push, merge_request_event, schedule"), "{said}");
    let wrong = ["exec", "--list", "--cwd", &repository, "--source", "mr", "--ref", "tags/v1"];
    insta::assert_snapshot!(home.run(&wrong).await.failed(1), @"error: a merge request is from a branch, and `v1` is a tag");
}

#[tokio::test]
async fn pipelines_that_cannot_run_are_explained_before_anything_is_prepared() {
    let home = Home::new();
    let repository = repository(&home);
    let refuse = async |more: &[&str]| {
        let arguments = [&["exec", "--all", "--cwd", &repository], more].concat();
        home.run(&arguments).await.failed(1)
    };
    insta::assert_snapshot!(refuse(&["--manual", "lint"]).await, @"error: --manual: `lint` is no manual job of this pipeline (manual ones: `deploy`)");
    insta::assert_snapshot!(refuse(&["--manual", "x", "--source", "mr"]).await, @"error: --manual: `x` is no manual job of this pipeline (it has none)");
    insta::assert_snapshot!(refuse(&["--file", "none.yml"]).await.replace(&repository, "DIR"), @"error: cannot read DIR/none.yml: No such file or directory (os error 2)");
    std::fs::write(home.path("repository/tags.yml"), "a: { script: x, only: [tags] }\n").expect("written");
    insta::assert_snapshot!(refuse(&["--file", &format!("{repository}/tags.yml")]).await, @r"
    error: GitLab would make no pipeline for a push to branch `main`: no job is for it
    hint: `tart exec --list` says which jobs are for it; choose another with --ref or --source
    ");
}

#[tokio::test]
async fn wrong_values_are_explained() {
    let home = Home::new();
    let said = home.run(&["exec", "x", "--memory", "lots"]).await.failed(1);
    insta::assert_snapshot!(said, @r"
    error: invalid value 'lots' for '--memory <SIZE>': expected a size such as `512m`, `4g` or `20GiB`

    For more information, try '--help'.
    ");
    let said = home.run(&["exec", "x", "--variable", "1A=secret"]).await.hides("secret").failed(1);
    insta::assert_snapshot!(said, @"error: --variable: `1A` is no name of a variable: letters, digits and `_`, not a digit first");
}

#[tokio::test]
async fn an_empty_store_says_what_fills_it() {
    let home = Home::new();
    let said = home.run(&["assets", "ls"]).await.succeeded();
    assert!(said.ends_with("/assets is empty; `tart assets build` fills it\n"), "{said}");
    let said = home.run(&["image", "rm", "mine"]).await.failed(1);
    insta::assert_snapshot!(said, @"error: no image `mine` in the store; `tart image ls` lists what is there");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let mut command = home.command(&["completions", "bash"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
