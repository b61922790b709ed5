//! The registry as skopeo sees it.

use std::process::Command;

use serde_json::json;
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples, write_index};

fn image(text: &str) -> ImageBuilder {
    let tar = Files::new().file("etc/motd", 0o644, text).tar();
    ImageBuilder::new().layer(tar, Compression::Gzip).config("Env", json!(["A=b"]))
}

fn inspect(arguments: &[&str], reference: &str) -> std::process::Output {
    let mut command = Command::new("skopeo");
    command.arg("inspect").args(arguments).arg(format!("docker://{reference}"));
    command.output().unwrap()
}

#[test]
fn an_image_is_pushed_and_found_again_after_a_restart() {
    let mut registry = TestRegistry::start(Options::default()).unwrap();
    let layout = tempfile::tempdir().unwrap();
    samples::busybox().unwrap().write(layout.path(), "one").unwrap();
    registry.push(layout.path(), "one", "library/busybox:1").unwrap();
    registry.push_docker_schema2(layout.path(), "one", "library/busybox:docker").unwrap();

    registry.restart().unwrap();
    for tag in ["1", "docker"] {
        let reference = registry.reference(&format!("library/busybox:{tag}"));
        let output = inspect(&["--tls-verify=false"], &reference);
        assert!(output.status.success(), "{output:?}\n{}", registry.log());
    }
    let requests = registry.requests().unwrap();
    assert!(
        requests.iter().any(|line| line == "GET /v2/library/busybox/manifests/1 HTTP/1.1 200"),
        "{requests:?}"
    );
}

#[test]
fn an_index_has_an_image_for_each_processor() {
    let registry = TestRegistry::start(Options::default()).unwrap();
    let layout = tempfile::tempdir().unwrap();
    write_index(layout.path(), "all", &[image("amd64"), image("arm64").architecture("arm64")]).unwrap();
    registry.push(layout.path(), "all", "multi:latest").unwrap();
    let output = inspect(&["--tls-verify=false", "--raw"], &registry.reference("multi:latest"));
    let index: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn users_and_certificates_are_checked() {
    let users = vec![("ci".to_owned(), "right".to_owned())];
    let registry = TestRegistry::start(Options { users, tls: true }).unwrap();
    let layout = tempfile::tempdir().unwrap();
    image("secret").write(layout.path(), "one").unwrap();
    registry.push(layout.path(), "one", "private:1").unwrap();

    let certificates = tempfile::tempdir().unwrap();
    std::fs::copy(registry.ca_file(), certificates.path().join("ca.crt")).unwrap();
    let certificates = format!("--cert-dir={}", certificates.path().display());
    let reference = registry.reference("private:1");
    let output = inspect(&[&certificates, "--creds=ci:right"], &reference);
    assert!(output.status.success(), "{output:?}");
    assert!(!inspect(&[&certificates, "--creds=ci:wrong"], &reference).status.success());
    assert!(!inspect(&["--creds=ci:right"], &reference).status.success(), "the certificate is not trusted");
}
