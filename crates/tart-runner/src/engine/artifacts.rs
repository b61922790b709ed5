//! Artifacts: what the helper in the guest archives goes to their place, and what other jobs left goes to the helper.
//! The host passes the bytes on and looks at none of them.

mod plan;
mod provenance;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tart_archive::Request;
use tart_gitlab::{ArtifactUpload, DownloadFrom};
use tart_guest::{CommandEvent, Guest};
use tart_job::Level;
use tart_job::flags::Flag;
use tart_job::outcome::Failure;
use tart_job::stages::{Stage, is_artifact, is_due};
use tart_proto::message::ExitStatus;
use tart_spec::{Artifact, Dependency, short_token};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::io::StreamReader;

use super::control::Scope;
use super::job::Job;
use super::script::Broken;
use super::transfer::{self, NOTHING, Unpacked};
use crate::artifacts::{Arrival, ArtifactPlace, DOWNLOADS, Refusal};
use crate::guest::JobGuest;
use plan::{Planned, plan};
use provenance::Facts;

/// Pieces of an archive between the guest and its place.
const PIECES: usize = 4;

/// Tries of an upload that is answered before its end.
const EARLY_ANSWERS: u32 = 3;

/// What stages fail with, as scripts of the official runner do.
const FAILED: Failure = Failure::ExitCode(1);

/// The pause after the first failed try, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

const DOWNLOAD_PAUSE: Duration = Duration::from_secs(1);

/// How one try of an upload ended.
enum Tried {
    Done,
    /// No file matched.
    Nothing,
    Refused(Refusal),
    /// The helper failed, and has said why.
    Helper,
}

