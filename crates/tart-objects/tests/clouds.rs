//! Archives in Google Cloud Storage and Azure Blob Storage, whose signatures the stores check with code of their own.

mod support;

use std::io::Write;

use tart_objects::{AzureSettings, GcsSettings, ObjectError, ObjectStore, Transfer};
use tart_test_objects::{CloudServer, Seen};

use support::{LIMIT, archive, bytes, contents};

fn gcs(server: &CloudServer) -> GcsSettings {
    GcsSettings {
        bucket: "caches".into(),
        access_id: server.account().into(),
        private_key: server.key().into(),
        endpoint: server.url().parse().ok(),
        ..GcsSettings::default()
    }
}

fn azure(server: &CloudServer) -> AzureSettings {
    AzureSettings {
        account: server.account().into(),
        key: server.key().into(),
        container: "caches".into(),
        endpoint: server.url().parse().ok(),
        ..AzureSettings::default()
    }
}

/// A store of each kind.
async fn both() -> [(CloudServer, ObjectStore); 2] {
    let google = CloudServer::google("caches").await.unwrap();
    let microsoft = CloudServer::azure("caches").await.unwrap();
    let stores = [ObjectStore::gcs(&gcs(&google)).unwrap(), ObjectStore::azure(&azure(&microsoft)).unwrap()];
    let [first, second] = stores;
    [(google, first), (microsoft, second)]
}

fn header<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let odd = "project/1/é +&=%2f~*'()!@$,;:#?[]/x y";
    for (server, store) in both().await {
        for (name, bytes) in [("project/1/main", large.as_slice()), (odd, b"odd"), ("project/1/empty", b"")] {
            let missing = contents(&store, name).await;
            assert!(matches!(missing, Err(ObjectError::Missing)), "{store:?} {name} {missing:?}");
            store.put(name, "main", &archive(bytes), LIMIT).await.unwrap();
            assert_eq!(contents(&store, name).await.unwrap(), bytes, "{store:?} {name}");
        }
        store.put("project/1/main", "é", &archive(b"new"), LIMIT).await.unwrap();
        assert_eq!(contents(&store, "project/1/main").await.unwrap(), b"new");
        assert_eq!(server.objects(), ["project/1/empty", "project/1/main", odd]);
        let seen = server.seen();
        let puts: Vec<_> = seen.iter().filter(|seen| seen.method == "PUT").collect();
        assert_eq!(header(puts[0], "content-length"), Some("1200000"));
        assert_eq!(header(puts[0], "content-type"), Some("application/octet-stream"));
        assert_eq!(header(puts[0], "authorization"), None);
        let key = |seen: &Seen| {
            let headers = ["x-goog-meta-cachekey", "x-ms-meta-cachekey"];
            headers.iter().find_map(|name| header(seen, name).map(str::to_owned))
        };
        assert_eq!(key(puts[0]).as_deref(), Some("main"));
        // No header can say this key.
        assert_eq!(key(puts[3]), None);
    }
}

#[tokio::test]
async fn pieces_make_the_same_object() {
    // Two pieces and a bit, none like the other.
    let large: Vec<u8> = (0..(9_u32 << 20) / 4).flat_map(u32::to_be_bytes).collect();
    for (server, store) in both().await {
        for (name, content) in [("large", large.as_slice()), ("small", b"small"), ("empty", b"")] {
            let missing = store.get(name, Transfer::InPieces, LIMIT).await.err();
            assert!(matches!(missing, Some(ObjectError::Missing)), "{missing:?}");
            store.put(name, name, &archive(content), LIMIT).await.unwrap();
            let download = store.get(name, Transfer::InPieces, LIMIT).await.unwrap();
            assert!(bytes(download).await.unwrap() == content, "{store:?} {name}");
        }
        let mut asked: Vec<_> = server
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with("/large") && seen.status == 206)
            .filter_map(|seen| header(seen, "range").map(str::to_owned))
            .collect();
        asked.sort_unstable();
        assert_eq!(asked, ["bytes=0-4194303", "bytes=4194304-8388607", "bytes=8388608-9437183"]);
    }
}

