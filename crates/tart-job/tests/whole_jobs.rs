//! Whole jobs, run from their plan on this machine with real git: the loop of an engine without a guest.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tart_job::context::{Product, RunnerContext};
use tart_job::log::Source;
use tart_job::outcome::{Failure, Progress, Verdict};
use tart_job::plan::JobPlan;
use tart_job::sections::SectionOptions;
use tart_job::stages::{Place, Stage};
use tart_job::timestamps::Channel;
use tart_job::{Level, LogPipeline};
use tart_spec::JobPayload;
use tempfile::TempDir;

/// The shells an image may have; `dev/setup` installs them.
const SHELLS: [&[&str]; 3] = [&["bash"], &["dash"], &["busybox", "sh"]];

const TOKEN: &str = "glcbt-t0ken";

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A GitLab that is a directory, and a runner whose guests are this machine.
struct World {
    dir: TempDir,
    shell: &'static [&'static str],
    sha: String,
}

struct Ended {
    log: String,
    verdict: Verdict,
    stages: Vec<String>,
}

impl World {
    /// `group/project` on a server that git reaches by an address with a name, and its submodule `group/lib`.
    fn new(shell: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = dir.path().join("server/group");
        for name in ["lib.git", "project.git"] {
            let repository = server.join(name);
            std::fs::create_dir_all(&repository).expect("a directory");
            git(&repository, &["init", "-q", "-b", "main"]);
            std::fs::write(repository.join("name"), name).expect("a file");
            git(&repository, &["add", "."]);
            git(&repository, &["commit", "-q", "-m", "first"]);
        }
        let project = server.join("project.git");
        let lib = format!("file://{}", server.join("lib.git").display());
        git(&project, &["submodule", "--quiet", "add", &lib, "lib"]);
        git(&project, &["config", "-f", ".gitmodules", "submodule.lib.url", "../lib.git"]);
        git(&project, &["commit", "-q", "-a", "-m", "submodule"]);
        let sha = git(&project, &["rev-parse", "HEAD"]);
        git(&project, &["update-ref", "refs/pipelines/5", "HEAD"]);
        Self { dir, shell, sha }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("text").to_owned()
    }

