use std::process::Command;

use super::*;

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "user.name=Ann",
        "-c",
        "user.email=ann@example.com",
        "-c",
        "init.defaultBranch=main",
    ]);
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn repository() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "--quiet"]);
    fs::write(directory.path().join("kept"), "1\n").unwrap();
    fs::write(directory.path().join(".gitignore"), "ignored\n").unwrap();
    git(directory.path(), &["add", "."]);
    git(directory.path(), &["commit", "--quiet", "-m", "First\n\nWith a body."]);
    directory
}

/// Every file of a directory with its size, so that any change shows.
fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                left.push(entry.path());
            } else {
                found.push((entry.path(), metadata.len()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_clean_tree_is_its_own_commit() {
    let directory = repository();
    let snapshot = Snapshot::take(directory.path()).await.unwrap();
    assert!(!snapshot.is_changed());
    assert_eq!(snapshot.commit().sha, git(directory.path(), &["rev-parse", "HEAD"]));
    assert_eq!(snapshot.commit().author, "Ann <ann@example.com>");
    assert_eq!(snapshot.commit().message, "First\n\nWith a body.\n");
    assert_eq!(snapshot.ref_name(), "main");
}

#[tokio::test]
async fn uncommitted_changes_are_taken_and_the_repository_stays_as_it_is() {
    let directory = repository();
    let sub = directory.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("new"), "2\n").unwrap();
    fs::write(directory.path().join("kept"), "changed\n").unwrap();
    fs::write(directory.path().join("ignored"), "secret\n").unwrap();
    let before = listing(directory.path());

    let snapshot = Snapshot::take(&sub).await.unwrap();
    assert!(snapshot.is_changed());
    assert_eq!(listing(directory.path()), before);
    let served = &snapshot.repository;
    let files = git(served, &["ls-tree", "-r", "--name-only", &snapshot.commit().sha]);
    assert_eq!(files.lines().collect::<Vec<_>>(), [".gitignore", "kept", "sub/new"]);
    assert_eq!(git(served, &["show", &format!("{}:kept", snapshot.commit().sha)]), "changed");
    let parent = git(served, &["rev-parse", &format!("{}^", snapshot.commit().sha)]);
    assert_eq!(parent, git(directory.path(), &["rev-parse", "HEAD"]));

    let kept = served.clone();
    drop(snapshot);
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_repository_without_commits_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "--quiet"]);
    fs::write(directory.path().join("new"), "").unwrap();
    let snapshot = Snapshot::take(directory.path()).await.unwrap();
    assert!(snapshot.is_changed());
    assert_eq!(git(&snapshot.repository, &["ls-tree", "--name-only", &snapshot.commit().sha]), "new");
}

#[tokio::test]
async fn what_is_no_repository_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = Snapshot::take(directory.path()).await.unwrap_err();
    assert!(matches!(error, LocalError::NoRepository(_)), "{error}");
}

#[test]
fn the_project_is_named_after_its_remote() {
    for (remote, path) in [
        ("https://gitlab.example.com/group/sub/project.git", Some("group/sub/project")),
        ("git@gitlab.example.com:group/project.git", Some("group/project")),
        ("ssh://git@gitlab.example.com:22/group/project/", Some("group/project")),
        ("https://user:token@host/g/p q", Some("g/p-q")),
        ("/srv/git/project.git", None),
        ("../project", None),
        ("file:///srv/project", None),
        ("https://host/../x", None),
        ("https://host/project", None),
    ] {
        assert_eq!(path_of_remote(remote).as_deref(), path, "{remote}");
    }
}

#[tokio::test]
async fn a_change_of_the_same_moment_and_size_is_seen() {
    let directory = repository();
    let moment = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let stamp = |name: &str| {
        let file = fs::File::options().write(true).open(directory.path().join(name)).unwrap();
        file.set_modified(moment).unwrap();
    };
    // Times of changes of the inode cannot be set, so git must not look at them.
    git(directory.path(), &["config", "core.trustctime", "false"]);
    fs::write(directory.path().join("kept"), "2\n").unwrap();
    stamp("kept");
    git(directory.path(), &["commit", "--quiet", "-am", "Second"]);
    stamp(".git/index");
    fs::write(directory.path().join("kept"), "3\n").unwrap();
    stamp("kept");
    let snapshot = Snapshot::take(directory.path()).await.unwrap();
    assert!(snapshot.is_changed());
}
