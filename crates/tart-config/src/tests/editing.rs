//! Changes in place.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use jiff::Timestamp;
use tempfile::TempDir;

use crate::{EditError, Editor, NewRunner, Secret};

const FILE: &str = "\
# Our builders.
concurrent = 4 # one for each core

# Old hardware.

# The slow one.
[[runners]]
name = \"slow\"
url = \"https://gitlab.example.com\"
token = 'glrt-slow' # from the UI
[runners.microvm]
vcpus = 1

[[runners]]
name = \"fast\"
url = \"https://gitlab.example.com\"
token = \"glrt-fast\"

[session_server]
session_timeout = 1800
# The end.
";

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn new_runner() -> NewRunner {
    NewRunner {
        name: "new".into(),
        url: "https://gitlab.com".into(),
        token: Secret::new("glrt-new"),
        id: 7,
        token_obtained_at: Some("2026-11-24T08:00:00Z".parse().unwrap()),
        ..NewRunner::default()
    }
}

#[test]
fn a_runner_is_appended_after_everything_else() {
    let (_directory, path) = file(FILE);
    let mut editor = Editor::open(&path).unwrap();
    editor.append(&new_runner()).unwrap();
    let config = editor.save().unwrap();
    assert_eq!(config.runners.len(), 3);
    let text = fs::read_to_string(&path).unwrap();
    let added = text.strip_prefix(FILE).expect("the old text is unchanged");
    insta::assert_snapshot!(added, @r#"
    [[runners]]
    name = "new"
    url = "https://gitlab.com"
    token = "glrt-new"
    id = 7
    token_obtained_at = 2026-11-24T08:00:00Z
    executor = "microvm"
    "#);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(crate::load(&path).unwrap().config, config);
}

#[test]
fn the_first_runner_makes_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/config.toml");
    let mut editor = Editor::open_or_create(&path).unwrap();
    editor
        .append(&NewRunner {
            template: Some(
                "[[runners]]\nlimit = 2\n[runners.docker]\nimage = \"alpine\"\nmemory = \"1g\"\n[[runners.docker.services]]\nname = \"redis\"\n".into(),
            ),
            settings: vec![
                ("docker.image".into(), "debian".into()),
                ("docker.volumes".into(), "/cache".into()),
                ("docker.volumes".into(), "/data".into()),
                ("microvm.network.mode".into(), "none".into()),
                ("feature_flags".into(), "FF_TIMESTAMPS:false".into()),
                ("request_concurrency".into(), "3".into()),
            ],
            ..new_runner()
        })
        .unwrap();
    editor.save().unwrap();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
    concurrent = 1

    [[runners]]
    limit = 2
    name = "new"
    url = "https://gitlab.com"
    token = "glrt-new"
    id = 7
    token_obtained_at = 2026-11-24T08:00:00Z
    executor = "microvm"
    feature_flags = { FF_TIMESTAMPS = false }
    request_concurrency = 3
    [runners.docker]
    image = "debian"
    memory = "1g"
    volumes = ["/cache", "/data"]
    [[runners.docker.services]]
    name = "redis"

    [runners.microvm.network]
    mode = "none"
    "#);
    crate::load(&path).unwrap();
}

