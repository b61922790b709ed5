//! Images of a real registry.
#![cfg(feature = "slow-tests")]

use std::{
    fs,
    io::Read as _,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tart_assets::Store;
use tart_images::{
    Cause, ImageError, ImageLog, ImageRequest, ImageSettings, Images, LeasedImage, Level, PullPolicy, Quiet,
};
use tart_registry::{CredentialSources, JobCredential};
use tart_test_registry::{Compression, Files, ImageBuilder, Options, TestRegistry, samples, write_index};

#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

impl ImageLog for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

struct Scene {
    registry: TestRegistry,
    directory: tempfile::TempDir,
    images: Images,
}

impl Scene {
    fn new(options: Options, settings: ImageSettings) -> Self {
        let registry = TestRegistry::start(options).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let images = Images::open(store, settings).unwrap();
        Self { registry, directory, images }
    }

    fn push(&self, image: &ImageBuilder, name: &str) {
        self.registry.push_image(image, name).unwrap();
    }

    fn request(&self, name: &str, policies: &[PullPolicy]) -> ImageRequest {
        ImageRequest {
            name: self.registry.reference(name),
            platform: None,
            policies: policies.to_vec(),
            credentials: CredentialSources::default(),
        }
    }

    async fn obtain(&self, name: &str, policies: &[PullPolicy]) -> Result<LeasedImage, ImageError> {
        self.images.obtain(&self.request(name, policies), &Quiet).await
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for directory in ["objects", "tmp", "entries/pulled", "entries/layer", "entries/reference"] {
            for entry in fs::read_dir(self.directory.path().join("store").join(directory)).unwrap() {
                left.push(format!("{directory}/{}", entry.unwrap().file_name().display()));
            }
        }
        left
    }
}

fn image(text: &str) -> ImageBuilder {
    let base =
        Files::new().directory("etc/", 0o755).file("etc/motd", 0o644, "base").file("etc/gone", 0o644, "x");
    let top = Files::new().file("etc/motd", 0o600, text).whiteout("etc/gone");
    ImageBuilder::new()
        .layer(base.tar(), Compression::Gzip)
        .layer(top.tar(), Compression::Zstd)
        .config("Env", json!(["GREETING=hello"]))
        .config("User", json!("1000"))
}

/// The files of a disk: path and content.
fn files(images: &Images, image: &LeasedImage) -> Vec<(String, String)> {
    let mut tar = Vec::new();
    images.store().unpack(&image.disk, &mut tar).unwrap();
    let mut archive = tar::Archive::new(&*tar);
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        files.push((entry.path().unwrap().display().to_string(), content));
    }
    files.sort();
    files
}

#[tokio::test]
async fn an_image_is_pulled_once_and_found_again() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "team/app:1");
    let lines = Lines::default();
    let request = scene.request("team/app:1", &[PullPolicy::Always]);
    let first = scene.images.obtain(&request, &lines).await.unwrap();
    assert_eq!(
        files(&scene.images, &first),
        [("etc/".to_owned(), String::new()), ("etc/motd".to_owned(), "one".to_owned())]
    );
    assert_eq!(first.disk.config.env, [("GREETING".to_owned(), "hello".to_owned())]);
    assert_eq!(first.disk.config.user, "1000");
    let name = scene.registry.reference("team/app:1");
    let text = lines.0.lock().unwrap().join("\n").replace(&name, "NAME");
    insta::assert_snapshot!(text, @r"
    Using effective pull policy of [always] for container NAME
    Pulling docker image NAME ...
    Downloaded 301 B of 301 B, 2 of 2 layers
    Making a disk of 2 layers ...
    ");

    let again = scene.obtain("team/app:1", &[PullPolicy::Always]).await.unwrap();
    assert_eq!(again.disk, first.disk);
    let requests = scene.registry.requests().unwrap();
    let blobs = requests.iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).count();
    assert_eq!(blobs, 3, "two layers and a configuration: {requests:?}");

    scene.push(&image("two"), "team/app:1");
    let kept = scene.obtain("team/app:1", &[PullPolicy::IfNotPresent]).await.unwrap();
    assert_eq!(kept.disk, first.disk);
    let moved = scene.obtain("team/app:1", &[PullPolicy::Always]).await.unwrap();
    assert_ne!(moved.disk, first.disk);
    assert_eq!(scene.images.ls().unwrap().len(), 2);
}

