//! Caches: the helper in the guest archives them into the host's store, and takes them apart again. None of it ever
//! fails a job.

mod keys;

use std::fs::File;
use std::io;

use tart_archive::{Level as Compression, Purpose, Request};
use tart_guest::{CommandEvent, Guest};
use tart_job::Level;
use tart_job::outcome::Failure;
use tart_job::stages::{Stage, is_cache, is_due};
use tart_proto::message::ExitStatus;
use tart_spec::Cache;
use tokio::io::AsyncWriteExt;

use super::control::Scope;
use super::job::Job;
use super::script::Broken;
use super::transfer::{self, NOTHING, Unpacked};
use crate::cache::{CacheScope, CacheStore, blocking, pieces};
use keys::{Policy, candidates, key};

const NOT_EXTRACTED: &str = "Failed to extract cache";
const NOT_CREATED: &str = "Failed to create cache";

impl Job<'_> {
    /// Takes the caches apart in the project's directory.
    pub(super) async fn restore_caches(&mut self, scope: &Scope) -> Result<(), Failure> {
        let run = self.run;
        for cache in run.payload.cache.iter().filter(|cache| is_cache(cache)) {
            let Some((own, policy)) = self.understand(cache) else { continue };
            if !policy.pull {
                self.log.line(Level::Info, &format!("Not downloading cache {own} due to policy"));
                continue;
            }
            let plan = self.plan;
            let expand = |text: &str| plan.variables.expand(text);
            let keys = candidates(cache, &own, &plan.settings.archives.cache_fallback_key, expand);
            for raw in keys {
                let (Some(key), _) = key(&raw) else { continue };
                if self.restore(&key, scope).await? {
                    break;
                }
                self.log.line(Level::Warning, NOT_EXTRACTED);
            }
        }
        Ok(())
    }

    /// Puts the caches into the store.
    pub(super) async fn archive_caches(&mut self, stage: &Stage, scope: &Scope) -> Result<(), Failure> {
        let run = self.run;
        let succeeded = *stage == Stage::ArchiveCache;
        let due = |cache: &&Cache| is_cache(cache) && is_due(&cache.when, succeeded);
        for cache in run.payload.cache.iter().filter(due) {
            let Some((key, policy)) = self.understand(cache) else { continue };
            if !policy.push {
                self.log.line(Level::Info, &format!("Not uploading cache {key} due to policy"));
                continue;
            }
            self.log.line(Level::Info, &format!("Creating cache {key}..."));
            let created = self.archive(cache, &key, stage, scope).await?;
            let (level, text) =
                if created { (Level::Info, "Created cache") } else { (Level::Warning, NOT_CREATED) };
            self.log.line(level, text);
        }
        Ok(())
    }

    /// The key and policy of a cache, if it can be used.
    fn understand(&mut self, cache: &Cache) -> Option<(String, Policy)> {
        let plan = self.plan;
        let raw = if cache.key.is_empty() {
            let payload = &self.run.payload;
            format!("{}/{}", payload.job_info.name, payload.git_info.r#ref)
        } else {
            plan.variables.expand(&cache.key)
        };
        let (key, warning) = key(&raw);
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

    fn store(&self) -> Option<(CacheStore, CacheScope)> {
        Some((self.setup.caches.clone()?, self.run.cache.clone()?))
    }

    /// Whether the archive of a key was there and was taken apart.
    async fn restore(&mut self, key: &str, scope: &Scope) -> Result<bool, Failure> {
        self.log.line(Level::Info, &format!("Checking cache for {key}..."));
        let Some((store, whose)) = self.store() else { return Ok(false) };
        let name = key.to_owned();
        let file = match blocking(move || store.find(&whose, &name)).await {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.log.line(Level::Warning, "file does not exist");
                return Ok(false);
            }
            Err(error) => {
                self.log.line(Level::Warning, &format!("the cache cannot be read: {error}"));
                return Ok(false);
            }
        };
        let Some(guest) = self.guest.take() else { return Ok(false) };
        let directory = self.plan.dirs.build_dir.clone();
        let unpacked =
            self.unpack(guest.agent(), &Stage::RestoreCache, &directory, pieces(file), scope).await;
        let result = match unpacked {
            Ok(Unpacked::Done) => {
                self.log.line(Level::Info, "Successfully extracted cache");
                Ok(true)
            }
            Ok(Unpacked::Helper) => Ok(false),
            Ok(Unpacked::Source(error)) => {
                self.log.line(Level::Warning, &format!("the cache cannot be read: {error}"));
                Ok(false)
            }
            Err(broken) => Err(self.broken(broken, &guest).await),
        };
        self.guest = Some(guest);
        result
    }

    /// Whether there was something, and it is in the store.
    async fn archive(
        &mut self,
        cache: &Cache,
        key: &str,
        stage: &Stage,
        scope: &Scope,
    ) -> Result<bool, Failure> {
        let Some((store, whose)) = self.store() else { return Ok(false) };
        let plan = self.plan;
        let request = Request {
            root: plan.dirs.build_dir.clone(),
            paths: cache.paths.iter().map(|path| plan.variables.expand(path)).collect(),
            untracked: cache.untracked,
            level: Compression::from_name(&plan.settings.archives.cache_level).unwrap_or_default(),
            purpose: Purpose::Cache,
            ..Request::default()
        };
        let most = match self.run.runner.cache.max_uploaded_archive_size {
            0 => store.quota(),
            most => most.min(store.quota()),
        };
        let name = key.to_owned();
        let created = blocking(move || {
            let archive = store.create(&whose, &name)?;
            Ok((archive.writer()?, archive))
        });
        let (writer, archive) = match created.await {
            Ok(created) => created,
            Err(error) => return Ok(self.not_kept(&error)),
        };
        let Some(guest) = self.guest.take() else { return Ok(false) };
        let packed = self.pack(guest.agent(), stage, &request, writer, most, scope).await;
        let result = match packed {
            Ok(Packed::Done) => match blocking(move || archive.keep()).await {
                Ok(()) => Ok(true),
                Err(error) => Ok(self.not_kept(&error)),
            },
            // As the official runner, which says so and is content.
            Ok(Packed::Nothing) => Ok(true),
            Ok(Packed::Helper) => Ok(false),
            Ok(Packed::TooLarge) => {
                let text = format!("the cache is larger than the {most} bytes that it may have");
                self.log.line(Level::Warning, &text);
                Ok(false)
            }
            Ok(Packed::Store(error)) => Ok(self.not_kept(&error)),
            Err(broken) => Err(self.broken(broken, &guest).await),
        };
        self.guest = Some(guest);
        result
    }

    fn not_kept(&mut self, error: &io::Error) -> bool {
        self.log.line(Level::Warning, &format!("the cache cannot be kept: {error}"));
        false
    }

    /// Has the helper write an archive to a file.
    async fn pack(
        &mut self,
        agent: &Guest,
        stage: &Stage,
        request: &Request,
        writer: File,
        most: u64,
        scope: &Scope,
    ) -> Result<Packed, Broken> {
        let mut command = transfer::ask(agent, stage, request).await?;
        let mut writer = tokio::fs::File::from_std(writer);
        let mut bytes = 0_u64;
        loop {
            let event = tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure.into()),
                event = command.next() => event?,
            };
            match event {
                CommandEvent::Stderr(bytes) => self.log.output(&bytes),
                CommandEvent::Stdout(piece) => {
                    bytes += piece.len() as u64;
                    if bytes > most {
                        return Ok(Packed::TooLarge);
                    }
                    if let Err(error) = writer.write_all(&piece).await {
                        return Ok(Packed::Store(error));
                    }
                }
                CommandEvent::Exited(exited) => {
                    return Ok(match exited.status {
                        ExitStatus::Code(0) => match writer.flush().await {
                            Ok(()) => Packed::Done,
                            Err(error) => Packed::Store(error),
                        },
                        ExitStatus::Code(NOTHING) => Packed::Nothing,
                        _ => Packed::Helper,
                    });
                }
            }
        }
    }
}

/// How an archive came to its end.
enum Packed {
    Done,
    Nothing,
    /// The helper failed, and has said why.
    Helper,
    TooLarge,
    Store(io::Error),
}
