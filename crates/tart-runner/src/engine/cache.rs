//! Caches: the helper in the guest archives them into the host's store or an object store, and takes them apart again.
//! None of it ever fails a job.

mod archive;
mod keys;

use std::io;
use std::time::Duration;

use tart_archive::{Format, Level as Compression, Purpose, Request};
use tart_job::Level;
use tart_job::flags::Flag;
use tart_job::outcome::Failure;
use tart_job::stages::{Stage, is_cache, is_due};
use tart_objects::Transfer;
use tart_spec::Cache;
use tokio::time::sleep;

use super::control::Scope;
use super::job::Job;
use super::transfer::{Packed, Unpacked};
use archive::Archives;
use keys::{Key, Policy, candidates};

/// The pause before an archive that broke off is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

const NOT_EXTRACTED: &str = "Failed to extract cache";
const NOT_CREATED: &str = "Failed to create cache";

impl Job<'_> {
    /// Takes the caches apart in the project's directory.
    pub(super) async fn restore_caches(&mut self, scope: &Scope) -> Result<(), Failure> {
        let run = self.run;
        for cache in run.payload.cache.iter().filter(|cache| is_cache(cache)) {
            let Some((own, policy)) = self.understand(cache) else { continue };
            if !policy.pull {
                let text = format!("Not downloading cache {} due to policy", own.shown);
                self.log.line(Level::Info, &text);
                continue;
            }
            let plan = self.plan;
            let expand = |text: &str| plan.variables.expand(text);
            let others = candidates(cache, &plan.settings.archives.cache_fallback_key, expand);
            let others: Vec<Key> = others.iter().filter_map(|raw| self.key(raw).0).collect();
            for key in std::iter::once(own).chain(others) {
                if self.restore(&key, scope).await? {
                    break;
                }
                self.log.line(Level::Warning, NOT_EXTRACTED);
            }
        }
        Ok(())
    }

    /// Puts the caches into their store.
    pub(super) async fn archive_caches(&mut self, stage: &Stage, scope: &Scope) -> Result<(), Failure> {
        let run = self.run;
        let succeeded = *stage == Stage::ArchiveCache;
        let due = |cache: &&Cache| is_cache(cache) && is_due(&cache.when, succeeded);
        for cache in run.payload.cache.iter().filter(due) {
            let Some((key, policy)) = self.understand(cache) else { continue };
            if !policy.push {
                self.log.line(Level::Info, &format!("Not uploading cache {} due to policy", key.shown));
                continue;
            }
            self.log.line(Level::Info, &format!("Creating cache {}...", key.shown));
            let created = self.archive(cache, &key, stage, scope).await?;
            let (level, text) =
                if created { (Level::Info, "Created cache") } else { (Level::Warning, NOT_CREATED) };
            self.log.line(level, text);
        }
        Ok(())
    }

    /// A key, and a warning if it is not what the author wrote.
    fn key(&self, raw: &str) -> (Option<Key>, Option<String>) {
        if self.plan.flags.is_on(Flag::HashCacheKeys) && !raw.is_empty() {
            (Some(Key::hashed(raw)), None)
        } else {
            Key::cleaned(raw)
        }
    }

    /// The key and policy of a cache, if it can be used.
    fn understand(&mut self, cache: &Cache) -> Option<(Key, Policy)> {
        let plan = self.plan;
        let raw = if cache.key.is_empty() {
            let payload = &self.run.payload;
            format!("{}/{}", payload.job_info.name, payload.git_info.r#ref)
        } else {
            plan.variables.expand(&cache.key)
        };
        let (key, warning) = self.key(&raw);
        if let Some(warning) = warning {
            self.log.line(Level::Warning, &warning);
        }
        let policy = plan.variables.expand(&cache.policy);
        let Some(policy) = Policy::parse(&policy) else {
            self.log.line(Level::Warning, &format!("unknown cache policy {policy}: the cache is not used"));
            return None;
        };
        Some((key?, policy))
    }

    fn archives(&self) -> Option<Archives> {
        let in_pieces = self.plan.flags.is_on(Flag::ParallelCacheTransfer);
        Some(Archives {
            store: self.setup.caches.clone()?,
            place: self.run.cache.clone()?,
            limit: self.plan.settings.archives.cache_request_timeout,
            transfer: if in_pieces { Transfer::InPieces } else { Transfer::Whole },
        })
    }

    /// Whether the archive of a key was there and was taken apart.
    async fn restore(&mut self, key: &Key, scope: &Scope) -> Result<bool, Failure> {
        self.log.line(Level::Info, &format!("Checking cache for {}...", key.shown));
        let Some(archives) = self.archives() else { return Ok(false) };
        let mut failed = 0;
        loop {
            let archive = match self.control.unless_halted(scope, archives.open(key)).await? {
                Ok(archive) => archive,
                Err(reason) => {
                    self.log.line(Level::Warning, &reason);
                    return Ok(false);
                }
            };
            if let Some(address) = archives.address(key) {
                self.log.line(Level::Print, &format!("Downloading cache from {address}"));
            }
            let Some(guest) = self.guest.take() else { return Ok(false) };
            let directory = self.plan.dirs.build_dir.clone();
            let unpacked = self.unpack(guest.agent(), &Stage::RestoreCache, &directory, archive, scope).await;
            let result = match unpacked {
                Ok(unpacked) => Ok(unpacked),
                Err(broken) => Err(self.broken(broken, &guest).await),
            };
            self.guest = Some(guest);
            match result? {
                Unpacked::Done(fingerprint) => {
                    if let Some(fingerprint) = fingerprint {
                        self.restored.insert(key.name.clone(), fingerprint);
                    }
                    self.log.line(Level::Info, "Successfully extracted cache");
                    return Ok(true);
                }
                Unpacked::Helper => return Ok(false),
                Unpacked::Source(error) => {
                    self.log.line(Level::Warning, &format!("the cache cannot be read: {error}"));
                    failed += 1;
                    if failed >= archives.tries() {
                        return Ok(false);
                    }
                    self.log.line(Level::Warning, "Retrying...");
                    self.control.unless_halted(scope, sleep(PAUSE)).await?;
                }
            }
        }
    }

    /// Whether there was something, and it is in its store.
    async fn archive(
        &mut self,
        cache: &Cache,
        key: &Key,
        stage: &Stage,
        scope: &Scope,
    ) -> Result<bool, Failure> {
        let Some(archives) = self.archives() else { return Ok(false) };
        let plan = self.plan;
        let request = Request {
            root: plan.dirs.build_dir.clone(),
            paths: cache.paths.iter().map(|path| plan.variables.expand(path)).collect(),
            untracked: cache.untracked,
            level: Compression::from_name(&plan.settings.archives.cache_level).unwrap_or_default(),
            format: Format::from_name(&plan.settings.archives.cache_format).unwrap_or_default(),
            purpose: Purpose::Cache,
            // Another cache of the job may have the same key, and is saved after this one.
            known: self.restored.remove(&key.name).unwrap_or_default(),
            ..Request::default()
        };
        let quota = archives.store.quota();
        let most = match self.run.runner.cache.max_uploaded_archive_size {
            0 => quota,
            most => most.min(quota),
        };
        let (writer, pending) = match archives.create(key).await {
            Ok(created) => created,
            Err(error) => return Ok(self.not_kept(&error)),
        };
        let Some(guest) = self.guest.take() else { return Ok(false) };
        let packed = self.pack(guest.agent(), stage, &request, writer, most, scope).await;
        let result = match packed {
            Ok(packed) => Ok(packed),
            Err(broken) => Err(self.broken(broken, &guest).await),
        };
        self.guest = Some(guest);
        match result? {
            Packed::Done => {
                if let Some(address) = archives.address(key) {
                    self.log.line(Level::Print, &format!("Uploading cache.zip to {address}"));
                }
                match self.control.unless_halted(scope, archives.keep(pending, key)).await? {
                    Ok(()) => Ok(true),
                    Err(reason) => {
                        self.log.line(Level::Warning, &reason);
                        Ok(false)
                    }
                }
            }
            // As the official runner, which says so and is content.
            Packed::Nothing => Ok(true),
            Packed::Helper => Ok(false),
            Packed::TooLarge => {
                let text = format!("the cache is larger than the {most} bytes that it may have");
                self.log.line(Level::Warning, &text);
                Ok(false)
            }
            Packed::Store(error) => Ok(self.not_kept(&error)),
        }
    }

    fn not_kept(&mut self, error: &io::Error) -> bool {
        self.log.line(Level::Warning, &format!("the cache cannot be kept: {error}"));
        false
    }
}