#[test]
fn settings_that_do_not_exist_or_do_not_fit_are_refused() {
    let (_directory, path) = file(FILE);
    let mut editor = Editor::open(&path).unwrap();
    let mut refuse = |name: &str, value: &str| {
        let new = NewRunner { settings: vec![(name.into(), value.into())], ..new_runner() };
        editor.append(&new).unwrap_err().to_string().replace(&path.display().to_string(), "config.toml")
    };
    insta::assert_snapshot!(refuse("docker.imge", "x"), @"unknown key `runners.docker.imge`: did you mean `image`?");
    insta::assert_snapshot!(refuse("limit", "many"), @"`runners.limit` must be an integer");
    insta::assert_snapshot!(refuse("nowhere.x", "many"), @"there is no setting `runners.nowhere.x`");
    insta::assert_snapshot!(refuse("executor", "shell"), @r#"the change was not made because the configuration would be wrong: config.toml:29:12: the executor "shell" is not supported: Tart runs every job in its own microVM, write "microvm""#);
    assert_eq!(editor.config().runners.len(), 2);
    assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
}

#[test]
fn removing_a_runner_takes_its_own_comment_only() {
    let (_directory, path) = file(FILE);
    let mut editor = Editor::open(&path).unwrap();
    let index = editor.find("https://gitlab.example.com/", &Secret::new("glrt-slow")).unwrap();
    editor.remove(index).unwrap();
    editor.save().unwrap();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
    # Our builders.
    concurrent = 4 # one for each core

    # Old hardware.

    [[runners]]
    name = "fast"
    url = "https://gitlab.example.com"
    token = "glrt-fast"

    [session_server]
    session_timeout = 1800
    # The end.
    "#);
    let mut editor = Editor::open(&path).unwrap();
    editor.remove(0).unwrap();
    assert!(matches!(editor.remove(0), Err(EditError::NoRunner(0))));
    editor.save().unwrap();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @"
    # Our builders.
    concurrent = 4 # one for each core

    [session_server]
    session_timeout = 1800

    # Old hardware.
    # The end.
    ");
}

#[test]
fn a_new_token_replaces_only_the_old_one() {
    let (_directory, path) = file(FILE);
    let mut editor = Editor::open(&path).unwrap();
    let expires: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    editor.set_token(0, &Secret::new("glrt-renewed"), None, Some(expires)).unwrap();
    let config = editor.save().unwrap();
    assert_eq!(config.runners[0].token_expires_at, Some(expires));
    let text = fs::read_to_string(&path).unwrap();
    let expected = FILE.replace(
        "token = 'glrt-slow' # from the UI\n",
        "token = \"glrt-renewed\" # from the UI\ntoken_expires_at = 2027-01-01T00:00:00Z\n",
    );
    assert_eq!(text, expected);
}

#[test]
fn a_linked_file_stays_linked() {
    let (directory, path) = file(FILE);
    let link = directory.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut editor = Editor::open(&link).unwrap();
    editor.remove(0).unwrap();
    editor.save().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(crate::load(&path).unwrap().config.runners.len(), 1);
}

#[test]
fn a_file_with_problems_is_not_edited() {
    let (_directory, path) = file("concurent = 1\n");
    assert!(matches!(Editor::open(&path), Err(EditError::Load(_))));
    let (_directory, path) = file("runners = []\n");
    let mut editor = Editor::open(&path).unwrap();
    assert!(matches!(editor.append(&new_runner()), Err(EditError::InlineRunners(_))));
}

#[test]
fn a_file_that_others_may_read_is_warned_of() {
    let (_directory, path) = file(FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = crate::load(&path).unwrap();
    assert!(loaded.warnings[0].text.contains("mode 0644"));
}

/// A change to a file.
#[derive(Debug, Clone)]
enum Change {
    Append { name: String, token: String, vcpus: u32, comment: bool },
    Remove(usize),
    Renew(usize, String),
}

fn changes() -> impl proptest::strategy::Strategy<Value = Vec<Change>> {
    use proptest::prelude::*;
    let change = prop_oneof![
        ("\\PC{0,12}", "[!-#%-~]{1,20}", 1..64_u32, any::<bool>())
            .prop_map(|(name, token, vcpus, comment)| Change::Append { name, token, vcpus, comment }),
        (0..4_usize).prop_map(Change::Remove),
        (0..4_usize, "[!-#%-~]{1,20}").prop_map(|(index, token)| Change::Renew(index, token)),
    ];
    prop::collection::vec(change, 0..8)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_saved_is_what_is_loaded(changes in changes()) {
        let (_directory, path) = file(FILE);
        let mut expected = crate::load(&path).unwrap().config;
        for change in changes {
            let mut editor = Editor::open(&path).unwrap();
            let count = editor.config().runners.len();
            match change {
                Change::Append { name, token, vcpus, comment } => {
                    let template = comment.then(|| "# Template.\n[[runners]]\n# A limit.\nlimit = 5\n".to_owned());
                    let settings = vec![("microvm.vcpus".to_owned(), vcpus.to_string())];
                    let new = NewRunner { name: name.clone(), token: Secret::new(&token), template, settings, ..new_runner() };
                    editor.append(&new).unwrap();
                    let mut runner = crate::Runner {
                        name,
                        url: new.url.clone(),
                        token: new.token.clone(),
                        id: 7,
                        token_obtained_at: new.token_obtained_at,
                        limit: if comment { 5 } else { 0 },
                        ..crate::Runner::default()
                    };
                    runner.microvm.vcpus = vcpus;
                    expected.runners.push(runner);
                }
                Change::Remove(index) if index < count => {
                    editor.remove(index).unwrap();
                    expected.runners.remove(index);
                }
                Change::Renew(index, token) if index < count => {
                    editor.set_token(index, &Secret::new(&token), None, None).unwrap();
                    let runner = &mut expected.runners[index];
                    runner.token = Secret::new(token);
                    runner.token_obtained_at = None;
                }
                Change::Remove(_) | Change::Renew(..) => {}
            }
            editor.save().unwrap();
            proptest::prop_assert_eq!(&crate::load(&path).unwrap().config, &expected);
        }
        let text = fs::read_to_string(&path).unwrap();
        for comment in ["# Our builders.", "# one for each core", "# Old hardware.", "# The end."] {
            proptest::prop_assert!(text.contains(comment), "{} is lost in\n{}", comment, text);
        }
    }
}
