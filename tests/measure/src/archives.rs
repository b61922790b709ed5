//! How fast artifacts leave a guest and come into another, compared with programs in the same guest.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use tart_e2e::{Config, Scene};
use tart_test_gitlab::{Artifacts, Image, JobHandle, JobSpec, JobState, Options, TestGitlab, Variable};
use tart_test_registry::{Compression, ImageBuilder, TestRegistry, samples};

use crate::report::line;

/// How long a job may take: emulated guests are slow.
const LIMIT: Duration = Duration::from_secs(3600);

/// Levels of compression, and what `zip` and `zstd` call them.
const LEVELS: [(&str, &str, &str); 2] = [("fastest", "-0", "-1"), ("default", "-5", "-3")];

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Archives {
    /// MiB of files: a half text, a quarter noise in large files, a quarter noise and text in files of 8 KiB.
    #[arg(long, default_value_t = 1024)]
    mib: u32,
}

/// Seconds of a program in the guest, or of a stage.
struct Times {
    pack: f64,
    unpack: f64,
}

impl Archives {
    /// Runs the jobs and prints what was measured.
    pub(crate) async fn run(&self) -> Result<()> {
        let server = TestGitlab::start_with(Options::default().max_artifact_bytes(8 << 30)).await;
        let config = Config::default().microvm("disk = \"40g\"");
        let scene = Scene::with_server(server, &config);
        scene.own_store(config);
        let registry = TestRegistry::start(tart_test_registry::Options::default())?;
        let files = samples::debian(&["bash", "findutils", "tar", "unzip", "zip", "zstd"])?;
        let path = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        let image = ImageBuilder::new().layer(files, Compression::Zstd).config("Env", path);
        registry.push_image(&image, "tools:1")?;
        line("| what | MiB/s | ratio | of what |");
        line("| --- | ---: | ---: | --- |");
        for (level, zip, zstd) in LEVELS {
            let image = || Image::new(registry.reference("tools:1"));
            self.level(&scene, image, (level, zip, zstd)).await?;
        }
        Ok(())
    }

    async fn level(
        &self,
        scene: &Scene,
        image: impl Fn() -> Image,
        (level, zip, zstd): (&str, &str, &str),
    ) -> Result<()> {
        let project = scene.server.create_project(&format!("group/{level}")).await;
        project.commit_file("a.txt", "1\n").await;
        let script = script(self.mib, zip, zstd);
        let first = JobSpec::of(&project, [script])
            .image(image())
            .timeout_secs(LIMIT.as_secs())
            .variable(Variable::new("ARTIFACT_COMPRESSION_LEVEL", level))
            .artifacts(Artifacts::paths(["data/"]));
        let first = scene.server.enqueue(first).await;
        let check = "sha256sum --quiet -c data/sums && echo complete";
        let second = JobSpec::of(&project, [check]).image(image()).timeout_secs(LIMIT.as_secs());
        let second = scene.server.enqueue(second.dependency(&first)).await;
        let mut tart = scene.run();
        for job in [&first, &second] {
            let state = job.wait_finished(LIMIT).await;
            ensure!(state == JobState::Success, "the job is {}:\n{}", state.as_str(), job.log());
        }
        tart.drain();
        ensure!(tart.wait(LIMIT).await.success(), "`tart run` failed:\n{}", tart.output());
        let ours = Times {
            pack: section(&first, "upload_artifacts_on_success")?,
            unpack: section(&second, "download_artifacts")?,
        };
        let log = first.log();
        for program in ["zip", "zstd"] {
            let theirs = Times { pack: took(&log, program)?, unpack: took(&log, &format!("un{program}"))? };
            let name =
                if program == "zip" { format!("`zip {zip}`") } else { format!("`tar` and `zstd {zstd}`") };
            self.row(
                &format!("{level}: archive and upload"),
                ours.pack,
                theirs.pack,
                &format!("{name} to a file"),
            );
            self.row(
                &format!("{level}: download and restore"),
                ours.unpack,
                theirs.unpack,
                &format!("the way back of {name} from a file"),
            );
        }
        let uploaded = first.artifacts().first().map(|archive| archive.content.len()).unwrap_or_default();
        let zipped = took(&log, "bytes")?;
        #[expect(clippy::cast_precision_loss, reason = "a number for people")]
        let ratio = uploaded as f64 / zipped;
        line(&format!("| {level}: bytes of the archive | | {ratio:.3} | those of `zip {zip}` |"));
        Ok(())
    }