    /// A file of the project, as the job left it.
    fn built(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join("builds/group/project").join(name)).ok()
    }

    fn context(&self) -> RunnerContext {
        // The server has no port in this test: git is told to look into its directory instead.
        let from_server = format!("url.file://{}/.insteadOf", self.path("server"));
        let environment = [
            ("GIT_CONFIG_COUNT", "2"),
            ("GIT_CONFIG_KEY_0", &from_server),
            ("GIT_CONFIG_VALUE_0", "https://gitlab.invalid/"),
            ("GIT_CONFIG_KEY_1", "protocol.file.allow"),
            ("GIT_CONFIG_VALUE_1", "always"),
        ];
        let product = Product {
            name: "tart".into(),
            version: "0.1.0".into(),
            revision: "abcdef01".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        RunnerContext {
            short_token: "t1_abc".into(),
            environment: environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            feature_flags: BTreeMap::from([("FF_TIMESTAMPS".to_owned(), false)]),
            builds_dir: self.path("builds"),
            cache_dir: self.path("cache"),
            custom_build_dir: false,
            correlation_id: Some("01HX".into()),
            ..RunnerContext::plain(product)
        }
    }

    fn payload(&self, variables: &[(&str, &str)], script: &[&str], after_script: &[&str]) -> JobPayload {
        let mut all = vec![
            json!({"key": "CI_JOB_TOKEN", "value": TOKEN, "masked": true}),
            json!({"key": "PASSWORD", "value": "hunter2 hunter2", "masked": true}),
            json!({"key": "CERT", "value": "line 1\nline 2", "file": true}),
            json!({"key": "RAW", "value": "$HOME 'x' \"y\"", "raw": true}),
        ];
        all.extend(variables.iter().map(|(key, value)| json!({"key": key, "value": value})));
        let payload = json!({
            "id": 9, "token": TOKEN, "allow_git_fetch": true, "job_info": {"project_id": 3},
            "git_info": {
                "repo_url": format!("https://gitlab-ci-token:{TOKEN}@gitlab.invalid/group/project.git"),
                "ref": "main", "sha": self.sha, "refspecs": ["+refs/pipelines/5:refs/pipelines/5"], "depth": 1
            },
            "variables": Value::from(all),
            "steps": [{"name": "script", "script": script}, {"name": "after_script", "script": after_script}],
            "features": {"trace_sections": false}
        });
        serde_json::from_value(payload).expect("a payload")
    }

    /// The loop of an engine.
    fn run(&self, payload: &JobPayload) -> Ended {
        let context = self.context();
        let plan = JobPlan::new(payload, &context).expect("a plan");
        let mut stored = Vec::new();
        let sink = |bytes: &[u8]| stored.extend_from_slice(bytes);
        let mut log = LogPipeline::new(plan.log_options(payload), jiff::Timestamp::now, sink);
        let mut progress = Progress::new(plan.settings.after_script_ignore_errors);
        let mut stages = Vec::new();
        for planned in &plan.stages {
            let stage = &planned.stage;
            if !progress.is_due(stage) || stage.place().is_none() {
                continue;
            }
            stages.push(stage.name().into_owned());
            progress.begin(stage);
            log.begin_section(&stage.name(), &stage.header("test"), SectionOptions::default());
            let mut result = Ok(());
            for attempt in 0..planned.attempts {
                if let Some(before) = planned.before_retry.as_ref().filter(|_| attempt > 0) {
                    stages.push(before.name().into_owned());
                    self.stage(&plan, before, payload, &context, &progress, &mut |b| {
                        log.write(Source::Build(Channel::Stdout), b);
                    })
                    .expect("the work tree is cleared");
                }
                result = self.stage(&plan, stage, payload, &context, &progress, &mut |b| {
                    log.write(Source::Build(Channel::Stdout), b);
                });
                if result.is_ok() {
                    break;
                }
            }
            if let Some(warning) = progress.end(stage, result) {
                log.line(Level::Warning, &warning);
            }
            log.end_section(&stage.name());
        }
        let verdict = progress.verdict();
        let (level, text) = verdict.line();
        log.line(level, &text);
        let _sink = log.finish();
        assert_eq!(self.leaks(self.dir.path()), [""; 0], "only the environment holds the token");
        Ended { log: String::from_utf8(stored).expect("text"), verdict, stages }
    }

    fn stage(
        &self,
        plan: &JobPlan,
        stage: &Stage,
        payload: &JobPayload,
        context: &RunnerContext,
        progress: &Progress,
        write: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let Some(script) = plan.script(stage, payload, context)? else { return Ok(()) };
        let file = self.dir.path().join("script");
        std::fs::write(&file, script).expect("a script");
        std::fs::create_dir_all(&plan.dirs.temp_dir).expect("the guest's tmpfs");
        for file in plan.variables.files() {
            std::fs::write(file.path, file.content).expect("a file");
        }
        let shell = if stage.place() == Some(Place::Job) { self.shell } else { SHELLS[0] };
        let (program, arguments) = shell.split_first().expect("a shell");
        let output = Command::new(program)
            .args(arguments)
            .arg(&file)
            .env_clear()
            .envs(plan.environment(stage, progress.status_in(stage), context))
            .envs([("PATH", std::env::var("PATH").expect("tests have a PATH")), ("HOME", self.path("home"))])
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; run dev/setup"));
        write(&output.stdout);
        write(&output.stderr);
        match output.status.code().expect("an exit code") {
            0 => Ok(()),
            code => Err(Failure::ExitCode(code)),
        }
    }

    /// Files that hold the job token.
    fn leaks(&self, dir: &Path) -> Vec<String> {
        let output = Command::new("grep").arg("-rlF").arg(TOKEN).arg(dir).output().expect("grep");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_job_runs_from_its_sources_to_its_clean_up_in_every_shell() {
    for shell in SHELLS {
        let world = World::new(shell);
        let payload = world.payload(
            &[("GIT_SUBMODULE_STRATEGY", "normal"), ("CI_PROJECT_PATH", "group/project")],
            &[
                "cat name lib/name \"$CERT\"; echo",
                "echo \"$RAW|$PASSWORD\"",
                "printf 'LATER=a  b\\n' >> \"$GITLAB_ENV\"",
                "git config remote.origin.url; echo made > made",
            ],
            &["echo \"$CI_JOB_STATUS <$LATER>\"; cat made"],
        );
        let ended = world.run(&payload);
        assert_eq!(ended.verdict, Verdict::Success, "{shell:?}: {}", ended.log);
        assert_eq!(
            ended.stages,
            ["prepare_script", "get_sources", "step_script", "after_script", "cleanup_file_variables"]
        );
        let script = ended.log.split("\"step_script\" stage").nth(1).expect("the script ran");
        let output: String =
            script.split_inclusive('\n').skip(1).filter(|line| !line.contains("\x1b[")).collect();
        assert_eq!(
            output,
            "project.gitlib.gitline 1\nline 2\n$HOME 'x' \"y\"|[MASKED]\nhttps://gitlab.invalid/group/project.git\n\
             success <a  b>\nmade\n",
            "{shell:?}"
        );
        assert_eq!(
            std::fs::read_dir(world.path("builds/group/project.tmp")).expect("a directory").count(),
            0
        );
    }
}

#[test]
fn the_strategy_decides_what_a_second_job_finds() {
    for (strategy, made, marker, source) in [
        ("fetch", false, true, true),
        ("clone", false, false, true),
        ("none", true, true, true),
        ("empty", true, true, true),
    ] {
        let world = World::new(SHELLS[0]);
        let first = world.payload(&[], &["echo made > made; touch .git/marker; echo changed > name"], &[]);
        assert_eq!(world.run(&first).verdict, Verdict::Success);
        let second = world.payload(&[("GIT_STRATEGY", strategy)], &["ls -A | tr '\\n' ' '; pwd"], &[]);
        let ended = world.run(&second);
        assert_eq!(ended.verdict, Verdict::Success, "{strategy}: {}", ended.log);
        assert_eq!(world.built("made").is_some(), made, "{strategy}");
        assert_eq!(world.built(".git/marker").is_some(), marker, "{strategy}");
        assert_eq!(world.built("name").is_some(), source, "{strategy}");
        if strategy == "empty" {
            let empty = format!("\n{}\n", world.path("builds/group/project-empty"));
            assert!(ended.log.contains(&empty), "an empty directory of its own: {}", ended.log);
        } else if strategy != "none" {
            assert_eq!(world.built("name").as_deref(), Some("project.git"), "{strategy}");
        }
    }
}

#[test]
fn a_failing_script_fails_the_job_after_its_after_script() {
    for shell in SHELLS {
        let world = World::new(shell);
        let payload = world.payload(
            &[],
            &["echo before", "(exit 7)", "echo never"],
            &["echo \"<$CI_JOB_STATUS>\"", "exit 2"],
        );
        let ended = world.run(&payload);
        assert_eq!(ended.verdict, Verdict::Failed(Failure::ExitCode(7)), "{shell:?}: {}", ended.log);
        assert!(ended.log.contains("<failed>\n") && !ended.log.contains("never\n"), "{}", ended.log);
        assert!(
            ended.log.contains("WARNING: after_script failed, but job will continue unaffected: exit code 2")
        );
        assert!(ended.log.ends_with("ERROR: Job failed: exit code 7\x1b[0;m\n"), "{}", ended.log);
    }
}

#[test]
fn sources_are_tried_again_and_without_them_no_script_runs() {
    let world = World::new(SHELLS[0]);
    let mut payload = world.payload(&[("GET_SOURCES_ATTEMPTS", "2")], &["echo never"], &["echo never"]);
    payload.git_info.sha = "0123456789012345678901234567890123456789".into();
    let ended = world.run(&payload);
    assert_eq!(ended.stages, ["prepare_script", "get_sources", "clear_worktree", "cleanup_file_variables"]);
    assert!(matches!(ended.verdict, Verdict::Failed(Failure::ExitCode(_))), "{}", ended.log);

    let payload = world.payload(&[("GIT_SUBMODULE_STRATEGY", "some")], &["echo never"], &[]);
    let ended = world.run(&payload);
    assert!(
        ended
            .log
            .contains("Job failed: unknown GIT_SUBMODULE_STRATEGY `some`: use none, normal or recursive"),
        "{}",
        ended.log
    );
}
