//! What users read.

use super::{error, load_files, pipeline};

#[test]
fn an_unknown_job_lists_the_jobs() {
    let found = pipeline("build: { script: x }\ntest: { script: x, parallel: 2 }\n");
    insta::assert_snapshot!(found.job("biuld").unwrap_err(), @"
    there is no job `biuld`; did you mean `build`?
    jobs in this file:
      build
      test 1/2
      test 2/2
    ");
    insta::assert_snapshot!(found.job("test").unwrap_err(), @"
    there is no job `test`, but it has instances: name one of them, such as `test 1/2`
    jobs in this file:
      build
      test 1/2
      test 2/2
    ");
}

#[test]
fn mistakes_in_jobs_name_the_job_and_the_line() {
    insta::assert_snapshot!(error("job:\n  stage: tset\n  script: x\n"), @".gitlab-ci.yml:2: job `job`: there is no stage `tset` (did you mean `test`?); the stages are `.pre`, `build`, `test`, `deploy`, `.post`");
    insta::assert_snapshot!(error("job:\n  scripts: x\n"), @".gitlab-ci.yml:2: job `job`: unknown keyword `scripts`; did you mean `script`?");
    insta::assert_snapshot!(error("job:\n  image: alpine\n"), @".gitlab-ci.yml:2: job `job`: there is no `script`; every job needs one");
    insta::assert_snapshot!(error("job:\n  script:\n    - echo\n    - a: b\n"), @".gitlab-ci.yml:4: job `job`: `script` must hold strings, not a map; put a command with `: ` in it into quotes");
    insta::assert_snapshot!(error("job: make\n"), @".gitlab-ci.yml:1: `job` must be a job, which is a map with a `script`, not a string");
    insta::assert_snapshot!(error("stage: [a, b]\njob: { script: x }\n"), @".gitlab-ci.yml:1: `stage` must be a job, which is a map with a `script`, not a list; did you mean `stages`?");
    insta::assert_snapshot!(error("job:\n  script: x\n  timeout: soon\n"), @".gitlab-ci.yml:3: job `job`: `timeout` must be a duration such as `1h 30m`, not `soon`");
    insta::assert_snapshot!(error("job:\n  script: x\n  retry: 3\n"), @".gitlab-ci.yml:3: job `job`: `retry` must be 0, 1 or 2");
    insta::assert_snapshot!(error("job:\n  script: x\n  needs: [biuld]\nbuild: { script: x }\n"), @".gitlab-ci.yml:2: job `job`: needs `biuld`, which does not exist; did you mean `build`?");
    insta::assert_snapshot!(error("job:\n  script: x\n  variables: { A: [1] }\n"), @".gitlab-ci.yml:3: job `job`: `variables:A` must be a string, a number or a boolean, not a list");
    insta::assert_snapshot!(error("job:\n  script: x\n  parallel: 500\n"), @".gitlab-ci.yml:3: job `job`: `parallel` must be a number from 1 to 200 or a `matrix`");
    insta::assert_snapshot!(error("job:\n  script: x\n  cache: { polcy: pull }\n"), @".gitlab-ci.yml:3: job `job`: unknown key of `cache` `polcy`; did you mean `policy`?");
    insta::assert_snapshot!(error("job:\n  script: x\n  image: { name: a, pull_policy: sometimes }\n"), @".gitlab-ci.yml:3: job `job`: `image:pull_policy` must be `always`, `if-not-present` or `never`, not `sometimes`");
    insta::assert_snapshot!(error("default: { image: a }\nimage: b\njob: { script: x }\n"), @".gitlab-ci.yml:2: `image` is given both here and in `default`: remove this one");
}

#[test]
fn mistakes_in_yaml_have_a_line() {
    insta::assert_snapshot!(error("job:\n  script: [a\nother: b\n"), @".gitlab-ci.yml:3: the file is not valid YAML: illegal placement of ':' indicator");
    insta::assert_snapshot!(error("job:\n  script: *nowhere\n"), @".gitlab-ci.yml:2: the file is not valid YAML: while parsing node, found unknown anchor");
    insta::assert_snapshot!(error("job:\n  script: !vault x\n"), @".gitlab-ci.yml:2: the tag `!vault` is not known here; GitLab knows `!reference [job, key]`");
    insta::assert_snapshot!(error("job: { script: a }\n---\njob: { script: b }\n"), @".gitlab-ci.yml:3: a CI file is one YAML document: remove the `---` in its middle");
    insta::assert_snapshot!(error(""), @".gitlab-ci.yml:1: there is no job in this file; names that begin with `.` are templates");
    insta::assert_snapshot!(error("- a\n"), @".gitlab-ci.yml:1: a CI file must be a map of jobs and keywords");
    insta::assert_snapshot!(error(".a: { script: x }\n"), @".gitlab-ci.yml:1: there is no job in this file; names that begin with `.` are templates");
}

#[test]
fn extends_and_references_that_lead_nowhere_are_explained() {
    insta::assert_snapshot!(error(".base: { script: x }\njob:\n  extends: .bas\n"), @".gitlab-ci.yml:3: `job` extends `.bas`, which does not exist; did you mean `.base`?");
    insta::assert_snapshot!(error("a: { extends: b }\nb: { extends: a }\n"), @".gitlab-ci.yml:2: `extends` goes round in a circle: a -> b -> a");
    insta::assert_snapshot!(error(".s: { script: x }\njob:\n  script: !reference [.s, scrpt]\n"), @".gitlab-ci.yml:3: `!reference [.s, scrpt]`: there is no `scrpt`; did you mean `script`?");
    insta::assert_snapshot!(error("a: { script: !reference [b, script] }\nb: { script: !reference [a, script] }\n"), @".gitlab-ci.yml:1: `!reference [b, script]` leads back to itself");
}

#[test]
fn extends_has_eleven_levels_at_most() {
    let chain = |length: usize| {
        let mut text = "j0: { script: x }\n".to_owned();
        for level in 1..=length {
            text.push_str(&format!("j{level}: {{ extends: j{} }}\n", level - 1));
        }
        text
    };
    assert_eq!(pipeline(&chain(10)).jobs["j10"].script, ["x"]);
    insta::assert_snapshot!(error(&chain(11)), @".gitlab-ci.yml:12: `extends` is nested more than 10 levels deep");
    let reversed: String = chain(11).lines().rev().map(|line| format!("{line}\n")).collect();
    assert!(error(&reversed).contains("more than 10 levels deep"));
}

#[test]
fn includes_that_need_the_network_say_what_to_do() {
    insta::assert_snapshot!(error("include:\n  - remote: https://example.com/a.yml\n"), @".gitlab-ci.yml:2: `include:remote` (https://example.com/a.yml) is not in this repository, and nothing is fetched from the network: save a copy of the file in the repository and include it with `local:`");
    insta::assert_snapshot!(error("include: https://example.com/a.yml\n"), @".gitlab-ci.yml:1: `include:remote` (https://example.com/a.yml) is not in this repository, and nothing is fetched from the network: save a copy of the file in the repository and include it with `local:`");
    insta::assert_snapshot!(error("include:\n  - template: Auto-DevOps.gitlab-ci.yml\n"), @".gitlab-ci.yml:2: `include:template` (Auto-DevOps.gitlab-ci.yml) is not in this repository, and nothing is fetched from the network: save a copy of the file in the repository and include it with `local:`");
    insta::assert_snapshot!(error("include:\n  project: a/b\n  file: c.yml\n"), @".gitlab-ci.yml:2: `include:project` (a/b) is not in this repository, and nothing is fetched from the network: save a copy of the file in the repository and include it with `local:`");
    insta::assert_snapshot!(error("include:\n  - component: gitlab.com/a/b@1\n"), @".gitlab-ci.yml:2: `include:component` (gitlab.com/a/b@1) is not in this repository, and nothing is fetched from the network: save a copy of the file in the repository and include it with `local:`");
}

#[test]
fn includes_that_do_not_work_are_explained() {
    insta::assert_snapshot!(error("include: none.yml\n"), @".gitlab-ci.yml:1: cannot include `none.yml`: there is no such file");
    insta::assert_snapshot!(error("include: none/*.yml\n"), @".gitlab-ci.yml:1: no file matches `none/*.yml`");
    insta::assert_snapshot!(error("include: ci/$NAME.yml\n"), @".gitlab-ci.yml:1: the path `ci/$NAME.yml` has a variable that is not known here; those of the file itself are not known yet when files are included");
    insta::assert_snapshot!(error("include: ci.json\n"), @".gitlab-ci.yml:1: `ci.json` cannot be included: its name must end in `.yml` or `.yaml`");
    insta::assert_snapshot!(error("include: .gitlab-ci.yml\n"), @".gitlab-ci.yml:1: `.gitlab-ci.yml` includes itself: .gitlab-ci.yml -> .gitlab-ci.yml");
    insta::assert_snapshot!(error("spec:\n  inputs:\n    a:\n---\njob: { script: x }\n"), @".gitlab-ci.yml:2: files with a `spec:` header take inputs, which are not supported locally: write the values into the file, or run the pipeline on GitLab");
    let nested = load_files(&[
        (".gitlab-ci.yml", "include: a.yml\n"),
        ("a.yml", "include: b.yml\n"),
        ("b.yml", "\n\ninclude: a.yml\n"),
    ]);
    insta::assert_snapshot!(nested.unwrap_err(), @"b.yml:3: `a.yml` includes itself: .gitlab-ci.yml -> a.yml -> b.yml -> a.yml");
}

#[test]
fn inputs_of_jobs_need_a_default_of_their_type() {
    insta::assert_snapshot!(error("a:\n  script: x\n  inputs:\n    n: {}\n"), @".gitlab-ci.yml:4: job `a`: `inputs:n` has no `default`; inputs of jobs need one");
    insta::assert_snapshot!(error("a:\n  script: x\n  inputs:\n    n: { default: 3 }\n"), @".gitlab-ci.yml:4: job `a`: `inputs:n:default` must be of the type string, not a number");
    insta::assert_snapshot!(error("a:\n  script: x\n  inputs:\n    n: { default: 3, tpye: number }\n"), @".gitlab-ci.yml:4: job `a`: unknown key of `inputs:n` `tpye`; did you mean `type`?");
}
