//! Files made to do harm.

use super::{error, load, load_files};

#[test]
fn aliases_cannot_grow_without_bound() {
    let mut text = ".a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        text.push_str(&format!(".a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
    }
    assert!(error(&text).contains("grows too large"));
}

#[test]
fn long_texts_cannot_be_multiplied() {
    let text = format!(".a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 1000].join(", "));
    assert!(error(&text).contains("grows too large"));
}

#[test]
fn extends_cannot_multiply() {
    let mut text = format!(".a: {{ script: [{}] }}\n", ["x"; 2000].join(", "));
    for job in 0..200 {
        text.push_str(&format!("j{job}: {{ extends: .a }}\n"));
    }
    assert!(error(&text).contains("grows too large"));
}

#[test]
fn references_cannot_multiply() {
    let mut text = ".r0: { script: [x, x, x, x, x, x, x, x, x, x] }\n".to_owned();
    for level in 1..9 {
        let reference = format!("!reference [.r{}, script]", level - 1);
        text.push_str(&format!(".r{level}: {{ script: [{}] }}\n", [reference.as_str(); 10].join(", ")));
    }
    assert!(error(&text).contains("grows too large"));
}

#[test]
fn parallel_jobs_cannot_multiply_a_long_script() {
    let mut text = String::new();
    for job in 0..100 {
        text.push_str(&format!("j{job}: {{ parallel: 200, script: [{}] }}\n", ["x"; 100].join(", ")));
    }
    assert!(error(&text).contains("grows too large"));
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    error(&text);
    for opening in ["- ", "? ", "[", "{a: ", "a: [", "!reference [", "&a "] {
        error(&opening.repeat(1_000_000 / opening.len()));
    }
    let text: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(error(&text).contains("64 levels"));
}

#[test]
fn large_files_are_refused() {
    assert!(error(&"#".repeat(2 << 20)).contains("larger than 1024 KiB"));
}

#[test]
fn includes_are_limited() {
    let names: Vec<String> = (0..200).map(|number| format!("f{number}.yml")).collect();
    let mut files: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "x: { script: y }\n")).collect();
    files.push((".gitlab-ci.yml", "include: 'f*.yml'\n"));
    assert!(load_files(&files).unwrap_err().to_string().contains("more than 150 files"));
}

#[test]
fn an_anchor_that_holds_itself_is_refused() {
    error("a: &a [*a]\n");
    error("a: &a { b: *a }\n");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        drop(load(&text));
    }

    #[test]
    fn no_bytes_of_yaml_panic(text in "[-:{}\\[\\]&*!|><a'\"#%@,?\n\t ]{0,80}") {
        drop(load(&text));
    }

    #[test]
    fn no_combination_of_lines_panics(lines in proptest::collection::vec(
        proptest::sample::select(vec![
            "job:", "  script: x", "  script: [a, [b]]", "  extends: job", "  extends: [.t, job]", ".t: &t", "  <<: *t",
            "  parallel: {matrix: [{A: [1, 2], B: []}]}", "  variables: {A: {value: 1, expand: no}}", "default:",
            "  image: {name: }", "  services: [{}, a]", "include: [a, {local: b.yml}]", "stages: [1, a]",
            "  script: !reference [job, script]", "  cache: [{key: {files: []}}]", "  timeout: 1e9 h", "---", "spec: {}",
            "  retry: {max: -1}", "  needs: [{}]", "  inherit: {default: 1}", "  artifacts: {reports: {a: b}}", "? [a]",
        ]),
        0..14,
    )) {
        drop(load(&lines.join("\n")));
    }
}
