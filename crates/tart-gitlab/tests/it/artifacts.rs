use std::io::Cursor;

use tart_gitlab::{
    ArtifactUpload, Client, DownloadError, DownloadFrom, JobApi as _, JobHandle, JobUpdate, LogDigest, Token,
    UpdateResult, UploadError,
};
use tart_test_gitlab::{Artifacts, Endpoint, Fault, JobSpec, Options, RunnerOptions, TestGitlab};

use crate::support::{client, handle, take_job};

const ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn archive() -> ArtifactUpload {
    ArtifactUpload {
        file_name: "artifacts.zip".into(),
        format: "zip".into(),
        kind: "archive".into(),
        expire_in: "1 week & more".into(),
    }
}

struct Scene {
    server: TestGitlab,
    runner: String,
    client: Client,
    queued: tart_test_gitlab::JobHandle,
    handle: JobHandle,
}

async fn scene(options: Options) -> Scene {
    let server = TestGitlab::start_with(options).await;
    let runner = server.add_runner(RunnerOptions::default()).token();
    let (client, _) = client(server.url());
    let spec = JobSpec::script(["true"]).artifacts(Artifacts::paths(["out"]).expire_in("1 week & more"));
    let queued = server.enqueue(spec).await;
    let job = take_job(&client, &runner).await;
    let handle = handle(&client, &job);
    handle.acknowledge().await;
    Scene { server, runner, client, queued, handle }
}

#[tokio::test]
async fn artifacts_are_uploaded_as_a_stream_with_what_is_said_about_them() {
    let scene = scene(Options::default()).await;
    let content = [ZIP, &vec![7; 3_000_000]].concat();
    assert_eq!(scene.handle.upload_artifacts(&archive(), Cursor::new(content.clone())).await, Ok(()));
    let artifacts = scene.queued.artifacts();
    assert_eq!(artifacts.len(), 1);
    assert_eq!(artifacts[0].filename, "artifacts.zip");
    assert_eq!(artifacts[0].expire_in.as_deref(), Some("1 week & more"));
    assert!(artifacts[0].content == content);
    scene.server.assert_no_violations();
}

#[tokio::test]
async fn refusals_say_how_often_to_try() {
    let scene = scene(Options::default().max_artifact_bytes(1000)).await;
    for (status, tries) in [(500, 3), (503, 6), (403, 1), (413, 1)] {
        scene.server.faults().next(Endpoint::UploadArtifacts, Fault::Status(status));
        let error = scene.handle.upload_artifacts(&archive(), ZIP).await.expect_err("a fault");
        assert_eq!(error.tries(), tries, "{error}");
    }
    let result = scene.handle.upload_artifacts(&archive(), Cursor::new([ZIP, &[0; 2000]].concat())).await;
    assert!(matches!(result, Err(UploadError::TooLarge(_))), "{result:?}");
    scene.server.assert_no_violations();
}

#[tokio::test]
async fn content_that_breaks_off_is_no_artifact() {
    use tokio::io::AsyncReadExt as _;
    let scene = scene(Options::default()).await;
    let broken = beginning().chain(Broken);
    let result = scene.handle.upload_artifacts(&archive(), broken).await;
    assert!(matches!(result, Err(UploadError::Failed(_))), "{result:?}");
    assert!(scene.queued.artifacts().is_empty());
}

fn beginning() -> Cursor<Vec<u8>> {
    Cursor::new([ZIP, &vec![1; 500_000]].concat())
}

struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the guest is gone")))
    }
}

#[tokio::test]
async fn artifacts_of_another_job_come_from_the_server_or_its_storage() {
    let scene = scene(Options::default().direct_download()).await;
    // Two pieces and a bit, none like the other.
    let whole: Vec<u8> = (0..(9_u32 << 20) / 4).flat_map(u32::to_be_bytes).collect();
    let whole = [ZIP, &whole].concat();
    scene.handle.upload_artifacts(&archive(), Cursor::new(whole.clone())).await.expect("an upload");
    scene.server.enqueue(JobSpec::script(["true"]).dependency(&scene.queued)).await;
    let end = JobUpdate {
        state: tart_spec::JobState::Success,
        failure_reason: None,
        exit_code: None,
        output: Some(LogDigest { crc32: 0, size: 0 }),
    };
    assert_eq!(scene.handle.update(&end).await.result, UpdateResult::Succeeded);
    let job = take_job(&scene.client, &scene.runner).await;
    handle(&scene.client, &job).acknowledge().await;
    let dependency = &job.payload.dependencies[0];
    let token = Token::from(dependency.token.clone());
    for from in [DownloadFrom::Storage, DownloadFrom::StorageInPieces, DownloadFrom::Server] {
        let mut download =
            scene.client.download_artifacts(dependency.id, &token, from).await.expect("a file");
        assert_eq!(download.storage.is_some(), from != DownloadFrom::Server);
        let mut content = Vec::new();
        while let Some(piece) = download.chunk().await.expect("a whole file") {
            content.extend_from_slice(&piece);
        }
        assert!(content == whole, "{from:?}");
    }
    scene.server.assert_no_violations();
    for (status, forbidden) in [(401, true), (403, true), (404, false)] {
        scene.server.faults().next(Endpoint::DownloadArtifacts, Fault::Status(status));
        let error = scene
            .client
            .download_artifacts(dependency.id, &token, DownloadFrom::Server)
            .await
            .expect_err("a fault");
        assert_eq!(matches!(error, DownloadError::Forbidden(_)), forbidden, "{error}");
        assert_eq!(matches!(error, DownloadError::NotFound(_)), !forbidden, "{error}");
    }
}
