//! `artifacts` and `cache`.

use super::Reader;
use crate::{
    error::Result,
    node::{Map, Node, Value},
};

/// When artifacts or caches are stored.
const WHEN: &[&str] = &["on_success", "on_failure", "always"];

/// What is kept of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Artifacts {
    /// The name of the archive.
    pub name: Option<String>,
    /// Patterns of files.
    pub paths: Vec<String>,
    /// Patterns of files left out.
    pub exclude: Vec<String>,
    /// Whether files that git does not know are kept.
    pub untracked: bool,
    /// `on_success`, `on_failure` or `always`.
    pub when: Option<String>,
    /// How long they are kept.
    pub expire_in: Option<String>,
    /// Files with a meaning to GitLab.
    pub reports: Vec<Report>,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its type, such as `junit`.
    pub kind: String,
    /// Patterns of its files.
    pub paths: Vec<String>,
}

/// A cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// Which cache it is.
    pub key: CacheKey,
    /// Patterns of files.
    pub paths: Vec<String>,
    /// Whether files that git does not know are kept.
    pub untracked: bool,
    /// `pull-push`, `pull` or `push`; may be a variable.
    pub policy: Option<String>,
    /// `on_success`, `on_failure` or `always`.
    pub when: Option<String>,
    /// Keys tried if there is no cache of that key.
    pub fallback_keys: Vec<String>,
    /// Whether protected and other branches share it.
    pub unprotect: bool,
}

/// How a cache's key is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheKey {
    /// A text, which may have variables.
    Text(String),
    /// From the content of files.
    Files {
        /// The files.
        files: Vec<String>,
        /// What the key begins with.
        prefix: Option<String>,
    },
}

impl Default for CacheKey {
    fn default() -> Self {
        Self::Text("default".into())
    }
}

pub(crate) fn artifacts(reader: Reader<'_>, node: &Node) -> Result<Artifacts> {
    let map = reader.map(node, "artifacts")?;
    let known = [
        "access",
        "exclude",
        "expire_in",
        "expose_as",
        "name",
        "paths",
        "public",
        "reports",
        "untracked",
        "when",
    ];
    reader.known_keys(map, "artifacts", &known)?;
    let get = |key: &str| map.get(key).filter(|node| !node.is_null());
    let mut reports = Vec::new();
    if let Some(node) = get("reports") {
        let map = reader.map(node, "artifacts:reports")?;
        let known: Vec<&str> = REPORTS.iter().map(|(kind, ..)| *kind).chain(["coverage_report"]).collect();
        reader.known_keys(map, "artifacts:reports", &known)?;
        for (kind, node) in map {
            reports.push(report(reader, kind, node)?);
        }
    }
    Ok(Artifacts {
        name: get("name").map(|node| reader.text(node, "artifacts:name")).transpose()?,
        paths: get("paths").map_or(Ok(Vec::new()), |node| reader.only_list(node, "artifacts:paths"))?,
        exclude: get("exclude").map_or(Ok(Vec::new()), |node| reader.only_list(node, "artifacts:exclude"))?,
        untracked: get("untracked").map_or(Ok(false), |node| reader.flag(node, "artifacts:untracked"))?,
        when: get("when").map(|node| reader.one_of(node, "artifacts:when", WHEN)).transpose()?,
        expire_in: get("expire_in").map(|node| reader.text(node, "artifacts:expire_in")).transpose()?,
        reports,
    })
}

/// Report types with the format and the name that a server chooses (protocol reference 5.4).
const REPORTS: &[(&str, &str, &str)] = &[
    ("accessibility", "raw", "gl-accessibility.json"),
    ("annotations", "gzip", "gl-annotations.json"),
    ("api_fuzzing", "raw", "gl-api-fuzzing-report.json"),
    ("browser_performance", "raw", "browser-performance.json"),
    ("cluster_image_scanning", "raw", "gl-cluster-image-scanning-report.json"),
    ("cobertura", "gzip", "cobertura-coverage.xml"),
    ("codequality", "raw", "gl-code-quality-report.json"),
    ("container_scanning", "raw", "gl-container-scanning-report.json"),
    ("coverage_fuzzing", "raw", "gl-coverage-fuzzing.json"),
    ("cyclonedx", "gzip", "gl-sbom.cdx.json"),
    ("dast", "raw", "gl-dast-report.json"),
    ("dependency_scanning", "raw", "gl-dependency-scanning-report.json"),
    ("dotenv", "gzip", ".env"),
    ("jacoco", "gzip", "jacoco-coverage.xml"),
    ("junit", "gzip", "junit.xml"),
    ("license_scanning", "raw", "gl-license-scanning-report.json"),
    ("load_performance", "raw", "load-performance.json"),
    ("lsif", "zip", "lsif.json"),
    ("metrics", "gzip", "metrics.txt"),
    ("performance", "raw", "performance.json"),
    ("requirements", "raw", "requirements.json"),
    ("requirements_v2", "raw", "requirements_v2.json"),
    ("sarif", "raw", "gl-sarif-report.json"),
    ("sast", "raw", "gl-sast-report.json"),
    ("scip", "zip", "index.scip"),
    ("secret_detection", "raw", "gl-secret-detection-report.json"),
    ("terraform", "raw", "tfplan.json"),
];

