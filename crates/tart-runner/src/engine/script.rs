//! Running one stage's script in the guest.

use std::time::Duration;

use tart_assets::ImageConfig;
use tart_guest::{Command, CommandEvent, Guest, GuestError};
use tart_job::outcome::Failure;
use tart_job::scripts::SHELL_CANDIDATES;
use tart_job::stages::Place;
use tart_job::variables::VariableFile;
use tart_proto::message::{Exec, ExitStatus, Exited, FailureKind, Limits, Output, PutFile, Root};
use tokio::time::{Instant, sleep_until, timeout};

use super::control::{Control, Scope};
use super::log::JobLog;
use super::services::Services;

/// How long a script may take to end by itself when it is stopped.
const GRACE: Duration = Duration::from_secs(10);

/// How much longer than that the guest's agent may take to end it and to send what it printed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Searched for programs where nothing says otherwise.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name of the script's file in the job's temporary directory. No variable has such a name.
const SCRIPT_FILE: &str = ".tart-script";

/// Only the owner may read.
const PRIVATE: u32 = 0o600;

/// A script to run.
#[derive(Debug)]
pub(super) struct Script {
    /// Its text.
    pub(super) text: String,
    /// The tree it runs in.
    pub(super) place: Place,
    /// How it may be started, best first: the first whose program is in the tree is used.
    pub(super) shells: Vec<Start>,
    /// Its environment; the last of a name wins.
    pub(super) environment: Vec<(String, String)>,
    /// Who runs it, in the words of the image.
    pub(super) user: String,
    /// Its control group in the guest.
    pub(super) cgroup: String,
    /// The job's temporary directory.
    pub(super) directory: String,
    /// Written there before.
    pub(super) files: Vec<VariableFile>,
}

/// How a script is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// These words and the script's path.
    Path(Vec<String>),
    /// These words end in a shell that reads its commands from its input, and is told the script's path there.
    Input {
        /// Program and arguments.
        argv: Vec<String>,
        /// The working directory.
        directory: String,
    },
}

/// How a script did not end well.
#[derive(Debug)]
pub(super) enum Broken {
    /// It had to be stopped.
    Halted(Failure),
    /// The guest does not answer as it should.
    Guest(GuestError),
    /// The guest did not stop the script within the limit.
    Stuck(Failure),
    /// There is no shell to run it.
    NoShell,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Halted(failure)
    }
}

impl From<GuestError> for Broken {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

/// What a script left behind, however it ended.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// When its first output came.
    pub(super) first_output: Option<Instant>,
    /// Bytes of output.
    pub(super) output: u64,
    /// How it ended, if it was heard.
    pub(super) exited: Option<Exited>,
}

/// What a script runs in the midst of.
pub(super) struct Surroundings<'a> {
    /// What ends it.
    pub(super) scope: &'a Scope,
    pub(super) control: &'a mut Control,
    pub(super) log: &'a mut JobLog,
    /// Their lines come between those of the script.
    pub(super) services: &'a mut Services,
}

/// Runs a script to its end, with its output in the log. `on_halt` is called when it has to stop, for lines of the log.
pub(super) async fn run(
    guest: &Guest,
    script: &Script,
    mut surroundings: Surroundings<'_>,
    trail: &mut Trail,
    on_halt: impl FnOnce(&Failure, &mut JobLog) + Send,
) -> Result<ExitStatus, Broken> {
    let Surroundings { scope, control, log, .. } = &mut surroundings;
    let command = match control.unless_halted(scope, start(guest, script)).await {
        Ok(started) => started?,
        Err(failure) => {
            on_halt(&failure, log);
            return Err(Broken::Halted(failure));
        }
    };
    follow(command, surroundings, trail, on_halt).await
}

