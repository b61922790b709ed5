use std::{fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use super::*;
use crate::confine::Allowed;

/// What a shell says in a root of its own.
fn shell(root: &Path, places: &[Place], working: &Path, script: &str) -> String {
    let jail = Jail::plan(root, places, working).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stderr(std::process::Stdio::inherit());
    #[expect(unsafe_code, reason = "the standard library has no other way to prepare a child")]
    // SAFETY: the closure makes system calls only.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)?;
            jail.enter()
        });
    }
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_root_has_what_is_allowed_where_it_is_outside_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["mine", "others", "images", "root"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("file"), name).unwrap();
    }
    fs::write(at("kernel"), "kernel").unwrap();
    fs::remove_file(at("root/file")).unwrap();
    let allowed = Allowed {
        read: vec![at("images/file"), at("images"), at("kernel"), at("gone")],
        write: vec![at("mine"), at("mine/file")],
        installed: vec![],
    };
    let script = format!(
        "cd {dir} && pwd && ls && cat kernel images/file mine/file && echo && \
         echo new > mine/new && cat mine/new; \
         for file in kernel images/file images/new other /new /usr/new /dev/new; do \
           (echo x > $file) 2>/dev/null && echo wrote $file; \
         done; ls / | grep -vx -e bin -e lib -e lib64 -e nix; ls /etc; ls /dev | grep -v kvm; cat /proc/self/mountinfo | cut -d' ' -f 5 | grep {dir} | sort -u",
        dir = dir.path().display()
    );
    let said = shell(&at("root"), &allowed.places(), &at("mine"), &script)
        .replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @r"
    DIR
    images
    kernel
    mine
    kernelimagesmine
    new
    dev
    etc
    proc
    sys
    tmp
    usr
    ld.so.cache
    null
    random
    urandom
    DIR/images
    DIR/images/file
    DIR/kernel
    DIR/mine
    DIR/mine/file
    ");
    assert_eq!(fs::read_to_string(at("mine/new")).unwrap(), "new\n");
    assert_eq!(
        shell(&at("root"), &allowed.places(), &at("mine"), "pwd -P; ls"),
        format!("{}\nfile\nnew\n", at("mine").display())
    );
    // The positive control: without a root of its own the same shell sees the rest.
    assert!(at("others/file").exists() && !at("root").read_dir().unwrap().any(|_| true));
}

#[test]
fn paths_that_go_upwards_are_refused() {
    let allowed = Allowed { read: vec![PathBuf::from("/usr/../etc")], ..Allowed::default() };
    let error = Jail::plan(Path::new("/root"), &allowed.places(), Path::new("/")).unwrap_err();
    assert_eq!(error.to_string(), "`/usr/../etc` has parts that go upwards");
}

#[test]
fn a_device_of_its_own_is_in_the_place_of_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let (own, root) = (dir.path().join("own"), dir.path().join("root"));
    fs::create_dir(&root).unwrap();
    let zero = std::os::unix::fs::MetadataExt::rdev(&fs::metadata("/dev/zero").unwrap());
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &own, rustix::fs::FileType::CharacterDevice, mode, zero).unwrap();
    std::os::unix::fs::chown(&own, Some(1234), Some(1234)).unwrap();
    let mut places = Allowed::default().places();
    places.push(Place { from: own, path: "/dev/null".into(), access: PlaceAccess::Device });
    let said = shell(&root, &places, Path::new("/"), "head -c 4 /dev/null | wc -c; stat -c %u /dev/null");
    assert_eq!(said, "4\n1234\n");
}