#[tokio::test]
async fn policies_are_tried_in_order() {
    let mut scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "app:1");
    let never = scene.obtain("app:1", &[PullPolicy::Never]).await.unwrap_err();
    assert_eq!(never.cause(), Cause::Configuration);
    scene.obtain("app:1", &[PullPolicy::Never, PullPolicy::IfNotPresent]).await.unwrap();
    scene.obtain("app:1", &[PullPolicy::Never]).await.unwrap();

    scene.registry.kill();
    let mut settings = ImageSettings::default();
    settings.registry.attempts = 1;
    scene.images = Images::open(scene.images.store().clone(), settings).unwrap();
    let lines = Lines::default();
    let request = scene.request("app:1", &[PullPolicy::Always, PullPolicy::IfNotPresent]);
    scene.images.obtain(&request, &lines).await.unwrap();
    let address = scene.registry.address().to_owned();
    let text = lines.0.lock().unwrap().join("\n").replace(&address, "REGISTRY");
    insta::assert_snapshot!(text, @r#"
    Using effective pull policy of [always if-not-present] for container REGISTRY/app:1
    Pulling docker image REGISTRY/app:1 ...
    Failed to pull image with policy "always": cannot reach REGISTRY: client error (Connect): tcp connect error: Connection refused (os error 111)
    Attempt #2: Trying "if-not-present" pull policy
    Using locally found image version due to "if-not-present" pull policy
    "#);
    let gone = scene.obtain("app:1", &[PullPolicy::Always]).await.unwrap_err();
    assert_eq!(gone.cause(), Cause::Network, "{gone}");
}

#[tokio::test]
async fn a_private_image_needs_its_credentials() {
    let users = vec![("ci".to_owned(), "right".to_owned())];
    let scene = Scene::new(Options { users, tls: true }, ImageSettings::default());
    scene.push(&image("one"), "private:1");
    let address = scene.registry.address().to_owned();
    let mut request = scene.request("private:1", &[PullPolicy::Always]);
    let denied = scene.images.obtain(&request, &Quiet).await.unwrap_err();
    assert_eq!(denied.cause(), Cause::Configuration);
    insta::assert_snapshot!(denied.to_string().replace(&address, "REGISTRY"), @r#"failed to pull image "REGISTRY/private:1" with specified policies [always]: REGISTRY denies access to REGISTRY/private:1 without credentials: 401 Unauthorized"#);

    let job = |password: &str| JobCredential {
        registry: address.clone(),
        user: "ci".to_owned(),
        password: password.to_owned(),
    };
    request.credentials.job = vec![job("wrong")];
    let denied = scene.images.obtain(&request, &Quiet).await.unwrap_err();
    insta::assert_snapshot!(denied.to_string().replace(&address, "REGISTRY"), @r#"failed to pull image "REGISTRY/private:1" with specified policies [always]: REGISTRY denies access to REGISTRY/private:1 with the given credentials: 401 Unauthorized"#);
    assert_eq!(scene.left(), [""; 0]);
    request.credentials.job = vec![job("right")];
    scene.images.obtain(&request, &Quiet).await.unwrap();
}

#[tokio::test]
async fn an_index_is_asked_for_the_platform() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    let layout = tempfile::tempdir().unwrap();
    write_index(layout.path(), "all", &[image("arm").architecture("arm64"), image("amd")]).unwrap();
    scene.registry.push(layout.path(), "all", "multi:1").unwrap();
    let amd = scene.obtain("multi:1", &[PullPolicy::Always]).await.unwrap();
    assert!(files(&scene.images, &amd).contains(&("etc/motd".to_owned(), "amd".to_owned())));
    let mut request = scene.request("multi:1", &[PullPolicy::Always]);
    request.platform = Some("linux/arm64".to_owned());
    let arm = scene.images.obtain(&request, &Quiet).await.unwrap();
    assert!(files(&scene.images, &arm).contains(&("etc/motd".to_owned(), "arm".to_owned())));
    request.platform = Some("linux/s390x".to_owned());
    let error = scene.images.obtain(&request, &Quiet).await.unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(scene.registry.address(), "REGISTRY"), @r#"failed to pull image "REGISTRY/multi:1" with specified policies [always]: no image for linux/s390x; there are: linux/arm64, linux/amd64"#);
}

#[tokio::test]
async fn a_damaged_layer_leaves_nothing() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "bad:1");
    let layers = scene.registry.layers("bad:1").unwrap();
    let blob = scene.registry.blob_file(&layers[0]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[40] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let error = scene.obtain("bad:1", &[PullPolicy::Always]).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Image);
    assert!(error.to_string().contains("it was damaged or forged"), "{error}");
    assert_eq!(scene.left(), [""; 0]);
}

