//! From an entry of a job's artifacts to an upload. Pure.

use tart_archive::{Format, Level, Purpose, Request, Statement};
use tart_gitlab::ArtifactUpload;
use tart_job::plan::JobPlan;
use tart_spec::Artifact;

/// An upload: what the helper is asked for, and what the server is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) upload: ArtifactUpload,
    pub(super) request: Request,
}

/// Plans an upload. The error is for the job's author.
pub(super) fn plan(artifact: &Artifact, plan: &JobPlan) -> Result<Planned, String> {
    let expand = |text: &str| plan.variables.expand(text);
    let level = Level::from_name(&plan.settings.archives.artifact_level).unwrap_or(Level::Default);
    planned(artifact, expand, &plan.dirs.build_dir, level)
}

fn planned(
    artifact: &Artifact,
    expand: impl Fn(&str) -> String,
    root: &str,
    level: Level,
) -> Result<Planned, String> {
    let format = Format::from_name(&artifact.artifact_format).ok_or_else(|| {
        format!(
            "artifacts cannot be archived as `{}`: Tart makes zip, gzip, raw, zipzstd and tarzstd",
            artifact.artifact_format
        )
    })?;
    let name = artifact.name.as_deref().filter(|name| !name.is_empty()).map(&expand);
    let kind = if artifact.artifact_type.is_empty() { "archive" } else { artifact.artifact_type.as_str() };
    Ok(Planned {
        upload: ArtifactUpload {
            file_name: format!("{}{}", base_name(name.as_deref()), format.suffix()),
            format: format.name().to_owned(),
            kind: kind.to_owned(),
            expire_in: artifact.expire_in.as_deref().map(&expand).unwrap_or_default(),
        },
        request: Request {
            root: root.to_owned(),
            paths: artifact.paths.iter().map(|path| expand(path)).collect(),
            exclude: artifact.exclude.iter().map(|path| expand(path)).collect(),
            untracked: artifact.untracked,
            format,
            level,
            purpose: Purpose::Artifacts,
            known: String::new(),
            statement: Statement::default(),
        },
    })
}

/// The last part of a name, as the official runner has it.
fn base_name(name: Option<&str>) -> &str {
    let Some(name) = name else { return "artifacts" };
    match name.trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "default",
        base => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(format: &str, name: Option<&str>) -> Artifact {
        Artifact {
            name: name.map(str::to_owned),
            paths: vec!["out/$X".into()],
            artifact_format: format.into(),
            expire_in: Some("1 week".into()),
            ..Artifact::default()
        }
    }

    fn of(artifact: &Artifact) -> Result<Planned, String> {
        planned(artifact, |text| text.replace("$X", "x"), "/builds/g/p", Level::Default)
    }

    #[test]
    fn names_are_those_of_the_official_runner() {
        let name = |format, name| of(&artifact(format, name)).unwrap().upload.file_name;
        assert_eq!(name("", None), "artifacts.zip");
        assert_eq!(name("zip", Some("")), "artifacts.zip");
        assert_eq!(name("zip", Some("build-$X")), "build-x.zip");
        assert_eq!(name("gzip", Some("a/junit.xml")), "junit.xml.gz");
        assert_eq!(name("raw", Some("gl-sast.json")), "gl-sast.json");
        assert_eq!(name("zipzstd", None), "artifacts.zip");
        assert_eq!(name("tarzstd", Some("x")), "x.tar.zst");
        for odd in ["/", ".", "..", "a/.."] {
            assert_eq!(name("zip", Some(odd)), "default.zip");
        }
    }

    #[test]
    fn paths_are_expanded_and_the_format_is_told() {
        let planned = of(&artifact("", None)).unwrap();
        assert_eq!(planned.request.paths, ["out/x"]);
        assert_eq!((planned.upload.format.as_str(), planned.upload.kind.as_str()), ("zip", "archive"));
        assert_eq!(planned.upload.expire_in, "1 week");
        insta::assert_snapshot!(of(&artifact("rar", None)).unwrap_err(), @"artifacts cannot be archived as `rar`: Tart makes zip, gzip, raw, zipzstd and tarzstd");
    }
}
