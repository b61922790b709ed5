//! `/init` of every guest, the program that its kernel starts to load a module, and the helper that makes archives.

use std::{process::ExitCode, sync::Arc};

use tart_agent::{boot, boot::modules, console, exec::reaper::Reaper, machine, shutdown, transport};
use tart_proto::message::HELPER;

/// Threads for file contents; more would only take memory from the job.
const MAX_BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        let arguments: Vec<_> = std::env::args().collect();
        if let [name, rest @ ..] = &arguments[..]
            && name == HELPER
        {
            return tart_archive::helper(rest.first().map(String::as_str));
        }
        if let Some(wanted) = modules::asked_for(arguments.iter().map(String::as_str)) {
            // The kernel looks for many that nobody has, and says itself what it lacks then.
            let loaded = modules::load_on_demand(modules::DIRECTORY.as_ref(), wanted);
            return if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
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
