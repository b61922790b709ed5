//! The wait until services are up, in the words of the official runner.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tart_job::Level;
use tart_job::outcome::Failure;
use tart_proto::message::ExitStatus;
use tokio::time::timeout;

use super::super::control::Scope;
use super::super::job::Job;
use super::{End, RunningService, Services};
use crate::guest::{JobGuest, address_of};

/// How long services may take where the configuration says 0.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// Why a service did not come up.
#[derive(Debug)]
struct Unhealthy {
    service: usize,
    error: String,
    /// What was tried.
    check: String,
}

impl Job<'_> {
    /// Waits until every service accepts connections, as long as the configuration lets it. What does not come up is
    /// told of in the log.
    pub(super) async fn await_services(
        &mut self,
        scope: &Scope,
        guest: &JobGuest,
        services: &mut Services,
    ) -> Result<(), Failure> {
        let Some(limit) = limit(self.run.runner.docker.wait_for_services_timeout) else { return Ok(()) };
        let text =
            format!("Waiting for services to be up and running (timeout {} seconds)...", limit.as_secs());
        self.log.line(Level::Print, &text);
        let checks =
            (0..).zip(&services.running).map(|(number, service)| check(guest, number, service, limit));
        let checked = join_all(checks);
        tokio::pin!(checked);
        let mut lines = services.lines.take();
        let results = loop {
            tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure),
                results = &mut checked => break results,
                Some((number, text)) = received(&mut lines) => self.log.service(number, &text),
            }
        };
        services.lines = lines;
        for unhealthy in results.into_iter().flatten() {
            if let Some(service) = services.running.get(unhealthy.service) {
                self.warn(service, &unhealthy);
            }
        }
        Ok(())
    }

    fn warn(&mut self, service: &RunningService, unhealthy: &Unhealthy) {
        let name = &service.found.plan.image.name;
        self.log
            .line(Level::Warning, &format!("*** WARNING: Service {name} probably didn't start properly."));
        let head = format!(
            "\nHealth check error:\n{}\n\nHealth check container logs:\n{}\n\nService container logs:",
            unhealthy.error, unhealthy.check
        );
        for line in head.lines() {
            self.log.line(Level::Print, line);
        }
        let said = service.tail.lock().unwrap_or_else(PoisonError::into_inner).text();
        self.log.output(&said);
        if !said.is_empty() && !said.ends_with(b"\n") {
            self.log.output(b"\n");
        }
        self.log.line(Level::Print, "");
        self.log.line(Level::Warning, "*********");
        self.log.line(Level::Print, "");
    }
}

/// The wait of the configuration: a negative number is none at all.
fn limit(seconds: i32) -> Option<Duration> {
    match u64::try_from(seconds) {
        Ok(0) => Some(DEFAULT_LIMIT),
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => None,
    }
}

async fn received<T>(lines: &mut Option<tokio::sync::mpsc::Receiver<T>>) -> Option<T> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits for one service. A service that shows nothing is taken to be up.
async fn check(guest: &JobGuest, number: u8, service: &RunningService, limit: Duration) -> Option<Unhealthy> {
    let plan = &service.found.plan;
    let ports = plan.checked_ports(&service.found.disk.config.ports);
    if ports.is_empty() {
        return None;
    }
    let address = address_of(number);
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let check = format!("waiting for TCP connection to {address} on [{list}]...");
    let name = &plan.hostname;
    // One that answers is enough: an image may expose ports for several ways to configure it.
    let up = async {
        let attempts = ports.iter().map(|port| guest.agent().await_port(SocketAddr::new(address, *port)));
        let mut attempts: FuturesUnordered<_> = attempts.collect();
        while let Some(answered) = attempts.next().await {
            if answered.is_ok() {
                return;
            }
        }
        // The guest is gone, which shows in what comes next.
    };
    let mut ended = service.ended.clone();
    let error = tokio::select! {
        biased;
        up = timeout(limit, up) => match up {
            Ok(()) => return None,
            Err(_) => format!("service \"{name}\" timeout"),
        },
        end = ended.wait_for(Option::is_some) => match end.ok().and_then(|end| end.clone()) {
            Some(End::Exited(ExitStatus::Code(code))) => format!("service \"{name}\" exited with code {code}"),
            Some(End::Exited(ExitStatus::Signal(signal))) => {
                format!("service \"{name}\" was ended by signal {signal}")
            }
            Some(End::Lost(error)) => format!("service \"{name}\" was lost: {error}"),
            None => format!("service \"{name}\" ended"),
        },
    };
    Some(Unhealthy { service: number.into(), error, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_can_be_switched_off() {
        assert_eq!(limit(-1), None);
        assert_eq!(limit(0), Some(Duration::from_secs(30)));
        assert_eq!(limit(5), Some(Duration::from_secs(5)));
    }
}
