//! A real registry.

use serde_json::json;
use tart_registry::{Auth, Registry, RegistryError, RegistrySettings, parse_reference};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, write_index};

fn image(text: &str) -> ImageBuilder {
    ImageBuilder::new()
        .layer(Files::new().file("etc/motd", 0o644, text).tar(), Compression::Gzip)
        .layer(Files::new().file("etc/more", 0o644, text.repeat(100_000)).tar(), Compression::None)
        .config("Env", json!(["GREETING=hello"]))
}

/// Pulls everything of an image.
async fn pull(registry: &TestRegistry, name: &str, auth: &Auth) -> Result<usize, RegistryError> {
    let client = Registry::new(RegistrySettings::default()).unwrap();
    let reference = parse_reference(&registry.reference(name)).unwrap();
    let platform = tart_oci::parse_platform("linux/amd64").unwrap();
    let digest = client.digest(&reference, auth).await?;
    let resolved = client.resolve(&reference, &platform, auth).await?;
    assert_eq!(digest, resolved.index_digest.unwrap_or(resolved.manifest_digest));
    assert_eq!(resolved.config.config().as_ref().unwrap().env().as_ref().unwrap(), &["GREETING=hello"]);
    let directory = tempfile::tempdir().unwrap();
    for (position, layer) in resolved.manifest.layers().iter().enumerate() {
        let file = directory.path().join(position.to_string());
        client.fetch_blob(&resolved.reference, layer, &file, auth, &|_| {}).await?;
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(whole.len() as u64, layer.size());
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        client.fetch_blob(&resolved.reference, layer, &file, auth, &|_| {}).await?;
        assert!(std::fs::read(&file).unwrap() == whole, "the rest is fetched");
    }
    Ok(resolved.manifest.layers().len())
}

fn push(registry: &TestRegistry) {
    let layout = tempfile::tempdir().unwrap();
    image("one").write(layout.path(), "one").unwrap();
    registry.push(layout.path(), "one", "team/oci:1").unwrap();
    registry.push_docker_schema2(layout.path(), "one", "team/docker:1").unwrap();
    let index = tempfile::tempdir().unwrap();
    write_index(index.path(), "all", &[image("arm").architecture("arm64"), image("one")]).unwrap();
    registry.push(index.path(), "all", "team/index:1").unwrap();
}

#[tokio::test]
async fn images_of_all_kinds_are_pulled() {
    let registry = TestRegistry::start(Options::default()).unwrap();
    push(&registry);
    for name in ["team/oci:1", "team/docker:1", "team/index:1"] {
        assert_eq!(pull(&registry, name, &Auth::Anonymous).await.unwrap(), 2, "{name}");
    }
    let ranges = registry.requests().unwrap();
    assert_eq!(ranges.iter().filter(|line| line.ends_with(" 206")).count(), 6, "{ranges:?}");
    let missing = pull(&registry, "team/oci:2", &Auth::Anonymous).await.unwrap_err();
    assert!(matches!(missing, RegistryError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn a_registry_with_users_and_tls_is_for_them() {
    let users = vec![("user".to_owned(), "password".to_owned())];
    let registry = TestRegistry::start(Options { users, tls: true }).unwrap();
    push(&registry);
    let basic = |password: &str| Auth::Basic { user: "user".to_owned(), password: password.to_owned() };
    assert_eq!(pull(&registry, "team/index:1", &basic("password")).await.unwrap(), 2);
    for auth in [Auth::Anonymous, basic("wrong")] {
        let error = pull(&registry, "team/index:1", &auth).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    }
}
