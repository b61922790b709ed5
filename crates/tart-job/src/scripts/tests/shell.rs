use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The shells that every user script has to work with; `dev/setup` installs them.
pub(super) const SHELLS: [&[&str]; 3] = [&["bash"], &["dash"], &["busybox", "sh"]];

/// What a script did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A directory with a `gitlab_runner_env` file, in which scripts run.
pub(super) struct Guest {
    dir: TempDir,
    environment: Vec<(String, String)>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().join("home");
        std::fs::create_dir(&home).expect("a home");
        let gitlab_env = dir.path().join("gitlab_runner_env");
        let path = std::env::var("PATH").expect("tests have a PATH");
        let environment = [
            ("PATH", path.as_str()),
            ("HOME", home.to_str().expect("text")),
            ("GITLAB_ENV", gitlab_env.to_str().expect("text")),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Self { dir, environment }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    pub(super) fn run(&self, shell: &[&str], script: &str) -> Ran {
        let file = self.file("script");
        std::fs::write(&file, script).expect("a script");
        let output = Command::new(shell[0])
            .args(&shell[1..])
            .arg(&file)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{shell:?}: {error}; run dev/setup"));
        Ran {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
