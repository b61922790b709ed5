//! The stage that makes the guest.

use std::time::Duration;

use tart_assets::ImageDisk;
use tart_images::{ImageLog, ImageRequest, LeasedImage};
use tart_job::Level;
use tart_job::dirs::job_name;
use tart_job::outcome::{Failure, timeout_hint};
use tart_job::stages::{PREPARE_RETRY_DELAY, Stage};
use tart_net::parse_job_rules;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::control::Scope;
use super::explain;
use super::image::{self, Choice, Wishes};
use super::job::Job;
use super::services::FoundService;
use crate::guest::{GuestFailure, GuestRequest, JobGuest};

/// Digits of an image's digest that are shown.
const SHOWN_DIGEST: usize = 12;

impl Job<'_> {
    /// Finds the image and boots a guest, with as many tries.
    pub(super) async fn prepare(&mut self, scope: &Scope, attempts: u32) -> Result<(), Failure> {
        let services = self.find_services(scope).await?;
        let request = self.request(scope, &services).await?;
        let mut failed = 0;
        loop {
            let request = GuestRequest { id: machine_id(self.run.payload.id)?, ..request.clone() };
            let start = Instant::now();
            let boot = JobGuest::boot(self.setup, &request);
            let booted = self.control.unless_halted(scope, boot).await;
            if matches!(booted, Err(Failure::Timeout(_))) {
                self.log.line(Level::Warning, &timeout_hint(&Stage::PrepareExecutor));
            }
            let error = match booted? {
                Ok(guest) => {
                    self.welcome(&guest, start);
                    let started = self.start_services(scope, &guest, services).await;
                    self.guest = Some(guest);
                    return started;
                }
                Err(error) => error,
            };
            failed += 1;
            self.log.line(Level::Error, &format!("Preparation failed: {error}"));
            if failed >= attempts || !is_worth_retrying(&error) {
                return Err(Failure::system(explain::first_line(&error.to_string())));
            }
            let delay = PREPARE_RETRY_DELAY.as_secs();
            self.log.line(Level::Info, &format!("Will be retried in {delay}s ..."));
            self.control.unless_halted(scope, sleep(PREPARE_RETRY_DELAY)).await?;
        }
    }

    async fn request(&mut self, scope: &Scope, services: &[FoundService]) -> Result<GuestRequest, Failure> {
        let (setup, run, plan) = (self.setup, self.run, self.plan);
        let image = self.find_image(scope).await?;
        let config = &setup.config;
        self.log.line(
            Level::Print,
            &format!(
                "Starting a microVM with {} vCPU{}, {} of memory and a disk of {} on {}...",
                config.vcpus,
                if config.vcpus == 1 { "" } else { "s" },
                config.memory,
                config.disk,
                setup.driver.describe()
            ),
        );
        let (volumes, hosts): (Vec<_>, Vec<_>) =
            run.runner.docker.volumes.iter().cloned().partition(|volume| !volume.contains(':'));
        for volume in hosts {
            let text = format!(
                "the volume `{volume}` is not mounted: a microVM cannot share directories of the host yet"
            );
            self.log.line(Level::Warning, &text);
        }
        let egress = parse_job_rules(plan.variables.value(EGRESS).unwrap_or_default());
        let egress =
            egress.map_err(|error| Failure::configuration(format!("the variable {EGRESS}: {error}")))?;
        let context = &run.context;
        Ok(GuestRequest {
            id: String::new(),
            hostname: self.hostname(),
            image,
            services: services.iter().map(FoundService::guest).collect(),
            dirs: plan.dirs.clone(),
            cache_root: context.cache_dir.clone(),
            volumes,
            allowed: run.allowed.clone(),
            egress,
        })
    }

    /// The name of the guest.
    pub(super) fn hostname(&self) -> String {
        let (payload, context) = (&self.run.payload, &self.run.context);
        let project = payload.job_info.project_id;
        job_name(&context.short_token, project, context.concurrent_project_id, payload.id)
    }

    /// The image, fetched if need be.
    async fn find_image(&mut self, scope: &Scope) -> Result<ImageDisk, Failure> {
        let (setup, run, plan) = (self.setup, self.run, self.plan);
        let wishes = Wishes {
            wanted: run.image.as_deref(),
            job: run.payload.image.as_ref(),
            variables: &plan.variables,
            runner: &run.runner,
        };
        let user = wishes.user()?;
        let (disk, description) = match wishes.choose()? {
            Choice::Path(path) => {
                let found = self.control.unless_halted(scope, setup.rootfs(path.clone())).await?;
                let failed = |error| Failure::system(format!("the image `{path}` cannot be used: {error}"));
                let disk = found.map_err(failed)?;
                let digest: String = disk.digest.chars().take(SHOWN_DIGEST).collect();
                (disk, format!("Using image {path} ({digest})"))
            }
            Choice::Name(name) => {
                let request = wishes.request(name, &run.payload)?;
                let leased = self.obtain(scope, &request).await?;
                let (disk, description) = (leased.disk.clone(), leased.description.clone());
                self.leases.push(leased);
                (disk, description)
            }
        };
        self.image = disk.config.clone();
        if let Some(user) = user {
            self.image.user = user;
        }
        match wishes.entrypoint() {
            Some(entrypoint) => self.image.entrypoint = entrypoint,
            None if wishes.asks_for_an_entrypoint() => {
                self.log.line(Level::Warning, "Entrypoint override disabled");
            }
            None => {}
        }
        self.log.line(Level::Print, &description);
        Ok(disk)
    }

    /// Asks the images of the host, with what they say in the log.
    pub(super) async fn obtain(
        &mut self,
        scope: &Scope,
        request: &ImageRequest,
    ) -> Result<LeasedImage, Failure> {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let log = Sender(sender);
        let obtain = self.setup.images.obtain(request, &log);
        tokio::pin!(obtain);
        let obtained = loop {
            tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure),
                Some((level, text)) = lines.recv() => self.log.line(level, &text),
                obtained = &mut obtain => break obtained,
            }
        };
        while let Ok((level, text)) = lines.try_recv() {
            self.log.line(level, &text);
        }
        obtained.map_err(|error| image::failure(&error))
    }

    fn welcome(&mut self, guest: &JobGuest, start: Instant) {
        let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
        let text = format!(
            "The microVM is ready after {} (Linux {}, {} in {}; network: {})",
            seconds(start.elapsed()),
            guest.hello.kernel,
            guest.start.verb(),
            seconds(guest.spawn_to_ready),
            self.setup.network.name(),
        );
        self.log.line(Level::Print, &text);
        self.timings.spawn_to_ready = Some(guest.spawn_to_ready);
        self.timings.ready_to_set_up = Some(guest.ready.elapsed());
    }
}