impl Job<'_> {
    /// Uploads what the job is to leave behind.
    pub(super) async fn upload_artifacts(&mut self, stage: &Stage, scope: &Scope) -> Result<(), Failure> {
        let Some((place, guest)) = self.artifacts_begin() else { return Ok(()) };
        let succeeded = *stage == Stage::UploadArtifactsOnSuccess;
        let run = self.run;
        let due = |artifact: &&Artifact| is_artifact(artifact) && is_due(&artifact.when, succeeded);
        let mut result = Ok(());
        for artifact in run.payload.artifacts.iter().filter(due) {
            result = match plan(artifact, self.plan) {
                Ok(mut planned) => {
                    if self.plan.settings.archives.artifacts_metadata {
                        self.attest(&mut planned);
                    }
                    self.upload(&place, &guest, stage, &planned, scope).await
                }
                Err(reason) => {
                    self.log.line(Level::Error, &reason);
                    Err(FAILED)
                }
            };
            if result.is_err() {
                break;
            }
        }
        self.guest = Some(guest);
        result
    }

    /// Downloads what other jobs left behind, into the project's directory.
    pub(super) async fn download_artifacts(&mut self, scope: &Scope) -> Result<(), Failure> {
        let Some((place, guest)) = self.artifacts_begin() else { return Ok(()) };
        let run = self.run;
        let mut result = Ok(());
        for other in run.payload.dependencies.iter().filter(|other| other.has_artifacts()) {
            self.log
                .line(Level::Info, &format!("Downloading artifacts for {} ({})...", other.name, other.id));
            result = self.download(&place, &guest, other, scope).await;
            if result.is_err() {
                break;
            }
        }
        self.guest = Some(guest);
        result
    }

    /// Has an archive say where it comes from.
    fn attest(&mut self, planned: &mut Planned) {
        let (plan, payload) = (self.plan, &self.run.payload);
        let variable = |name: &str| plan.variables.expand(&format!("${{{name}}}"));
        let version = variable("SLSA_PROVENANCE_SCHEMA_VERSION");
        if !matches!(version.as_str(), "" | provenance::VERSION) {
            let text = format!(
                "there is no SLSA_PROVENANCE_SCHEMA_VERSION {version}: the metadata is of {}",
                provenance::VERSION
            );
            self.log.line(Level::Warning, &text);
        }
        let ended = Timestamp::now();
        let begun = ended.checked_sub(self.age()).unwrap_or(ended);
        let facts = Facts {
            repository: &plan.remote.url,
            commit: &payload.git_info.sha,
            job_id: payload.id,
            job_name: &payload.job_info.name,
            runner_id: &variable("CI_RUNNER_ID"),
            runner_name: &self.run.runner.display_name(),
            variables: payload.variables.iter().map(|variable| variable.key.as_str()).collect(),
            begun,
            ended,
        };
        provenance::attest(planned, &facts);
    }

    fn artifacts_begin(&mut self) -> Option<(ArtifactPlace, JobGuest)> {
        let Some(place) = self.run.artifacts.clone() else {
            let text = "artifacts are neither downloaded nor kept: there is no place for them";
            self.log.line(Level::Warning, text);
            return None;
        };
        Some((place, self.guest.take()?))
    }

    /// One upload with its tries.
    async fn upload(
        &mut self,
        place: &ArtifactPlace,
        guest: &JobGuest,
        stage: &Stage,
        planned: &Planned,
        scope: &Scope,
    ) -> Result<(), Failure> {
        let Planned { upload, request } = planned;
        let what = format!("Uploading artifacts as \"{}\" to {}...", upload.kind, place.name());
        let (id, token) = (self.run.payload.id, short_token(&self.run.payload.token));
        let done = match place {
            ArtifactPlace::Server(_) => {
                format!("201 Created id={id} responseStatus=201 Created token={token}")
            }
            ArtifactPlace::Local { .. } => "ok".to_owned(),
        };
        self.log.line(Level::Print, "Uploading artifacts...");
        let limit = self.run.runner.artifact.upload_timeout;
        let mut pause = FIRST_PAUSE;
        let mut failed = 0;
        loop {
            let tried = timeout(limit, self.try_upload(place, guest.agent(), stage, upload, request, scope));
            let refusal = match tried.await {
                Ok(Ok(Tried::Done)) => {
                    self.log.line(Level::Print, &format!("{what} {done}"));
                    return Ok(());
                }
                Ok(Ok(Tried::Nothing)) => return Ok(()),
                Ok(Ok(Tried::Helper)) => return Err(FAILED),
                Ok(Ok(Tried::Refused(refusal))) => refusal,
                Ok(Err(broken)) => return Err(self.broken(broken, guest).await),
                Err(_) => {
                    let text = format!("{what} not done within {} seconds", limit.as_secs());
                    self.log.line(Level::Error, &text);
                    return Err(FAILED);
                }
            };
            failed += 1;
            let last = failed >= refusal.tries;
            let level = if last { Level::Error } else { Level::Warning };
            self.log.line(level, &format!("{what} {} id={id} token={token}", refusal.text));
            if last {
                return Err(FAILED);
            }
            self.log.line(Level::Warning, "Retrying...");
            self.control.unless_halted(scope, sleep(pause)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_upload(
        &mut self,
        place: &ArtifactPlace,
        agent: &Guest,
        stage: &Stage,
        upload: &ArtifactUpload,
        request: &Request,
        scope: &Scope,
    ) -> Result<Tried, Broken> {
        let mut command = transfer::ask(agent, stage, request).await?;
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let mut sender = Some(sender);
        let pieces = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let uploading = place.put(upload, StreamReader::new(pieces));
        tokio::pin!(uploading);
        // The request begins with the first byte: there may be nothing to upload.
        let mut begun = false;
        let mut waiting: Option<io::Result<Bytes>> = None;
        let mut status: Option<ExitStatus> = None;
        loop {
            if status == Some(ExitStatus::Code(0)) && waiting.is_none() {
                // The end of the archive.
                sender = None;
            }
            tokio::select! {
                biased;
                failure = self.control.halted(scope) => return Err(failure.into()),
                uploaded = &mut uploading, if begun => return Ok(match (uploaded, status) {
                    (Ok(()), Some(ExitStatus::Code(0))) => Tried::Done,
                    (_, Some(status)) if status != ExitStatus::Code(0) => Tried::Helper,
                    (Ok(()), _) => {
                        let text = "it was answered before its end".to_owned();
                        Tried::Refused(Refusal { text, tries: EARLY_ANSWERS })
                    }
                    (Err(refusal), _) => Tried::Refused(refusal),
                }),
                permit = reserve(sender.as_ref()), if waiting.is_some() => {
                    // Without room the request is over, and says soon why.
                    if let (Some(permit), Some(piece)) = (permit, waiting.take()) {
                        permit.send(piece);
                    }
                },
                event = command.next(), if status.is_none() && waiting.is_none() => match event? {
                    CommandEvent::Stdout(bytes) => (begun, waiting) = (true, Some(Ok(bytes))),
                    CommandEvent::Stderr(bytes) => self.log.output(&bytes),
                    CommandEvent::Exited(exited) => {
                        status = Some(exited.status);
                        match exited.status {
                            ExitStatus::Code(0) => begun = true,
                            ExitStatus::Code(NOTHING) if !begun => return Ok(Tried::Nothing),
                            _ if !begun => return Ok(Tried::Helper),
                            // A server must not take a part for the whole.
                            _ => waiting = Some(Err(io::Error::other("the archive is not complete"))),
                        }
                    }
                },
            }
        }
    }

    /// One download with its tries.
    async fn download(
        &mut self,
        place: &ArtifactPlace,
        guest: &JobGuest,
        other: &Dependency,
        scope: &Scope,
    ) -> Result<(), Failure> {
        let flags = &self.plan.flags;
        let first = match (flags.is_on(Flag::DirectDownload), flags.is_on(Flag::ParallelArtifactTransfer)) {
            (false, _) => DownloadFrom::Server,
            (true, false) => DownloadFrom::Storage,
            (true, true) => DownloadFrom::StorageInPieces,
        };
        let what = format!("Downloading artifacts from {}...", place.name());
        let token = short_token(&other.token);
        let mut failed = 0;
        loop {
            let from = if failed == 0 { first } else { DownloadFrom::Server };
            let error = match self.try_download(place, guest.agent(), other, from, scope).await {
                Ok(Ok(storage)) => {
                    let host = storage.map(|storage| format!(" host={storage}")).unwrap_or_default();
                    let status = match place {
                        ArtifactPlace::Server(_) => {
                            format!(" id={} responseStatus=200 OK token={token}", other.id)
                        }
                        ArtifactPlace::Local { .. } => String::new(),
                    };
                    let text = format!("{what} ok{host}{status}");
                    self.log.line(Level::Print, &text);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(broken) => return Err(self.broken(broken, guest).await),
            };
            failed += 1;
            let (text, tries) = match error {
                Undelivered::Refused(Refusal { text, tries }) => (text, tries),
                Undelivered::Broken(error) => (error.to_string(), DOWNLOADS),
                Undelivered::Helper => return Err(FAILED),
            };
            let again = failed < tries;
            let level = if again { Level::Warning } else { Level::Error };
            self.log.line(level, &format!("{what} {text} id={} token={token}", other.id));
            if !again {
                return Err(FAILED);
            }
            self.log.line(Level::Warning, "Retrying...");
            self.control.unless_halted(scope, sleep(DOWNLOAD_PAUSE)).await?;
        }
    }

    /// Where the archive came from, if not from the server itself.
    async fn try_download(
        &mut self,
        place: &ArtifactPlace,
        agent: &Guest,
        other: &Dependency,
        from: DownloadFrom,
        scope: &Scope,
    ) -> Result<Result<Option<String>, Undelivered>, Broken> {
        let arrival = match self.control.unless_halted(scope, place.get(other, from)).await? {
            Ok(arrival) => arrival,
            Err(refusal) => return Ok(Err(Undelivered::Refused(refusal))),
        };
        let Arrival { pieces, storage } = arrival;
        let (stage, directory) = (Stage::DownloadArtifacts, &self.plan.dirs.build_dir);
        Ok(match self.unpack(agent, &stage, directory, pieces, scope).await? {
            Unpacked::Done(_) => Ok(storage),
            Unpacked::Helper => Err(Undelivered::Helper),
            Unpacked::Source(error) => Err(Undelivered::Broken(error)),
        })
    }
}

/// Why a download did not arrive.
enum Undelivered {
    Refused(Refusal),
    /// In the middle.
    Broken(io::Error),
    /// The helper failed, and has said why.
    Helper,
}

/// Room for a piece; `None` if nobody takes any more.
async fn reserve(
    sender: Option<&mpsc::Sender<io::Result<Bytes>>>,
) -> Option<mpsc::Permit<'_, io::Result<Bytes>>> {
    sender?.reserve().await.ok()
}