impl Report {
    /// The format and the name of the upload.
    pub(crate) fn upload(&self) -> (&'static str, &'static str) {
        let row = REPORTS.iter().find(|(kind, ..)| *kind == self.kind);
        row.map_or(("raw", "report"), |(_, format, name)| (format, name))
    }
}

/// One entry of `artifacts:reports`. A coverage report is of the type that its format names.
fn report(reader: Reader<'_>, kind: &str, node: &Node) -> Result<Report> {
    let key = format!("artifacts:reports:{kind}");
    let Value::Map(map) = &node.value else {
        return Ok(Report { kind: kind.to_owned(), paths: reader.texts(node, &key)? });
    };
    reader.known_keys(map, &key, &["coverage_format", "path"])?;
    let (Some(format), Some(path)) = (map.get("coverage_format"), map.get("path")) else {
        return Err(reader.error(node, format!("`{key}` needs `coverage_format` and `path`")));
    };
    Ok(Report {
        kind: reader.one_of(format, "coverage_format", &["cobertura", "jacoco"])?,
        paths: reader.texts(path, &key)?,
    })
}

pub(crate) fn cache_list(reader: Reader<'_>, node: &Node) -> Result<Vec<Cache>> {
    match &node.value {
        Value::Map(map) => Ok(vec![cache(reader, map)?]),
        Value::List(items) => {
            let mut caches = Vec::new();
            for item in items {
                caches.extend(cache_list(reader, item)?);
            }
            if caches.len() > 4 {
                return Err(
                    reader.error(node, format!("there are {} caches, at most 4 are allowed", caches.len()))
                );
            }
            Ok(caches)
        }
        _ => Err(reader.wrong(node, "cache", "a map or a list of maps")),
    }
}

fn cache(reader: Reader<'_>, map: &Map) -> Result<Cache> {
    let known = ["fallback_keys", "key", "paths", "policy", "unprotect", "untracked", "when"];
    reader.known_keys(map, "cache", &known)?;
    let get = |key: &str| map.get(key).filter(|node| !node.is_null());
    Ok(Cache {
        key: get("key").map_or(Ok(CacheKey::default()), |node| cache_key(reader, node))?,
        paths: get("paths").map_or(Ok(Vec::new()), |node| reader.only_list(node, "cache:paths"))?,
        untracked: get("untracked").map_or(Ok(false), |node| reader.flag(node, "cache:untracked"))?,
        policy: get("policy")
            .map(|node| reader.one_of(node, "cache:policy", &["pull-push", "pull", "push"]))
            .transpose()?,
        when: get("when").map(|node| reader.one_of(node, "cache:when", WHEN)).transpose()?,
        fallback_keys: get("fallback_keys")
            .map_or(Ok(Vec::new()), |node| reader.only_list(node, "cache:fallback_keys"))?,
        unprotect: get("unprotect").map_or(Ok(false), |node| reader.flag(node, "cache:unprotect"))?,
    })
}

fn cache_key(reader: Reader<'_>, node: &Node) -> Result<CacheKey> {
    let Value::Map(map) = &node.value else { return Ok(CacheKey::Text(reader.text(node, "cache:key")?)) };
    reader.known_keys(map, "cache:key", &["files", "files_commits", "prefix"])?;
    let Some(files) = map.get("files").or_else(|| map.get("files_commits")) else {
        return Err(reader.error(node, "`cache:key` has no `files`"));
    };
    let files_found = reader.only_list(files, "cache:key:files")?;
    if !(1..=2).contains(&files_found.len()) {
        return Err(reader.error(files, "`cache:key:files` must name one or two files"));
    }
    let prefix = map.get("prefix").map(|node| reader.text(node, "cache:key:prefix")).transpose()?;
    Ok(CacheKey::Files { files: files_found, prefix })
}
