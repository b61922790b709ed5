//! Images that other programs made, through a real registry.
#![cfg(feature = "slow-tests")]

use std::{path::Path, process::Command};

use tart_assets::Store;
use tart_images::{ImageRequest, ImageSettings, Images, LeasedImage, PullPolicy, Quiet};
use tart_registry::CredentialSources;
use tart_test_registry::{Options, TestRegistry};

/// An image of buildah: `scratch`, busybox, and a configuration.
const BUILDAH: &str = r#"
buildah() { command buildah --root "$PWD/root" --runroot "$PWD/run" --storage-driver vfs "$@"; }
container=$(buildah from scratch)
buildah copy --quiet "$container" /bin/busybox /bin/busybox
buildah config --env GREETING=hello --user 1000:50 --workingdir /srv --entrypoint '["/bin/busybox", "env"]' \
    --port 5432/tcp "$container"
buildah commit --quiet --format "$FORMAT" "$container" "oci:$PWD/layout:one"
"#;

/// An image of umoci with a layer that removes what the one before has.
const UMOCI: &str = r#"
umoci init --layout layout
umoci new --image layout:one
umoci unpack --image layout:one bundle
mkdir -p bundle/rootfs/etc bundle/rootfs/bin
cp /bin/busybox bundle/rootfs/bin
echo lower > bundle/rootfs/etc/motd
echo gone > bundle/rootfs/etc/gone
ln bundle/rootfs/etc/motd bundle/rootfs/etc/linked
chown 7:8 bundle/rootfs/etc/motd
setfattr -n user.note -v kept bundle/rootfs/etc/motd
umoci repack --image layout:one bundle
rm -r bundle
umoci unpack --image layout:one bundle
rm bundle/rootfs/etc/gone bundle/rootfs/etc/motd
echo upper > bundle/rootfs/etc/new
umoci repack --image layout:one bundle
umoci config --image layout:one --config.env GREETING=hello --config.user 1000:50 --config.workingdir /srv
"#;

async fn built_and_pulled(script: &str, format: &str) -> (LeasedImage, String, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut sh = Command::new("sh");
    let built = sh.args(["-euc", script]).env("FORMAT", format).current_dir(&directory).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let registry = TestRegistry::start(Options::default()).unwrap();
    registry.push(&directory.path().join("layout"), "one", "made:1").unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let images = Images::open(store, ImageSettings::default()).unwrap();
    let request = ImageRequest {
        name: registry.reference("made:1"),
        platform: None,
        policies: vec![PullPolicy::Always],
        credentials: CredentialSources::default(),
    };
    let image = images.obtain(&request, &Quiet).await.unwrap();
    assert_eq!(image.disk.config.env.last(), Some(&("GREETING".to_owned(), "hello".to_owned())));
    assert_eq!((image.disk.config.user.as_str(), image.disk.config.workdir.as_str()), ("1000:50", "/srv"));
    let list = described(&image.disk.path);
    (image, list, directory)
}

/// The files of a disk: kind, name, mode, owner.
fn described(disk: &Path) -> String {
    let output = Command::new("rdsquashfs").arg("--describe").arg(disk).output().unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test]
async fn buildahs_images_are_used() {
    let (image, list, _directory) = built_and_pulled(BUILDAH, "oci").await;
    assert_eq!(image.disk.config.entrypoint, ["/bin/busybox", "env"]);
    insta::assert_snapshot!(list, @r#"
    dir bin 0755 0 0
    file bin/busybox 0755 0 0
    "#);
}

#[tokio::test]
async fn umocis_images_are_used() {
    let (image, list, directory) = built_and_pulled(UMOCI, "").await;
    insta::assert_snapshot!(list, @r#"
    dir bin 0755 0 0
    dir etc 0755 0 0
    file bin/busybox 0755 0 0
    file etc/linked 0644 7 8
    file etc/new 0644 0 0
    "#);
    let mut attribute = Command::new("sh");
    let script = "sqfs2tar \"$0\" | tar -xf - --xattrs --xattrs-include='*' -C \"$1\" && getfattr -n user.note \"$1/etc/linked\"";
    std::fs::create_dir(directory.path().join("files")).unwrap();
    let output =
        attribute.args(["-euc", script]).arg(&image.disk.path).arg(directory.path().join("files")).output();
    let output = output.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("user.note=\"kept\""), "{output:?}");
}