#[tokio::test]
async fn hostile_layers_are_refused_and_leave_nothing() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    let bomb = vec![0_u8; 8 << 20];
    let mut settings = ImageSettings::default();
    (settings.limits.free_bytes, settings.limits.ratio) = (1 << 20, 50);
    let images = Images::open(scene.images.store().clone(), settings).unwrap();
    for (name, files) in [
        ("out:1", Files::new().file("../../etc/passwd", 0o644, "x")),
        ("link:1", Files::new().hard_link("a", "../../../etc/shadow")),
        ("bomb:1", Files::new().file("zeros", 0o644, bomb)),
    ] {
        scene.push(&ImageBuilder::new().layer(files.tar(), Compression::Gzip), name);
        let request = scene.request(name, &[PullPolicy::Always]);
        let error = images.obtain(&request, &Quiet).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Image, "{name}: {error}");
        assert_eq!(scene.left(), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn two_pulls_at_once_download_once() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "app:1");
    let other =
        Images::open(Store::open(scene.images.store().root()).unwrap(), ImageSettings::default()).unwrap();
    let request = scene.request("app:1", &[PullPolicy::Always]);
    let (one, two) = tokio::join!(scene.images.obtain(&request, &Quiet), other.obtain(&request, &Quiet));
    assert_eq!(one.unwrap().disk, two.unwrap().disk);
    let requests = scene.registry.requests().unwrap();
    let mut blobs: Vec<_> = requests.iter().filter(|line| line.starts_with("GET /v2/app/blobs/")).collect();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert!(all <= blobs.len() + 1, "layers come once, the configuration perhaps twice: {requests:?}");
}

#[tokio::test]
async fn the_quota_is_kept() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    for name in ["a:1", "b:1", "c:1"] {
        scene.push(&image(name), name);
    }
    let first = scene.obtain("a:1", &[PullPolicy::Always]).await.unwrap();
    let size = scene.images.ls().unwrap()[0].size;
    let quota = size * 2 + 100;
    let settings = ImageSettings { quota: Some(quota), ..ImageSettings::default() };
    let images = Images::open(scene.images.store().clone(), settings).unwrap();
    for name in ["b:1", "c:1"] {
        images.obtain(&scene.request(name, &[PullPolicy::Always]), &Quiet).await.unwrap();
    }
    assert!(images.store().pulled_bytes().unwrap() <= quota);
    assert!(first.disk.path.exists(), "it is in use");

    let settings = ImageSettings { quota: Some(size - 1), ..ImageSettings::default() };
    let images = Images::open(scene.images.store().clone(), settings).unwrap();
    scene.push(&image("d"), "d:1");
    let error = images.obtain(&scene.request("d:1", &[PullPolicy::Always]), &Quiet).await.unwrap_err();
    assert!(error.to_string().contains("image_quota"), "{error}");
}

