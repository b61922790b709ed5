//! Why a guest does not answer any more, and what its console tells of it. The console is the guest's own word: it
//! explains, and decides nothing.

use std::time::Duration;

use tart_vmm::{ExitKind, Machine, MachineExit};

/// A machine that ends breaks its agent's stream first; its end is the better explanation.
const END_AFTER_ERROR: Duration = Duration::from_secs(2);

/// Lines of a console that are shown.
const SHOWN_LINES: usize = 15;

/// Longest line of a console that is shown, in characters.
const SHOWN_WIDTH: usize = 240;

/// Explains a lost session. `error` is what the session said.
pub(super) async fn explain(machine: &dyn Machine, error: &(impl std::fmt::Display + Sync)) -> String {
    let exit = tokio::time::timeout(END_AFTER_ERROR, machine.wait()).await.ok();
    let console = machine.console_tail();
    match exit {
        Some(exit) => ended(exit, &console),
        None => format!("the guest's agent does not answer any more: {error}{}", shown(&console)),
    }
}

/// Explains a machine's end during a job.
fn ended(exit: MachineExit, console: &str) -> String {
    let what = match exit.kind {
        ExitKind::Guest => match panic_line(console) {
            Some(line) => format!("the guest's kernel panicked: {line}"),
            None => "the guest reset or powered off itself".to_owned(),
        },
        ExitKind::Killed | ExitKind::Failed | ExitKind::Crashed => {
            format!("the virtual machine is gone: {exit}")
        }
    };
    format!("{what}{}", shown(console))
}

fn panic_line(console: &str) -> Option<String> {
    let mark = "Kernel panic - not syncing: ";
    let line = console.lines().rev().find_map(|line| line.split_once(mark))?.1;
    Some(cut(line.trim()))
}

fn shown(console: &str) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
    if last.is_empty() {
        return "; its console is empty".to_owned();
    }
    let last: Vec<_> = last.iter().map(|line| cut(line)).collect();
    format!("; the last lines of its console:\n  {}", last.join("\n  "))
}

fn cut(line: &str) -> String {
    line.chars().take(SHOWN_WIDTH).collect()
}

/// Names of the processes that the guest's kernel killed for lack of memory, the last first, each once.
pub(crate) fn killed_for_memory(console: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in console.lines().rev() {
        // `Memory cgroup out of memory: Killed process 123 (python3) total-vm:...`
        let Some((_, rest)) = line.split_once("Killed process ") else { continue };
        if !line.to_ascii_lowercase().contains("out of memory") {
            continue;
        }
        let Some((_, rest)) = rest.split_once('(') else { continue };
        let Some((name, _)) = rest.split_once(") total-vm").or_else(|| rest.split_once(')')) else {
            continue;
        };
        let name = cut(name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use tart_vmm::ProcessStatus;

    use super::*;

    const PANIC: &str = "[    3.1] job starts\n\n[   12.5] Kernel panic - not syncing: sysrq triggered crash\n[   12.6] CPU: 0\n";

    #[test]
    fn a_panic_is_told_from_a_reset_and_from_a_crashed_monitor() {
        let exit = |kind, status| MachineExit { kind, status };
        let guest = exit(ExitKind::Guest, ProcessStatus::Code(0));
        insta::assert_snapshot!(ended(guest, PANIC), @"
        the guest's kernel panicked: sysrq triggered crash; the last lines of its console:
          [    3.1] job starts
          [   12.5] Kernel panic - not syncing: sysrq triggered crash
          [   12.6] CPU: 0
        ");
        insta::assert_snapshot!(ended(guest, ""), @"the guest reset or powered off itself; its console is empty");
        insta::assert_snapshot!(
            ended(exit(ExitKind::Crashed, ProcessStatus::Signal(11)), ""),
            @"the virtual machine is gone: the virtual machine monitor was ended by signal 11; its console is empty"
        );
    }

    #[test]
    fn the_kernel_names_whom_it_killed() {
        let console = "\
[   9.0] Memory cgroup out of memory: Killed process 77 (stress (x)) total-vm:900kB, anon-rss:1kB
[   9.1] Out of memory: Killed process 78 (python3) total-vm:1kB
[   9.2] Memory cgroup out of memory: Killed process 79 (python3) total-vm:1kB
[   9.3] someone Killed process 80 (innocent)
[   9.4] out of memory: Killed process 81 (cut";
        assert_eq!(killed_for_memory(console), ["python3", "stress (x)"]);
    }

    proptest::proptest! {
        #[test]
        fn a_hostile_console_is_harmless(console in "(?s).{0,300}") {
            let _names = killed_for_memory(&console);
            let _text = ended(MachineExit { kind: ExitKind::Guest, status: ProcessStatus::Unknown }, &console);
        }
    }
}
