//! `/init` of every guest.

use std::{process::ExitCode, sync::Arc};

use tart_agent::{boot, console, exec::reaper::Reaper, machine, shutdown, transport};

/// Threads for file contents; more would only take memory from the job.
const MAX_BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        console::say("this is PID 1 of a Tart guest; it does nothing when run by hand");
        return ExitCode::from(2);
    }
    let init_uptime = machine::uptime();
    // PID 1 must not end: the kernel would panic, and say less of why.
    std::panic::set_hook(Box::new(|panic| {
        console::say(panic);
        shutdown::reset();
    }));
    if let Err(error) = run(init_uptime) {
        console::say(format_args!("cannot serve: {error}"));
    }
    shutdown::reset();
}

fn run(init_uptime: std::time::Duration) -> std::io::Result<()> {
    let reaper = Reaper::default();
    let machine = Arc::new(boot::start(reaper.clone(), init_uptime)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            reaped = reaper.run() => reaped,
            served = transport::run(&machine) => served,
        }
    })
}