/// Passes lines about images on to where the job's log is.
struct Sender(mpsc::UnboundedSender<(Level, String)>);

impl ImageLog for Sender {
    fn line(&self, level: tart_images::Level, text: &str) {
        let level = match level {
            tart_images::Level::Print => Level::Print,
            tart_images::Level::Info => Level::Info,
            tart_images::Level::Warning => Level::Warning,
        };
        // The job may have ended meanwhile.
        let _gone = self.0.send((level, text.to_owned()));
    }
}

/// The variable by which a job narrows what it reaches.
const EGRESS: &str = "TART_EGRESS_ALLOW";

/// A name that no other machine of this host has.
fn machine_id(job: i64) -> Result<String, Failure> {
    let random = getrandom::u32();
    let random =
        random.map_err(|error| Failure::system(format!("the host gives no random numbers: {error}")))?;
    Ok(format!("job-{}-{random:08x}", job.unsigned_abs()))
}

/// What can be wrong for a moment only.
fn is_worth_retrying(error: &GuestFailure) -> bool {
    !matches!(
        error,
        // The image stays as it is.
        GuestFailure::Refused(_)
            | GuestFailure::Machine(
                tart_vmm::VmmError::Spec { .. }
                    | tart_vmm::VmmError::KernelArgument { .. }
                    | tart_vmm::VmmError::Program { .. }
            )
            | GuestFailure::Network(tart_net::NetError::Unable { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_one_job_have_different_legal_names() {
        let (one, other) = (machine_id(i64::MAX).unwrap(), machine_id(i64::MAX).unwrap());
        assert_ne!(one, other);
        assert!(one.len() <= 40, "{one}");
    }
}
