use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use super::*;

#[test]
fn jails_are_where_only_root_can_change_anything() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    // In /tmp, where others write, but not to this.
    let made = prepare(&at("var/jails")).unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(at("var/jails")), 0o700);
    drop(made);
    let refused = |dir: &Path| match prepare(dir).unwrap_err() {
        VmmError::System { source, .. } => {
            source.to_string().replace(&root.path().display().to_string(), "ROOT")
        }
        other => panic!("{other}"),
    };
    for (mode, bad) in [(0o777, true), (0o775, true), (0o1777, false)] {
        fs::set_permissions(at("var"), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(prepare(&at("var/jails")).is_err(), bad, "{mode:o}");
    }
    fs::set_permissions(at("var/jails"), fs::Permissions::from_mode(0o1777)).unwrap();
    insta::assert_snapshot!(refused(&at("var/jails")), @"others than root can change ROOT/var/jails: choose one by `--jails` that, as all above it, belongs to root and that nobody else writes to");
    fs::set_permissions(at("var/jails"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(at("var"), Some(65_534), None).unwrap();
    insta::assert_snapshot!(refused(&at("var/jails")), @"others than root can change ROOT/var: choose one by `--jails` that, as all above it, belongs to root and that nobody else writes to");
    // It is what a link leads to that counts.
    symlink(at("var"), at("link")).unwrap();
    assert!(refused(&at("link/jails")).starts_with("others than root can change ROOT/var:"));
}