async fn start(guest: &Guest, script: &Script) -> Result<Command, Broken> {
    for file in &script.files {
        put(guest, &file.path, &script.user, file.content.as_bytes()).await?;
    }
    let path = format!("{}/{SCRIPT_FILE}", script.directory);
    put(guest, &path, &script.user, script.text.as_bytes()).await?;
    for shell in &script.shells {
        match guest.exec(&exec(script, shell, &path)).await {
            Ok(command) => {
                if matches!(shell, Start::Input { .. }) {
                    tell(&command, &path).await?;
                }
                return Ok(command);
            }
            Err(error) if error.failure_kind() == Some(FailureKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Broken::NoShell)
}

/// The tree of the job has the temporary directory too, and knows the user.
async fn put(guest: &Guest, path: &str, owner: &str, contents: &[u8]) -> Result<(), GuestError> {
    let file = PutFile { root: Root::Job, path: path.to_owned(), mode: PRIVATE, owner: owner.to_owned() };
    guest.put_file(&file, contents).await
}

/// Has the shell that an entrypoint was given become the one that runs the script.
async fn tell(command: &Command, path: &str) -> Result<(), GuestError> {
    let control = command.control();
    let line = format!("exec \"${{BASH:-sh}}\" {} </dev/null\n", quoted(path));
    control.write_stdin(line.into()).await?;
    control.close_stdin().await
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn exec(script: &Script, shell: &Start, path: &str) -> Exec {
    let (argv, cwd, stdin) = match shell {
        Start::Path(words) => {
            let path = std::iter::once(path.to_owned());
            (words.iter().cloned().chain(path).collect(), "/", false)
        }
        Start::Input { argv, directory } => (argv.clone(), directory.as_str(), true),
    };
    let mut env = vec![("PATH".to_owned(), PATH.to_owned())];
    env.extend(script.environment.iter().cloned());
    Exec {
        root: match script.place {
            Place::Helper => Root::Helper,
            Place::Job => Root::Job,
        },
        argv,
        env,
        cwd: cwd.to_owned(),
        user: match script.place {
            Place::Helper => String::new(),
            Place::Job => script.user.clone(),
        },
        // One pipe for both keeps the order in which lines were written.
        output: Output::Merged,
        stdin,
        cgroup: script.cgroup.clone(),
        limits: Limits::default(),
    }
}

async fn follow(
    mut command: Command,
    surroundings: Surroundings<'_>,
    trail: &mut Trail,
    on_halt: impl FnOnce(&Failure, &mut JobLog) + Send,
) -> Result<ExitStatus, Broken> {
    let Surroundings { scope, control, log, services } = surroundings;
    let halted = loop {
        let event = tokio::select! {
            biased;
            failure = control.halted(scope) => break failure,
            event = next(&mut command, log, services) => event?,
        };
        if let Some(status) = take(event, log, trail) {
            return Ok(status);
        }
    };
    on_halt(&halted, log);
    if matches!(halted, Failure::Aborted | Failure::Interrupted(_)) {
        // The machine's end is near, and nobody waits for what the script still has to say.
        return Err(Broken::Halted(halted));
    }
    // A flood of output that nobody takes must not hold the end up: from here on it waits only for the limit.
    let limit = Instant::now() + STOP_LIMIT;
    // If it cannot be told, it has ended by itself, or the guest is gone: either shows in what comes next.
    let _told = timeout(GRACE, command.control().cancel(GRACE)).await;
    let no_limits = Scope::default();
    loop {
        let event = tokio::select! {
            biased;
            failure = control.halted(&no_limits) => return Err(Broken::Halted(failure)),
            () = sleep_until(limit) => return Err(Broken::Stuck(halted)),
            event = next(&mut command, log, services) => event?,
        };
        if take(event, log, trail).is_some() {
            return Err(Broken::Halted(halted));
        }
    }
}

/// What the script does next. Lines of services go to the log meanwhile; neither can keep the other from it.
async fn next(
    command: &mut Command,
    log: &mut JobLog,
    services: &mut Services,
) -> Result<CommandEvent, GuestError> {
    loop {
        log.ready().await;
        tokio::select! {
            event = command.next() => return event,
            (number, lines) = services.lines() => log.service(number, &lines),
        }
    }
}

fn take(event: CommandEvent, log: &mut JobLog, trail: &mut Trail) -> Option<ExitStatus> {
    match event {
        CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes) => {
            trail.first_output.get_or_insert_with(Instant::now);
            trail.output += bytes.len() as u64;
            log.output(&bytes);
            None
        }
        CommandEvent::Exited(exited) => {
            trail.exited = Some(exited);
            Some(exited.status)
        }
    }
}

/// A script's end as a result.
pub(super) fn outcome(status: ExitStatus) -> Result<(), Failure> {
    match status {
        ExitStatus::Code(0) => Ok(()),
        ExitStatus::Code(code) => Err(Failure::ExitCode(code)),
        // As shells say it.
        ExitStatus::Signal(signal) => Err(Failure::ExitCode(signal.saturating_add(128))),
    }
}

/// The shell of the helper tree. What it makes for a `user` other than root is made writable for everyone, as the
/// official runner does it.
pub(super) fn helper_shell(user: &str) -> Start {
    let mut shell = vec!["/bin/bash".to_owned()];
    if !is_root(user) {
        shell.extend(["-c", "umask 0000 && . \"$0\""].map(str::to_owned));
    }
    Start::Path(shell)
}

/// Whether a user in the words of the image is root.
pub(super) fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// How scripts may be started in the job's tree. An image with an entrypoint has its shell started by that, as
/// containers have, in the image's working directory. `only_sh` leaves bash out. `first` is the first that the image has,
/// if that is known.
pub(super) fn job_shells(image: &ImageConfig, only_sh: bool, first: Option<&str>) -> Vec<Start> {
    let absent = |path: &&&str| first.is_some_and(|first| first != **path);
    let candidates = SHELL_CANDIDATES.iter().skip_while(absent);
    let candidates = candidates.filter(|path| !only_sh || !path.ends_with("bash"));
    if image.entrypoint.is_empty() {
        return candidates.map(|path| Start::Path(vec![(*path).to_owned()])).collect();
    }
    let tests: Vec<_> = candidates.map(|path| format!("if [ -x {path} ]; then exec {path}; fi")).collect();
    let find = format!("{}; echo 'shell not found'; exit 1", tests.join("; "));
    let mut argv = image.entrypoint.clone();
    argv.extend(["sh".to_owned(), "-c".to_owned(), find]);
    let directory = if image.workdir.is_empty() { "/".to_owned() } else { image.workdir.clone() };
    vec![Start::Input { argv, directory }]
}

/// The name of a stage's control group in the guest.
pub(super) fn cgroup(stage: &str) -> String {
    const LONGEST: usize = 64;
    let legal = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-') { c } else { '_' };
    stage.chars().map(legal).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(place: Place) -> Script {
        Script {
            text: "true".to_owned(),
            place,
            shells: Vec::new(),
            environment: vec![("SECRET".to_owned(), "x".to_owned()), ("PATH".to_owned(), "/own".to_owned())],
            user: "1000".to_owned(),
            cgroup: "step_script".to_owned(),
            directory: "/builds/p.tmp".to_owned(),
            files: Vec::new(),
        }
    }

    fn path(words: &[&str]) -> Start {
        Start::Path(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn the_users_script_runs_as_the_images_user_with_its_own_search_path() {
        let exec = exec(&script(Place::Job), &path(&["/bin/bash"]), "/builds/p.tmp/.tart-script");
        assert_eq!(exec.argv, ["/bin/bash", "/builds/p.tmp/.tart-script"]);
        assert_eq!((exec.root, exec.user.as_str(), exec.stdin), (Root::Job, "1000", false));
        let path = exec.env.iter().rev().find(|(key, _)| key == "PATH").unwrap();
        assert_eq!(path.1, "/own");
    }

    #[test]
    fn the_helpers_tools_run_as_root() {
        let exec = exec(&script(Place::Helper), &path(&["/bin/bash"]), "/s");
        assert_eq!((exec.root, exec.user.as_str()), (Root::Helper, ""));
    }

    #[test]
    fn shells_are_tried_bash_first_unless_the_runner_knows_better() {
        let first = |only_sh, known| job_shells(&ImageConfig::default(), only_sh, known).remove(0);
        assert_eq!(first(false, None), path(&["/usr/local/bin/bash"]));
        assert_eq!(first(true, None), path(&["/usr/local/bin/sh"]));
        assert_eq!(first(false, Some("/bin/bash")), path(&["/bin/bash"]));
        assert_eq!(first(true, Some("/bin/bash")), path(&["/usr/local/bin/sh"]));
    }

    #[test]
    fn an_entrypoint_starts_the_shell() {
        let image = ImageConfig {
            entrypoint: vec!["/entry".to_owned(), "--".to_owned()],
            workdir: "/srv".to_owned(),
            ..ImageConfig::default()
        };
        let starts = job_shells(&image, true, None);
        let exec = exec(&script(Place::Job), &starts[0], "/builds/p.tmp/.tart-script");
        assert_eq!((exec.cwd.as_str(), exec.stdin), ("/srv", true));
        insta::assert_snapshot!(exec.argv.join(" | "), @"/entry | -- | sh | -c | if [ -x /usr/local/bin/sh ]; then exec /usr/local/bin/sh; fi; if [ -x /usr/bin/sh ]; then exec /usr/bin/sh; fi; if [ -x /bin/sh ]; then exec /bin/sh; fi; if [ -x /busybox/sh ]; then exec /busybox/sh; fi; echo 'shell not found'; exit 1");
        assert_eq!(quoted("/a'b"), r"'/a'\''b'");
    }

    #[test]
    fn sources_are_writable_for_a_user_who_is_not_root() {
        for root in ["", "0", "root", "root:root", "0:0"] {
            assert_eq!(helper_shell(root), path(&["/bin/bash"]), "{root}");
        }
        assert_eq!(helper_shell("1000:1000"), path(&["/bin/bash", "-c", "umask 0000 && . \"$0\""]));
    }

    #[test]
    fn a_signal_is_reported_as_shells_do() {
        assert_eq!(outcome(ExitStatus::Signal(9)), Err(Failure::ExitCode(137)));
        assert_eq!(outcome(ExitStatus::Code(3)), Err(Failure::ExitCode(3)));
        assert_eq!(outcome(ExitStatus::Code(0)), Ok(()));
    }

    #[test]
    fn control_groups_have_legal_names() {
        assert_eq!(cgroup("step_größe/x.y"), "step_gr__e_x_y");
        assert_eq!(cgroup(&"a".repeat(100)).len(), 64);
    }
}