#[tokio::test]
async fn pieces_of_two_objects_are_not_mixed() {
    let large = vec![1; 9 << 20];
    for (_server, store) in both().await {
        store.put("x", "x", &archive(&large), LIMIT).await.unwrap();
        let download = store.get("x", Transfer::InPieces, LIMIT).await.unwrap();
        store.put("x", "x", &archive(&vec![2; 9 << 20]), LIMIT).await.unwrap();
        let error = bytes(download).await.unwrap_err();
        insta::allow_duplicates! {
            insta::assert_snapshot!(error.to_string(), @"the file was replaced while it was read");
        }
    }
}

#[tokio::test]
async fn other_keys_and_buckets_are_refused_at_once() {
    let server = CloudServer::google("caches").await.unwrap();
    let other = CloudServer::google("caches").await.unwrap();
    let refused = |settings: GcsSettings| async move {
        let store = ObjectStore::gcs(&settings).unwrap();
        store.put("x", "x", &archive(b"x"), LIMIT).await.unwrap_err().to_string()
    };
    let wrong = GcsSettings { private_key: other.key().into(), ..gcs(&server) };
    insta::assert_snapshot!(refused(wrong).await, @"Received: 403 Forbidden (SignatureDoesNotMatch)");
    let wrong = GcsSettings { access_id: "other@example.com".into(), ..gcs(&server) };
    insta::assert_snapshot!(refused(wrong).await, @"Received: 403 Forbidden (AccessDenied)");
    let wrong = GcsSettings { bucket: "others".into(), ..gcs(&server) };
    insta::assert_snapshot!(refused(wrong).await, @"Received: 404 Not Found (NoSuchBucket)");
    assert_eq!(server.seen().len(), 3);

    let server = CloudServer::azure("caches").await.unwrap();
    let refused = |settings: AzureSettings| async move {
        let store = ObjectStore::azure(&settings).unwrap();
        store.put("x", "x", &archive(b"x"), LIMIT).await.unwrap_err().to_string()
    };
    let wrong = AzureSettings { key: "d3Jvbmc=".into(), ..azure(&server) };
    insta::assert_snapshot!(refused(wrong).await, @"Received: 403 Forbidden (AuthenticationFailed)");
    let wrong = AzureSettings { container: "others".into(), ..azure(&server) };
    insta::assert_snapshot!(refused(wrong).await, @"Received: 404 Not Found (ContainerNotFound)");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_credentials_file_is_used_instead_of_other_keys() {
    let server = CloudServer::google("caches").await.unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(server.credentials_file().as_bytes()).unwrap();
    let credentials_file = Some(file.path().to_owned());
    let settings = GcsSettings { private_key: "none".into(), credentials_file, ..gcs(&server) };
    let store = ObjectStore::gcs(&settings).unwrap();
    store.put("x", "x", &archive(b"contents"), LIMIT).await.unwrap();
    assert_eq!(server.object("x").unwrap(), b"contents");
}

#[tokio::test]
async fn stores_have_the_hosts_of_their_clouds() {
    let server = CloudServer::google("caches").await.unwrap();
    let address = |universe: Option<&str>| {
        let universe_domain = universe.map(str::to_owned);
        let store = ObjectStore::gcs(&GcsSettings { universe_domain, endpoint: None, ..gcs(&server) });
        store.map_or_else(|error| error.to_string(), |store| store.address("a/b c"))
    };
    assert_eq!(address(None), "https://storage.googleapis.com/caches/a/b%20c");
    assert_eq!(address(Some("example.com")), "https://storage.example.com/caches/a/b%20c");
    insta::assert_snapshot!(address(Some("example.com/x")), @r#"`UniverseDomain` must be `host` or `host:port`, found "example.com/x""#);
}

#[tokio::test]
async fn neither_keys_nor_signatures_are_shown() {
    for (server, store) in both().await {
        let (key, shown) = (server.key().to_owned(), format!("{store:?}"));
        drop(server);
        let error = store.get("secret-name", Transfer::Whole, LIMIT).await.unwrap_err();
        let text = format!("{error} {error:?} {shown}");
        assert!(matches!(error, ObjectError::Transport(_)), "{text}");
        for hidden in ["secret-name", "Signature", "sig=", &key] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