    fn row(&self, what: &str, ours: f64, theirs: f64, of: &str) {
        let speed = f64::from(self.mib) / ours;
        line(&format!("| {what} | {speed:.1} | {:.3} | {of} |", theirs / ours));
    }
}

/// Makes the files, and says how long programs take for them.
fn script(mib: u32, zip: &str, zstd: &str) -> String {
    let (text, noise, small) = (mib / 2, mib / 4, mib / 8);
    format!(
        r#"set -e
# `head` closes its input early.
set +o pipefail
now() {{ date +%s%N; }}
timed() {{ name=$1; shift; sync; start=$(now); "$@"; end=$(now); echo "took $name $(( (end - start) / 1000 ))"; }}
mkdir -p data/small/text data/small/noise /builds/elsewhere
seq 1 4000000 | head -c 16M > /tmp/text
n=0; while [ $n -lt $(( {text} / 16 )) ]; do {{ echo $n; cat /tmp/text; }} > data/text-$n; n=$((n + 1)); done
n=0; while [ $n -lt $(( {noise} / 16 )) ]; do head -c 16M /dev/urandom > data/noise-$n; n=$((n + 1)); done
seq 1 40000000 | head -c {small}M | split -a 5 -b 8k - data/small/text/
head -c {small}M /dev/urandom | split -a 5 -b 8k - data/small/noise/
find data -type f ! -name sums | xargs sha256sum > data/sums
pack_zip() {{ zip -q -r -y {zip} /builds/elsewhere/a.zip data; }}
unpack_zip() {{ unzip -q /builds/elsewhere/a.zip -d /builds/elsewhere/out; }}
pack_zstd() {{ tar -cf - data | zstd -q {zstd} > /builds/elsewhere/a.tar.zst; }}
unpack_zstd() {{ mkdir -p /builds/elsewhere/out; zstd -q -dc /builds/elsewhere/a.tar.zst | tar -xf - -C /builds/elsewhere/out; }}
timed zip pack_zip
echo "took bytes $(stat -c %s /builds/elsewhere/a.zip)000000"
timed unzip unpack_zip
rm -rf /builds/elsewhere/*
timed zstd pack_zstd
timed unzstd unpack_zstd
rm -rf /builds/elsewhere; sync
"#
    )
}

/// What the script says that something took, in millionths.
fn took(log: &str, name: &str) -> Result<f64> {
    let key = format!("took {name} ");
    let (_, rest) = log.split_once(&key).with_context(|| format!("the job says nothing of {name}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse::<f64>()? / 1e6)
}

/// Seconds of a section, by the time stamps of the log.
fn section(job: &JobHandle, name: &str) -> Result<f64> {
    let log = job.log();
    let stamp = |mark: &str| -> Result<Timestamp> {
        let line = log.lines().find(|line| line.contains(mark) && line.contains(name));
        let line = line.with_context(|| format!("the log has no {mark} of {name}:\n{log}"))?;
        let stamp = line.split_whitespace().next().unwrap_or_default();
        stamp.parse().with_context(|| format!("no time stamp: {line}"))
    };
    let (start, end) = (stamp("section_start:")?, stamp("section_end:")?);
    Ok(end.duration_since(start).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_took_is_read() {
        let log = "x took zip 2500000\nx took unzip 1000000\nx took bytes 7000000\n";
        assert!((took(log, "zip").unwrap() - 2.5).abs() < 1e-9);
        assert!((took(log, "bytes").unwrap() - 7.0).abs() < 1e-9);
        assert!(took(log, "zstd").is_err());
    }
}
