//! Jobs in root file systems of the user.

use std::process::Command;

use tart_e2e::{Config, JOB, Scene};
use tart_test_gitlab::{JobSpec, JobState};

/// Makes a tarball of a root file system that holds a few of this machine's programs, and no bash.
const MAKE: &str = r#"
mkdir -p root/bin root/etc root/tmp root/proc root/dev && cd root
for program in sh cat ls uname mkdir rm chmod sleep id; do
    file=$(readlink -f "$(command -v "$program")")
    cp "$file" "bin/$program"
    ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
        [ -e ".$library" ] || { mkdir -p ".${library%/*}" && cp -L "$library" ".$library"; }
    done
done
echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
echo 'mine' > etc/made-by
tar -czf ../root.tar.gz .
"#;

#[tokio::test]
async fn a_job_runs_in_the_users_own_root_file_system() {
    let scene = Scene::start(&Config::default()).await;
    let made =
        Command::new("sh").args(["-euc", MAKE]).current_dir(scene.directory()).output().expect("sh runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let image = scene.path("root.tar.gz");
    let config = Config::default().microvm(&format!("image = \"{}\"", image.display()));
    scene.write_config(&config.render(scene.server.url(), &scene.runner.token(), &scene.path("state")));

    let project = scene.server.create_project("group/app").await;
    project.commit_file("a.txt", "from git\n").await;
    let lines = ["cat /etc/made-by a.txt", "echo bash=${BASH_VERSION:-none}", "ls /bin"];
    let job = scene.server.enqueue(JobSpec::of(&project, lines)).await;
    let tart = scene.run();
    assert_eq!(job.wait_finished(JOB).await, JobState::Success, "{}", job.log());
    scene.drain(tart).await;
    for expected in ["mine", "from git", "bash=none"] {
        assert!(job.log().contains(expected), "no {expected:?} in {}", job.log());
    }
    scene.finish();
}
