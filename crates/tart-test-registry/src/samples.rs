//! Images that most tests want.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::json;

use crate::{Compression, Files, ImageBuilder};

/// Where Debian's package `busybox-static` has its program.
const BUSYBOX: &str = "/bin/busybox";

/// Programs that the busybox image has names for.
const APPLETS: [&str; 32] = [
    "sh", "cat", "chmod", "chown", "cp", "cut", "date", "df", "echo", "env", "false", "grep", "head", "id",
    "ls", "mkdir", "mkfifo", "mv", "printf", "ps", "pwd", "rm", "rmdir", "sed", "sleep", "sort", "test",
    "touch", "tr", "true", "wc", "uname",
];

/// An image like `busybox`: one static program, `sh` but no bash, and little else.
///
/// # Errors
/// If `busybox-static` is not installed.
pub fn busybox() -> anyhow::Result<ImageBuilder> {
    let program = fs::read(BUSYBOX).context("cannot read /bin/busybox; install busybox-static")?;
    let mut files = Files::new()
        .directory("bin/", 0o755)
        .directory("etc/", 0o755)
        .directory("tmp/", 0o1777)
        .directory("root/", 0o700)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nbuilder:x:1000:1000::/home/builder:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nbuilder:x:1000:\nstaff:x:50:builder\n")
        .file("bin/busybox", 0o755, program);
    for applet in APPLETS {
        files = files.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    Ok(ImageBuilder::new()
        .layer(files.tar(), Compression::Gzip)
        .config("Cmd", json!(["sh"]))
        .config("Env", json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])))
}

/// The files of Debian packages and of all that they need, as one tar archive. No package is configured, so users and
/// alternatives are missing.
///
/// # Errors
/// If mmdebstrap cannot fetch or unpack them.
pub fn debian(packages: &[&str]) -> anyhow::Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("files.tar");
    let status = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=extract"])
        .arg(format!("--include={},dash,coreutils,libc-bin", packages.join(",")))
        .arg("bookworm")
        .arg(&archive)
        .stdin(Stdio::null())
        .status()
        .context("cannot run mmdebstrap")?;
    anyhow::ensure!(status.success(), "mmdebstrap failed: {status}");
    Ok(fs::read(archive)?)
}

/// Bytes that do not compress, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

/// An image without a shell: one program, `/app`.
///
/// # Errors
/// If `busybox-static` is not installed.
pub fn shellless() -> anyhow::Result<ImageBuilder> {
    let program = fs::read(BUSYBOX).context("cannot read /bin/busybox; install busybox-static")?;
    let files = Files::new().file("app", 0o755, program);
    Ok(ImageBuilder::new().layer(files.tar(), Compression::Zstd).config("Entrypoint", json!(["/app"])))
}
