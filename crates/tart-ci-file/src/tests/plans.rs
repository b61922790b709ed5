//! Which jobs a pipeline has for an event.

use super::{error, payload::context, pipeline};
use crate::{ExecContext, MergeRequest, Plan, Source, WorkTree};

/// A repository in which `README.md` and `src/a.rs` are, the latter changed since the last push.
struct Tree {
    changed: Option<Vec<String>>,
}

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

impl Tree {
    fn new() -> Self {
        Self { changed: Some(paths(&["src/a.rs"])) }
    }
}

impl WorkTree for Tree {
    fn changed(&self) -> Option<Vec<String>> {
        self.changed.clone()
    }

    fn changed_since(&self, reference: &str) -> Result<Vec<String>, String> {
        match reference {
            "main" => Ok(paths(&["README.md"])),
            _ => Err("there is no such branch".into()),
        }
    }

    fn files(&self) -> Vec<String> {
        paths(&["README.md", "src/a.rs"])
    }
}

fn branch(name: &str) -> ExecContext {
    let mut context = context();
    context.commit.ref_name = name.into();
    context
}

fn tag(name: &str) -> ExecContext {
    let mut context = branch(name);
    context.commit.is_tag = true;
    context
}

fn request() -> ExecContext {
    let mut context = branch("feature");
    context.source = Source::MergeRequestEvent;
    context.merge_request = Some(MergeRequest {
        target_branch: "main".into(),
        target_sha: String::new(),
        base_sha: "1".repeat(40),
    });
    context
}

