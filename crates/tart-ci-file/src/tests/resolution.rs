//! What files mean.

use super::{load_files, pipeline, show, show_all};

#[test]
fn a_realistic_file_resolves() {
    let found = pipeline(
        r#"
stages: [lint, test, deploy]

variables:
  RUST_BACKTRACE: 1
  VERSION: 1.10
  ENABLED: yes
  PROFILE:
    value: release
    description: Which profile to build
    options: [debug, release]
  LITERAL:
    value: $NOT
    expand: false

default:
  image: rust:1.90
  before_script:
    - rustc --version
  tags: [vm]
  retry: 1
  cache: &cache
    key: { files: [Cargo.lock], prefix: cargo }
    paths: [target/]

.base: &base
  variables: { FROM: base, COLOUR: always }
  timeout: 1h 30m

lint:
  extends: .base
  stage: lint
  script: cargo clippy
  rules:
    - if: $CI_COMMIT_TAG
      when: never

test:
  <<: *base
  image: { name: debian, entrypoint: [""] }
  services:
    - postgres:16
    - name: redis:7
      alias: cache
      command: [redis-server, --save, ""]
  before_script: []
  script:
    - |
      cargo test \
        --workspace
    - [one, [two, [three]]]
  after_script: [echo done]
  cache:
    - *cache
    - key: more
      paths: [more/]
      policy: pull
  needs: [lint, { job: build, optional: true, artifacts: false }]
  artifacts:
    paths: [out/]
    expire_in: 1 week
    reports: { junit: report.xml, coverage_report: { coverage_format: cobertura, path: cov.xml } }

deploy:
  stage: deploy
  script: [./deploy]
  retry: { max: 2, when: [runner_system_failure] }
  when: manual
  inherit: { default: [image], variables: [PROFILE] }
"#,
    );
    assert_eq!(found.stages, [".pre", "lint", "test", "deploy", ".post"]);
    insta::assert_snapshot!(show_all(&found), @r#"
    lint (lint)
      before_script: ["rustc --version"]
      script: ["cargo clippy"]
      tags: ["vm"]
      variables: ["RUST_BACKTRACE=1", "VERSION=1.1", "ENABLED=true", "PROFILE=release", "LITERAL=$NOT (raw)", "FROM=base", "COLOUR=always"]
      image: rust:1.90 None
      timeout: 5400s
      retry: Retry { max: 1, when: [], exit_codes: [] }
      cache: Cache { key: Files { files: ["Cargo.lock"], prefix: Some("cargo") }, paths: ["target/"], untracked: false, policy: None, when: None, fallback_keys: [], unprotect: false }
      raw: {"rules":[{"if":"$CI_COMMIT_TAG","when":"never"}]}
    test (test)
      script: ["cargo test \\\n  --workspace\n", "one", "two", "three"]
      after_script: ["echo done"]
      tags: ["vm"]
      variables: ["RUST_BACKTRACE=1", "VERSION=1.1", "ENABLED=true", "PROFILE=release", "LITERAL=$NOT (raw)", "FROM=base", "COLOUR=always"]
      image: debian Some([""])
      service: postgres:16 None None
      service: redis:7 Some("cache") Some(["redis-server", "--save", ""])
      timeout: 5400s
      retry: Retry { max: 1, when: [], exit_codes: [] }
      needs: [Need { job: "lint", artifacts: true, optional: false }, Need { job: "build", artifacts: false, optional: true }]
      artifacts: Artifacts { name: None, paths: ["out/"], exclude: [], untracked: false, when: None, expire_in: Some("1 week"), reports: [Report { kind: "junit", paths: ["report.xml"] }, Report { kind: "cobertura", paths: ["cov.xml"] }] }
      cache: Cache { key: Files { files: ["Cargo.lock"], prefix: Some("cargo") }, paths: ["target/"], untracked: false, policy: None, when: None, fallback_keys: [], unprotect: false }
      cache: Cache { key: Text("more"), paths: ["more/"], untracked: false, policy: Some("pull"), when: None, fallback_keys: [], unprotect: false }
    deploy (deploy)
      script: ["./deploy"]
      variables: ["PROFILE=release"]
      image: rust:1.90 None
      retry: Retry { max: 2, when: ["runner_system_failure"], exit_codes: [] }
      when: manual
      raw: {"inherit":{"default":["image"],"variables":["PROFILE"]}}
    "#);
}

#[test]
fn extends_merges_maps_and_replaces_lists() {
    let found = pipeline(
        "
.a: { image: a, script: [a], variables: { A: a, X: a }, cache: { paths: [a], key: a } }
.b: { extends: .a, script: [b], variables: { B: b, X: b }, cache: { key: b } }
.c: { tags: [c], variables: { X: c } }
job: { extends: [.b, .c], variables: { J: j } }
",
    );
    insta::assert_snapshot!(show_all(&found), @r#"
    job (test)
      script: ["b"]
      tags: ["c"]
      variables: ["A=a", "X=c", "B=b", "J=j"]
      image: a None
      cache: Cache { key: Text("b"), paths: ["a"], untracked: false, policy: None, when: None, fallback_keys: [], unprotect: false }
    "#);
}

#[test]
fn references_take_scripts_and_values_from_other_jobs() {
    let found = pipeline(
        "
.setup: { script: [one, !reference [.more, script]], image: img }
.more: { script: [two] }
.vars: { variables: { URL: http://x } }
job:
  image: !reference [.setup, image]
  variables: { URL: !reference [.vars, variables, URL] }
  script:
    - !reference [.setup, script]
    - three
  tags: [!reference [.tags, tags], z]
.tags: { tags: [x, y] }
",
    );
    insta::assert_snapshot!(show_all(&found), @r#"
    job (test)
      script: ["one", "two", "three"]
      tags: ["x", "y", "z"]
      variables: ["URL=http://x"]
      image: img None
    "#);
}

#[test]
fn references_see_what_extends_brought() {
    let found = pipeline(
        "
.a: { script: [from a] }
.b: { extends: .a }
job: { script: !reference [.b, script] }
",
    );
    assert_eq!(found.jobs["job"].script, ["from a"]);
}

#[test]
fn merge_keys_take_effect_where_they_stand() {
    let found = pipeline(
        "
.t: &t { image: merged, tags: [merged] }
.u: &u { image: second, when: always }
before: { image: own, <<: *t, script: x }
after: { <<: *t, image: own, script: x }
list: { <<: [*t, *u], script: x }
",
    );
    insta::assert_snapshot!(show_all(&found), @r#"
    before (test)
      script: ["x"]
      tags: ["merged"]
      image: merged None
    after (test)
      script: ["x"]
      tags: ["merged"]
      image: own None
    list (test)
      script: ["x"]
      tags: ["merged"]
      image: merged None
      when: always
    "#);
}

#[test]
fn old_global_keywords_are_defaults() {
    let found =
        pipeline("image: alpine\nbefore_script: [a]\njob: { script: b }\nother: { script: b, image: own }\n");
    insta::assert_snapshot!(show_all(&found), @r#"
    job (test)
      before_script: ["a"]
      script: ["b"]
      image: alpine None
    other (test)
      before_script: ["a"]
      script: ["b"]
      image: own None
    "#);
}

#[test]
fn inherit_false_leaves_everything_out() {
    let found = pipeline(
        "default: { image: alpine }\nvariables: { A: 1 }\njob: { script: b, inherit: { default: false, variables: false } }\n",
    );
    insta::assert_snapshot!(show_all(&found), @r#"
    job (test)
      script: ["b"]
      raw: {"inherit":{"default":false,"variables":false}}
    "#);
}

#[test]
fn parallel_makes_instances() {
    let found = pipeline(
        "
split: { script: x, parallel: 2 }
matrix:
  script: x
  variables: { OS: none }
  parallel:
    matrix:
      - OS: [linux, mac]
        V: [1.0, 2]
      - OS: bsd
",
    );
    insta::assert_snapshot!(show_all(&found), @r#"
    split 1/2 (test)
      script: ["x"]
      instance: 1/2
    split 2/2 (test)
      script: ["x"]
      instance: 2/2
    matrix: [linux, 1.0] (test)
      script: ["x"]
      variables: ["OS=linux", "V=1.0"]
      instance: 1/5
    matrix: [linux, 2] (test)
      script: ["x"]
      variables: ["OS=linux", "V=2"]
      instance: 2/5
    matrix: [mac, 1.0] (test)
      script: ["x"]
      variables: ["OS=mac", "V=1.0"]
      instance: 3/5
    matrix: [mac, 2] (test)
      script: ["x"]
      variables: ["OS=mac", "V=2"]
      instance: 4/5
    matrix: [bsd] (test)
      script: ["x"]
      variables: ["OS=bsd"]
      instance: 5/5
    "#);
}

#[test]
fn the_last_of_two_equal_keys_wins_with_a_warning() {
    let found = pipeline("job:\n  script: a\n  script: b\n");
    assert_eq!(found.jobs["job"].script, ["b"]);
    assert_eq!(found.warnings, [".gitlab-ci.yml:3: `script` is given twice; this one wins over line 2"]);
}

#[test]
fn included_files_lie_below_the_including_one() {
    let found = load_files(&[
        (
            ".gitlab-ci.yml",
            "include:\n  - /ci/base.yml\n  - local: ci/jobs/*.yml\njob:\n  variables: { A: own }\n  script: [own]\n",
        ),
        ("ci/base.yml", "include: ci/deeper.yml\njob: { variables: { A: base, B: base }, script: [base], image: base }\n"),
        ("ci/deeper.yml", "job: { tags: [deep], image: deep }\n"),
        ("ci/jobs/one.yml", "one: { extends: .t }\n"),
        ("ci/jobs/two.yml", ".t: { script: from two }\n"),
        ("ci/jobs/sub/three.yml", "three: { script: x }\n"),
    ])
    .unwrap();
    insta::assert_snapshot!(show_all(&found), @r#"
    job (test)
      script: ["own"]
      tags: ["deep"]
      variables: ["A=own", "B=base"]
      image: base None
    one (test)
      script: ["from two"]
    "#);
}

#[test]
fn every_file_below_a_directory_can_be_included() {
    let found = load_files(&[
        (".gitlab-ci.yml", "include: 'ci/**.yml'\n"),
        ("ci/a.yml", "a: { script: x }\n"),
        ("ci/x/y/b.yml", "b: { script: x }\n"),
        ("other.yml", "c: { script: x }\n"),
    ])
    .unwrap();
    assert_eq!(found.jobs.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn jobs_for_the_server_are_kept_but_marked() {
    let found = pipeline("job: { trigger: group/project }\nsteps: { run: [{ name: a, script: b }] }\n");
    assert!(found.jobs.values().all(|job| job.not_runnable.is_some()));
    insta::assert_snapshot!(show(&found.jobs["job"]), @r#"
    job (test)
      raw: {"trigger":"group/project"}
    "#);
}
