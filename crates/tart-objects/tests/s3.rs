//! Archives in a store that checks signatures.

mod support;

use tart_objects::{Encryption, ObjectError, ObjectStore, S3Settings, Transfer};
use tart_test_objects::{ACCESS_KEY, S3Server, SECRET_KEY, Seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{LIMIT, archive, bytes, contents};

fn settings(server: &S3Server) -> S3Settings {
    S3Settings {
        server: Some(server.address()),
        insecure: true,
        bucket: "caches".into(),
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        ..S3Settings::default()
    }
}

fn statuses(server: &S3Server) -> Vec<(String, u16)> {
    server.seen().into_iter().map(|Seen { method, status, .. }| (method, status)).collect()
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let store = ObjectStore::s3(&settings(&server)).unwrap();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let odd = "project/1/é +&=%2f~*'()!@$,;:#?[]/x y";
    for (name, bytes) in [("project/1/main", large.as_slice()), (odd, b"odd"), ("project/1/empty", b"")] {
        assert!(matches!(contents(&store, name).await, Err(ObjectError::Missing)), "{name}");
        store.put(name, "main", &archive(bytes), LIMIT).await.unwrap();
        assert_eq!(contents(&store, name).await.unwrap(), bytes, "{name}");
    }
    store.put("project/1/main", "main", &archive(b"new"), LIMIT).await.unwrap();
    assert_eq!(contents(&store, "project/1/main").await.unwrap(), b"new");
    let seen = server.seen();
    let put = seen.iter().find(|seen| seen.method == "PUT").unwrap();
    let header = |name: &str| put.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
    assert_eq!(header("content-length"), Some("1200000"));
    assert_eq!(header("content-type"), Some("application/octet-stream"));
    assert_eq!(header("x-amz-meta-cachekey"), Some("main"));
    assert_eq!(header("transfer-encoding"), None);
    assert_eq!(header("authorization"), None);
}

#[tokio::test]
async fn pieces_make_the_same_object() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let store = ObjectStore::s3(&settings(&server)).unwrap();
    let large: Vec<u8> = (0..(9_u32 << 20) / 4).flat_map(u32::to_be_bytes).collect();
    for content in [large.as_slice(), b"small", b""] {
        store.put("x", "x", &archive(content), LIMIT).await.unwrap();
        let download = store.get("x", Transfer::InPieces, LIMIT).await.unwrap();
        assert!(bytes(download).await.unwrap() == content);
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.status == 206).count(), 4);
}

#[tokio::test]
async fn headers_of_encryption_are_signed() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let expected = [
        (Encryption::S3, "AES256", None),
        (Encryption::Kms("key-1".into()), "aws:kms", Some("key-1")),
        (Encryption::DsseKms(String::new()), "aws:kms:dsse", None),
    ];
    for (encryption, algorithm, key) in expected {
        let settings = S3Settings { encryption: Some(encryption), ..settings(&server) };
        let store = ObjectStore::s3(&settings).unwrap();
        // No header can say this key.
        store.put("project/1/é", "é", &archive(b"x"), LIMIT).await.unwrap();
        let seen = server.seen().pop().unwrap();
        let header = |name: &str| seen.headers.iter().find(|(of, _)| of == name).map(|(_, v)| v.as_str());
        assert_eq!(header("x-amz-server-side-encryption"), Some(algorithm));
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id"), key);
        assert_eq!(header("x-amz-meta-cachekey"), None);
    }
}

#[tokio::test]
async fn other_keys_and_buckets_are_refused_at_once() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let wrong = S3Settings { secret_key: "wrong".into(), ..settings(&server) };
    let error = ObjectStore::s3(&wrong).unwrap().put("x", "x", &archive(b"x"), LIMIT).await.unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"Received: 403 Forbidden (SignatureDoesNotMatch)");
    let wrong = S3Settings { bucket: "others".into(), ..settings(&server) };
    let error = contents(&ObjectStore::s3(&wrong).unwrap(), "x").await.unwrap_err();
    assert!(matches!(error, ObjectError::Refused { .. } | ObjectError::Missing), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_store_in_trouble_is_asked_three_times() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let store = ObjectStore::s3(&settings(&server)).unwrap();
    server.fail("PUT", 503, 2);
    store.put("x", "x", &archive(b"contents"), LIMIT).await.unwrap();
    assert_eq!(contents(&store, "x").await.unwrap(), b"contents");
    server.fail("GET", 500, 3);
    let error = contents(&store, "x").await.unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"Received: 500 Internal Server Error (SlowDown)");
    let expected =
        [("PUT", 503), ("PUT", 503), ("PUT", 200), ("GET", 200), ("GET", 500), ("GET", 500), ("GET", 500)];
    assert_eq!(statuses(&server), expected.map(|(method, status)| (method.to_owned(), status)));
}

#[tokio::test]
async fn an_object_that_breaks_off_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
    });
    let settings = S3Settings {
        server: Some(address),
        insecure: true,
        bucket: "caches".into(),
        ..S3Settings::default()
    };
    let result = contents(&ObjectStore::s3(&settings).unwrap(), "x").await;
    assert!(matches!(result, Err(ObjectError::Transport(_))), "{result:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn errors_show_neither_url_nor_signature() {
    let server = S3Server::start(&["caches"]).await.unwrap();
    let settings = settings(&server);
    drop(server);
    let error =
        ObjectStore::s3(&settings).unwrap().get("secret-name", Transfer::Whole, LIMIT).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(matches!(error, ObjectError::Transport(_)), "{text}");
    for hidden in ["secret-name", "X-Amz", ACCESS_KEY, SECRET_KEY] {
        assert!(!text.contains(hidden), "{text}");
    }
}