fn plan(text: &str, context: &ExecContext) -> Plan {
    pipeline(text).plan(context, &Tree::new()).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of the jobs, with what is unusual about them.
fn jobs(text: &str, context: &ExecContext) -> String {
    let plan = plan(text, context);
    let job = |planned: &crate::PlannedJob| {
        let when = planned.job.when.as_str();
        let when = if when == "on_success" { String::new() } else { format!(":{when}") };
        format!("{}{when}", planned.job.name)
    };
    plan.jobs.iter().map(job).collect::<Vec<_>>().join(" ")
}

/// The plan in full.
fn show(plan: &Plan) -> String {
    let mut text = String::new();
    for line in plan.name.iter().chain(&plan.refused).chain(&plan.notes) {
        text.push_str(&format!("# {line}\n"));
    }
    for planned in &plan.jobs {
        let job = &planned.job;
        text.push_str(&format!("{} ({}): {}\n", job.name, job.when.as_str(), planned.reason));
        if let Some(needs) = &planned.needs {
            text.push_str(&format!("  needs {needs:?}\n"));
        }
        if !planned.artifacts_of.is_empty() {
            text.push_str(&format!("  artifacts of {:?}\n", planned.artifacts_of));
        }
    }
    for (name, why) in &plan.left_out {
        text.push_str(&format!("- {name}: {why}\n"));
    }
    text
}

#[test]
fn the_first_rule_that_holds_decides() {
    let text = "
variables: { DEPLOY: 'no', PATTERN: '/^release/' }
always: { script: x }
on-main: { script: x, rules: [{ if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH }] }
tagged: { script: x, rules: [{ if: $CI_COMMIT_TAG =~ '/^v/' }] }
release: { script: x, rules: [{ if: $CI_COMMIT_BRANCH =~ $PATTERN, when: manual }] }
not-main: { script: x, rules: [{ if: $CI_COMMIT_BRANCH == 'main', when: never }, { when: always }] }
deploy: { script: x, variables: { DEPLOY: 'yes' }, rules: [{ if: $DEPLOY == 'yes', when: delayed, start_in: 1 hour }] }
by-hand: { script: x, rules: [{ if: $GIVEN }] }
never: { script: x, rules: [] }
mr: { script: x, rules: [{ if: $CI_PIPELINE_SOURCE == 'merge_request_event' && $CI_MERGE_REQUEST_TARGET_BRANCH_NAME == 'main' }] }
";
    assert_eq!(jobs(text, &branch("main")), "always on-main deploy:delayed by-hand");
    assert_eq!(
        jobs(text, &branch("release-1")),
        "always release:manual not-main:always deploy:delayed by-hand"
    );
    assert_eq!(jobs(text, &tag("v1")), "always tagged not-main:always deploy:delayed by-hand");
    assert_eq!(jobs(text, &request()), "not-main:always deploy:delayed by-hand mr");
}

#[test]
fn files_are_asked_for() {
    let text = "
variables: { DIR: src, DEEP: '$DIR/**/*' }
rust: { script: x, rules: [{ changes: ['**/*.{rs,toml}'] }] }
docs: { script: x, rules: [{ changes: ['*.md'] }] }
dir: { script: x, rules: [{ changes: { paths: [$DEEP] } }] }
since: { script: x, rules: [{ changes: { paths: ['*.md'], compare_to: main } }] }
readme: { script: x, rules: [{ exists: ['README.*'] }] }
exact: { script: x, rules: [{ exists: ['$DIR/a.rs'] }] }
docker: { script: x, rules: [{ exists: [Dockerfile] }] }
both: { script: x, rules: [{ if: $DIR, changes: ['*.md'], exists: [README.md] }] }
elsewhere: { script: x, rules: [{ exists: { project: a/b, paths: [README.md] } }] }
old: { script: x, only: { changes: ['*.md'] } }
";
    assert_eq!(jobs(text, &branch("main")), "rust dir since readme exact");
    let unknown = Tree { changed: None };
    let all = pipeline(text).plan(&branch("main"), &unknown).unwrap();
    let names: Vec<&str> = all.jobs.iter().map(|planned| planned.job.name.as_str()).collect();
    assert_eq!(names, ["rust", "docs", "dir", "since", "readme", "exact", "both", "old"]);
    insta::assert_snapshot!(all.notes.join("\n"), @".gitlab-ci.yml:11: `exists:project` asks for files of another project, which count as absent");
}

#[test]
fn only_and_except_choose_refs_variables_and_changes() {
    let text = "
default: {}
plain: { script: x }
tags: { script: x, only: [tags] }
branches: { script: x, only: [branches], except: [main] }
named: { script: x, only: [main, /^rel-.*$/i] }
requests: { script: x, only: [merge_requests] }
nightly: { script: x, only: { refs: [schedules], variables: ['$GIVEN', '$NONE'] } }
fork: { script: x, only: ['main@other/project'] }
ours: { script: x, only: ['main@group/sub/project'] }
unless: { script: x, except: { variables: ['$GIVEN == \"by hand\"'] } }
cluster: { script: x, only: { kubernetes: active } }
";
    assert_eq!(jobs(text, &branch("main")), "plain named ours");
    assert_eq!(jobs(text, &branch("REL-1")), "plain branches named");
    assert_eq!(jobs(text, &tag("v1")), "plain tags");
    assert_eq!(jobs(text, &request()), "requests");
    let mut nightly = branch("main");
    nightly.source = Source::Schedule;
    assert_eq!(jobs(text, &nightly), "plain named nightly ours");
}

#[test]
fn rules_set_variables_needs_and_what_may_fail() {
    let text = "
workflow: { rules: [{ if: $CI_COMMIT_TAG, variables: { KIND: release, OWN: workflow } }, { when: always }] }
variables: { KIND: snapshot }
a: { script: x }
b:
  script: x
  variables: { OWN: job }
  needs: [a]
  rules:
    - { if: $KIND == 'release', variables: { EXTRA: more }, needs: [], allow_failure: true }
    - { when: on_success }
c: { script: x, when: manual }
d: { script: x, rules: [{ when: manual }] }
e: { script: x, allow_failure: { exit_codes: [3, 4] }, resource_group: '$KIND-$NONE' }
";
    let find = |plan: &Plan, name: &str| plan.jobs.iter().find(|job| job.job.name == name).cloned().unwrap();
    let release = plan(text, &tag("v1"));
    let b = find(&release, "b");
    let values: Vec<String> =
        b.job.variables.iter().map(|(name, variable)| format!("{name}={}", variable.value)).collect();
    assert_eq!(values, ["KIND=release", "OWN=job", "EXTRA=more"]);
    assert_eq!((b.needs, b.job.allow_failure), (Some(vec![]), crate::AllowFailure::Yes));
    let snapshot = plan(text, &branch("main"));
    assert_eq!(find(&snapshot, "b").needs, Some(vec![0]));
    assert_eq!(find(&snapshot, "c").job.allow_failure, crate::AllowFailure::Yes);
    assert_eq!(find(&snapshot, "d").job.allow_failure, crate::AllowFailure::No);
    let e = find(&snapshot, "e").job;
    assert_eq!(e.allow_failure, crate::AllowFailure::ExitCodes(vec![3, 4]));
    assert_eq!(e.resource_group.as_deref(), Some("snapshot-$NONE"));
}

#[test]
fn the_workflow_names_and_refuses_pipelines() {
    let text = "
workflow:
  name: 'Build of $CI_COMMIT_REF_NAME'
  rules: [{ if: $CI_COMMIT_TAG, when: never }, { if: $CI_COMMIT_BRANCH }]
a: { script: x }
";
    insta::assert_snapshot!(show(&plan(text, &branch("main"))), @"
    # Build of main
    a (on_success): no condition
    ");
    insta::assert_snapshot!(show(&plan(text, &tag("v1"))), @"
    # Build of v1
    # the rule at .gitlab-ci.yml:4 (`$CI_COMMIT_TAG`) of `workflow` says `when: never`
    a (on_success): no condition
    ");
    insta::assert_snapshot!(show(&plan(text, &request())), @"
    # Build of feature
    # no rule of `workflow` holds
    - a: without `rules` or `only`, it runs for branches and tags, not for merge requests
    ");
    let last = "z: { script: x, stage: .post }\n";
    assert_eq!(plan(last, &branch("main")).refused.as_deref(), Some("no job is for it"));
}

#[test]
fn reasons_are_told_and_artifacts_follow_needs_and_dependencies() {
    let text = "
stages: [one, two, three]
a: { stage: one, script: x, parallel: { matrix: [{ OS: [linux, mac], V: '1' }] } }
b: { stage: one, script: x, rules: [{ if: $GIVEN, when: on_failure }] }
c: { stage: two, script: x, needs: [{ job: a, artifacts: false }, b, { job: gone, optional: true }] }
d: { stage: two, script: x, needs: [{ job: a, parallel: { matrix: [{ OS: mac, V: '1' }] } }] }
e: { stage: three, script: x, dependencies: [b, c] }
f: { stage: three, script: x, dependencies: [] }
g: { stage: three, script: x }
gone: { stage: one, script: x, only: [tags] }
skipped: { stage: one, script: x, except: [branches] }
";
    insta::assert_snapshot!(show(&plan(text, &branch("main"))), @"
    a: [linux, 1] (on_success): no condition
    a: [mac, 1] (on_success): no condition
    b (on_failure): the rule at .gitlab-ci.yml:4 (`$GIVEN`)
    c (on_success): no condition
      needs [0, 1, 2]
      artifacts of [2]
    d (on_success): no condition
      needs [1]
      artifacts of [1]
    e (on_success): no condition
      artifacts of [2, 3]
    f (on_success): no condition
    g (on_success): no condition
      artifacts of [0, 1, 2, 3, 4]
    - gone: `only` at .gitlab-ci.yml:10 does not take pushes to the branch `main`
    - skipped: `except` at .gitlab-ci.yml:11 leaves out pushes to the branch `main`
    ");
}

#[test]
fn includes_have_conditions_and_variables() {
    let files = load_for(
        &[
            (
                ".gitlab-ci.yml",
                "include:\n  - local: 'ci/$CI_DEFAULT_BRANCH.yml'\n  - { local: tags.yml, rules: [{ if: $CI_COMMIT_TAG }] }\n",
            ),
            ("ci/main.yml", "a: { script: x }\n"),
            ("tags.yml", "b: { script: x }\n"),
        ],
        &branch("main"),
    );
    assert_eq!(files.unwrap().jobs.keys().collect::<Vec<_>>(), ["a"]);
}

fn load_for(files: &[(&str, &str)], context: &ExecContext) -> crate::Result<crate::Pipeline> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    crate::Pipeline::load_for(&super::Memory(files), ".gitlab-ci.yml", context, &Tree::new())
}

#[test]
fn one_job_alone_has_what_its_rules_say() {
    let text = "
a: { script: x, rules: [{ if: $GIVEN, variables: { A: '1' } }] }
b: { script: x, rules: [{ if: $NONE }] }
";
    let found = pipeline(text);
    let alone = found.select("a", &branch("main"), &Tree::new()).unwrap();
    assert_eq!((alone.job.variables["A"].value.as_str(), alone.left_out), ("1", None));
    let alone = found.select("b", &branch("main"), &Tree::new()).unwrap();
    assert_eq!(alone.left_out.as_deref(), Some("no rule holds"));
    assert!(found.select("c", &branch("main"), &Tree::new()).is_err());
}

#[test]
fn one_job_alone_gets_artifacts_of_those_that_are_in_the_pipeline() {
    let text = "
stages: [one, two]
a: { stage: one, script: x }
b: { stage: one, script: x, only: [tags] }
broken: { stage: one, script: x, rules: [{ changes: { paths: [x], compare_to: nowhere } }] }
c: { stage: two, script: x }
d: { stage: two, script: x, needs: [b, { job: c, artifacts: false }] }
e: { stage: two, script: x, only: [tags] }
";
    let found = pipeline(text);
    let names = |job: &str, context: &ExecContext| -> Vec<String> {
        let selection = found.select(job, context, &Tree::new()).unwrap();
        selection.artifacts_of.into_iter().map(|job| job.name).collect()
    };
    assert_eq!(names("c", &branch("main")), ["a"]);
    assert_eq!(names("d", &branch("main")), [""; 0]);
    assert_eq!(names("e", &branch("main")), ["a"], "also if it is not in the pipeline itself");
    let mut tag = branch("v1");
    tag.commit.is_tag = true;
    assert_eq!(names("c", &tag), ["a", "b"]);
    assert_eq!(names("d", &tag), ["b"]);
}

#[test]
fn mistakes_in_conditions_have_a_line() {
    insta::assert_snapshot!(error("job:\n  script: x\n  rules:\n    - if: $A = 'x'\n"), @".gitlab-ci.yml:4: job `job`: `rules:if: $A = 'x'`: `=` is no operator: write `==`");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules:\n    - { iff: $A }\n"), @".gitlab-ci.yml:4: job `job`: unknown key of `rules` `iff`; did you mean `if`?");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules:\n    - { if: $A, when: sometimes }\n"), @".gitlab-ci.yml:4: job `job`: `rules:when` must be one of on_success, on_failure, always, manual, delayed, never, not `sometimes`");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules:\n    - { when: delayed }\n"), @".gitlab-ci.yml:4: job `job`: `start_in` and `when: delayed` belong together");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules: { if: $A }\n"), @".gitlab-ci.yml:3: job `job`: `rules` must be a list of maps, not a map");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules: [{ changes: { compare_to: main } }]\n"), @".gitlab-ci.yml:3: job `job`: `rules:changes` has no `paths`");
    insta::assert_snapshot!(error("job:\n  script: x\n  rules: [{ when: always }]\n  only: [main]\n"), @".gitlab-ci.yml:4: job `job`: `only` and `except` cannot be used together with `rules`");
    insta::assert_snapshot!(error("job:\n  script: x\n  only: ['/(/']\n"), @".gitlab-ci.yml:3: job `job`: `only`: the pattern `/(/` is not valid: unclosed group");
    insta::assert_snapshot!(error("job:\n  script: x\n  only: { variables: ['$A ='] }\n"), @".gitlab-ci.yml:3: job `job`: `only:variables: $A =`: `=` is no operator: write `==`");
    insta::assert_snapshot!(error("job:\n  script: x\n  allow_failure: { exit_codes: x }\n"), @".gitlab-ci.yml:3: job `job`: `allow_failure:exit_codes` must be a number or a list of numbers, not a string");
    insta::assert_snapshot!(error("workflow:\n  rules: [{ when: manual }]\njob: { script: x }\n"), @".gitlab-ci.yml:2: `workflow`: `rules:when` must be one of always, never, not `manual`");
}

#[test]
fn plans_that_cannot_be_are_explained() {
    let refuse = |text: &str| pipeline(text).plan(&branch("main"), &Tree::new()).unwrap_err().to_string();
    insta::assert_snapshot!(refuse("a: { script: x, only: [tags] }\nb:\n  script: x\n  needs: [a]\n"), @".gitlab-ci.yml:3: job `b`: needs `a`, which is not in this pipeline (`only` at .gitlab-ci.yml:1 does not take pushes to the branch `main`); `optional: true` lets it run without that job");
    insta::assert_snapshot!(refuse("a: { script: x, needs: [b] }\nb: { script: x, needs: [a] }\n"), @".gitlab-ci.yml:1: these jobs need one another in a circle: `a`, `b`");
    insta::assert_snapshot!(refuse("a: { script: x, stage: build, needs: [b] }\nb: { script: x }\n"), @".gitlab-ci.yml:1: job `a`: needs `b`, which is in the later stage `test`");
    insta::assert_snapshot!(refuse("a:\n  script: x\n  rules:\n    - changes: { paths: [x], compare_to: nowhere }\n"), @".gitlab-ci.yml:4: `rules:changes`: cannot compare with `nowhere`: there is no such branch");
}