/// A small file system in memory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &Path, mib: usize) -> Self {
        fs::create_dir(path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(path);
        assert!(mount.status().unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _done = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn noise(seed: u64, mib: usize) -> ImageBuilder {
    let noise = samples::noise(seed, mib << 20);
    ImageBuilder::new().layer(Files::new().file("noise", 0o644, noise).tar(), Compression::Gzip)
}

#[tokio::test]
async fn a_full_disk_is_answered_by_eviction_and_then_said() {
    let mut scene = Scene::new(Options::default(), ImageSettings::default());
    let disk = SmallDisk::mount(&scene.directory.path().join("small"), 10);
    let store = Store::open(&disk.0.join("store")).unwrap();
    scene.images = Images::open(store, ImageSettings::default()).unwrap();
    for (seed, (name, mib)) in [("a:1", 4), ("b:1", 4), ("c:1", 7)].into_iter().enumerate() {
        scene.push(&noise(seed as u64 + 1, mib), name);
    }
    // A layer and a disk of four each leave no room for another image.
    drop(scene.obtain("a:1", &[PullPolicy::Always]).await.unwrap());
    let lines = Lines::default();
    let request = scene.request("b:1", &[PullPolicy::Always]);
    let used = scene.images.obtain(&request, &lines).await.unwrap();
    let text = lines.0.lock().unwrap().join("\n");
    assert!(
        text.contains("The disk of the image store is full: removing images that are not in use"),
        "{text}"
    );
    // Half a layer, or a whole one and half a disk, do not stay either.
    let error = scene.obtain("c:1", &[PullPolicy::Always]).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Host, "{error}");
    let left = fs::read_dir(disk.0.join("store/tmp")).unwrap().count();
    assert_eq!(left, 0);
    assert!(used.disk.path.exists());
    assert_eq!(scene.images.ls().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pull_that_is_given_up_goes_on_later() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "app:1");
    let lines = Arc::new(Lines::default());
    let request = scene.request("app:1", &[PullPolicy::Always]);
    {
        let pull = scene.images.obtain(&request, &*lines);
        tokio::pin!(pull);
        // Polled once: it is somewhere on its way.
        let polled = futures::poll!(&mut pull);
        assert!(polled.is_pending());
    }
    scene.images.obtain(&request, &Quiet).await.unwrap();
}

#[tokio::test]
async fn images_are_listed_described_exported_and_removed() {
    let scene = Scene::new(Options::default(), ImageSettings::default());
    scene.push(&image("one"), "team/app:1");
    let pulled = scene.obtain("team/app:1", &[PullPolicy::Always]).await.unwrap();
    let name = scene.registry.reference("team/app:1");
    let listed = scene.images.ls().unwrap();
    assert_eq!(listed[0].names, std::slice::from_ref(&name));
    assert!(listed[0].in_use);
    let described = scene.images.inspect(&name).unwrap();
    assert_eq!(described["Config"]["Env"][0], "GREETING=hello");

    let archive = scene.directory.path().join("app.tar");
    scene.images.export(&name, &mut fs::File::create(&archive).unwrap()).unwrap();
    let imported = scene.images.import("mine:1", &archive).unwrap();
    assert_eq!(imported.config, pulled.disk.config);
    assert_eq!(imported.digest, pulled.disk.digest, "the same files make the same disk");
    assert!(skopeo_reads(&archive));

    assert!(matches!(scene.images.rm(&name), Err(ImageError::InUse { .. })));
    drop(pulled);
    scene.images.rm(&name).unwrap();
    let mine = scene.obtain_local("mine:1").await;
    assert_eq!(files(&scene.images, &mine).len(), 2, "the import keeps its disk");
    scene.images.rm("mine:1").unwrap();
    assert!(matches!(scene.images.inspect("mine:1"), Err(ImageError::Unknown { .. })));
}

impl Scene {
    async fn obtain_local(&self, name: &str) -> LeasedImage {
        let request = ImageRequest {
            name: name.to_owned(),
            platform: None,
            policies: Vec::new(),
            credentials: CredentialSources::default(),
        };
        self.images.obtain(&request, &Quiet).await.unwrap()
    }
}

fn skopeo_reads(archive: &Path) -> bool {
    let mut command = std::process::Command::new("skopeo");
    command.arg("inspect").arg(format!("docker-archive:{}", archive.display()));
    command.output().unwrap().status.success()
}

#[test]
fn archives_of_several_kinds_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    // Docker's archives have no zstd.
    let tar = Files::new().file("etc/motd", 0o644, "one").tar();
    let image = ImageBuilder::new().layer(tar, Compression::Gzip).config("User", json!("1000"));
    image.write(&layout, "app").unwrap();
    let tarball = directory.path().join("layout.tar");
    let tar = std::process::Command::new("tar")
        .args(["-C", &layout.display().to_string(), "-cf", &tarball.display().to_string(), "."])
        .status();
    assert!(tar.unwrap().success());
    let compressed = directory.path().join("layout.tar.gz");
    let gzip = std::process::Command::new("gzip").arg("-k").arg(&tarball).status();
    assert!(gzip.unwrap().success());
    let saved = directory.path().join("saved.tar");
    let copied = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci:{}:app", layout.display()))
        .arg(format!("docker-archive:{}:app:1", saved.display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");

    let store = Store::open(&directory.path().join("store")).unwrap();
    let images = Images::open(store, ImageSettings::default()).unwrap();
    let mut disks = Vec::new();
    for (name, path) in [("a", &layout), ("b", &tarball), ("c", &compressed), ("d", &saved)] {
        let disk = images.import(name, path).unwrap();
        assert_eq!(disk.config.user, "1000", "{name}");
        disks.push(disk.digest);
    }
    disks.dedup();
    assert_eq!(disks.len(), 1, "all of them are the same image");
}
