//! The short stages around a job: preparing the guest, clearing after a failed fetch, cleaning up.

use super::writer::{Script, quote};
use crate::dirs::JobDirs;

/// The line that says where a job runs, with its line feed. `via` is the host's name.
pub(crate) fn running_on(hostname: &str, via: Option<&str>) -> String {
    let via = via.map(|host| format!(" via {host}")).unwrap_or_default();
    format!("Running on {hostname}{via}...\n")
}

/// The script of `prepare_script`: says where the job runs and empties what is carried between stages.
pub fn prepare(dirs: &JobDirs, host_name: Option<&str>, debug_trace: bool) -> String {
    let mut script = Script::new(debug_trace);
    let via = host_name.map(|host| format!(" via {host}")).unwrap_or_default();
    script.line(&format!(r#"printf 'Running on %s%s...\n' "$(uname -n)" {}"#, quote(&via)));
    script.run(["mkdir", "-p", &dirs.temp_dir]);
    script.line(&format!(": > {}", quote(&dirs.gitlab_env())));
    script.finish()
}

/// The script of `clear_worktree`, which runs between two attempts to get the sources. The repository itself is
/// kept if git can read it, so that what was fetched already need not be fetched again.
pub fn clear_worktree(dirs: &JobDirs, debug_trace: bool) -> String {
    let mut script = Script::new(debug_trace);
    let build_dir = quote(&dirs.build_dir);
    script.line(&format!("if [ -d {build_dir} ]; then"));
    script.line(&format!("  find {build_dir} -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf -- {{}} +"));
    script.line(&format!("  if git -C {build_dir} rev-parse --verify --quiet HEAD >/dev/null 2>&1; then"));
    script.line(&format!("    rm -f -- {build_dir}/.git/index {build_dir}/.git/index.lock"));
    script.line("  else");
    script.line(&format!("    rm -rf -- {build_dir}/.git"));
    script.line("  fi");
    script.line("fi");
    script.finish()
}

/// The script of `cleanup_file_variables`: nothing of the temporary directory outlives the job.
pub fn cleanup(dirs: &JobDirs, debug_trace: bool) -> String {
    let mut script = Script::new(debug_trace);
    let temp_dir = quote(&dirs.temp_dir);
    script.line(&format!("if [ -d {temp_dir} ]; then"));
    script.line(&format!("  find {temp_dir} -mindepth 1 -delete"));
    script.line("fi");
    script.finish()
}
