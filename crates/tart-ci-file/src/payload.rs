//! A job as a server would send it (protocol reference, section 3).

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    context::{Dependency, ExecContext},
    error::{Error, Result},
    job::{Artifacts, Cache, CacheKey, Image, Job, Service},
    predefined,
    variables::Variable,
};

impl Job {
    /// The job as the body of a server's answer to a request for a job.
    ///
    /// Variables are in the server's order, of which the last wins: predefined ones, those of the file, those of the
    /// command line. There is no job token.
    ///
    /// # Errors
    ///
    /// If the job cannot run without a server.
    pub fn to_wire(&self, context: &ExecContext) -> Result<Value> {
        if let Some(reason) = self.not_runnable {
            return Err(Error::NotRunnable { name: self.name.clone(), reason });
        }
        let commit = &context.commit;
        let (_, project_name) = context.project.path.rsplit_once('/').unwrap_or(("", &context.project.path));
        let timeout = self.timeout.unwrap_or(context.timeout).as_secs();
        Ok(json!({
            "id": context.job_id,
            "token": "",
            "allow_git_fetch": true,
            "job_info": {
                "id": context.job_id,
                "name": self.name,
                "stage": self.stage,
                "pipeline_id": context.pipeline_id,
                "project_id": context.project.id,
                "project_name": project_name,
                "project_full_path": context.project.path,
            },
            "git_info": {
                "repo_url": context.sources.repo_url,
                "ref": commit.ref_name,
                "sha": commit.sha,
                "before_sha": "0".repeat(commit.sha.len()),
                "ref_type": if commit.is_tag { "tag" } else { "branch" },
                "refspecs": context.sources.refspecs,
                "depth": context.sources.depth,
                "repo_object_format": if commit.sha.len() == 64 { "sha256" } else { "sha1" },
                "protected": commit.is_protected,
            },
            "runner_info": { "timeout": timeout },
            "inputs": self.inputs,
            "variables": self.wire_variables(context),
            "steps": self.wire_steps(timeout),
            "image": self.image.as_ref().map(|found| image(found).into()).unwrap_or(Value::Null),
            "services": self.services.iter().map(service).collect::<Value>(),
            "artifacts": self.artifacts.as_ref().map(artifacts).unwrap_or_default(),
            "cache": self.cache.iter().map(|found| cache(found, context)).collect::<Value>(),
            "credentials": [],
            "dependencies": context.dependencies.iter().map(dependency).collect::<Value>(),
            "hooks": self.hooks.iter().map(|(name, script)| json!({ "name": name, "script": script })).collect::<Value>(),
            "features": { "trace_sections": true },
        }))
    }

    /// The files whose versions [`ExecContext::file_versions`] should have for this job.
    pub fn cache_key_files(&self) -> impl Iterator<Item = &str> {
        self.cache
            .iter()
            .flat_map(|cache| match &cache.key {
                CacheKey::Files { files, .. } => files.as_slice(),
                CacheKey::Text(_) => &[],
            })
            .map(String::as_str)
    }

    fn wire_variables(&self, context: &ExecContext) -> Value {
        let predefined = predefined::variables(self, context).into_iter().map(|(key, value)| {
            // What a server predefines is data: `$` in a commit's message must not be expanded.
            json!({ "key": key, "value": value, "public": true, "masked": false, "raw": true })
        });
        let environment = match self.raw.get("environment") {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(Value::Object(map)) => map.get("name").and_then(Value::as_str),
            _ => None,
        };
        let environment = environment.map(|name| {
            json!({ "key": "CI_ENVIRONMENT_NAME", "value": name, "public": true, "masked": false, "raw": false })
        });
        let given = context.variables.iter().map(|(key, value)| {
            json!({ "key": key, "value": value, "public": false, "masked": false, "raw": false })
        });
        let inherited = context.inherited.iter().map(|(key, value)| {
            json!({ "key": key, "value": value, "public": false, "masked": false, "raw": false })
        });
        predefined
            .chain(environment)
            .chain(own_variables(&self.variables))
            .chain(inherited)
            .chain(given)
            .collect()
    }

    /// `before_script` and `script` are one step, as the shell's state goes from one to the other.
    fn wire_steps(&self, timeout: u64) -> Value {
        let script: Vec<&String> = self.before_script.iter().chain(&self.script).collect();
        let step = |name: &str, script: &[&String], when: &str, allow_failure: bool| {
            json!({
                "name": name, "script": script, "timeout": timeout, "when": when, "allow_failure": allow_failure
            })
        };
        let mut steps = vec![step("script", &script, "on_success", false)];
        if !self.after_script.is_empty() {
            let script: Vec<&String> = self.after_script.iter().collect();
            steps.push(step("after_script", &script, "always", true));
        }
        steps.into()
    }
}

fn dependency(dependency: &Dependency) -> Value {
    json!({
        "id": dependency.id,
        "name": dependency.name,
        "token": "",
        "artifacts_file": { "filename": dependency.file_name, "size": dependency.size },
    })
}

fn own_variables(variables: &IndexMap<String, Variable>) -> impl Iterator<Item = Value> {
    variables.iter().map(|(key, variable)| {
        json!({ "key": key, "value": variable.value, "public": true, "masked": false, "raw": variable.raw })
    })
}

fn image(image: &Image) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("name".into(), image.name.as_str().into());
    if let Some(entrypoint) = &image.entrypoint {
        map.insert("entrypoint".into(), entrypoint.as_slice().into());
    }
    if !image.pull_policy.is_empty() {
        map.insert("pull_policy".into(), image.pull_policy.as_slice().into());
    }
    let mut docker = Map::new();
    for (name, value) in [("platform", &image.platform), ("user", &image.user)] {
        if let Some(value) = value {
            docker.insert(name.into(), value.as_str().into());
        }
    }
    if !docker.is_empty() {
        map.insert("executor_opts".into(), json!({ "docker": docker }));
    }
    map
}

fn service(service: &Service) -> Value {
    let mut map = image(&service.image);
    if let Some(alias) = &service.alias {
        map.insert("alias".into(), alias.as_str().into());
    }
    if let Some(command) = &service.command {
        map.insert("command".into(), command.as_slice().into());
    }
    map.insert("variables".into(), own_variables(&service.variables).collect());
    map.into()
}

/// The archive, if there is anything to put into it, and one upload for each report.
fn artifacts(artifacts: &Artifacts) -> Value {
    let mut uploads = Vec::new();
    if !artifacts.paths.is_empty() || artifacts.untracked {
        uploads.push(json!({
            "name": artifacts.name,
            "untracked": artifacts.untracked,
            "paths": artifacts.paths,
            "exclude": artifacts.exclude,
            "when": artifacts.when.as_deref().unwrap_or("on_success"),
            "artifact_type": "archive",
            "artifact_format": "zip",
            "expire_in": artifacts.expire_in,
        }));
    }
    for report in &artifacts.reports {
        let (format, name) = report.upload();
        uploads.push(json!({
            "name": name,
            "untracked": false,
            "paths": report.paths,
            "when": "always",
            "artifact_type": report.kind,
            "artifact_format": format,
            "expire_in": artifacts.expire_in,
        }));
    }
    uploads.into()
}

/// A cache. As on a server, keys of branches that are not protected end so, unless the cache is shared with those that
/// are.
fn cache(cache: &Cache, context: &ExecContext) -> Value {
    let suffixed = |key: &str| if cache.unprotect { key.to_owned() } else { format!("{key}-non_protected") };
    let key = match &cache.key {
        CacheKey::Text(text) => text.clone(),
        CacheKey::Files { files, prefix } => {
            let versions: Vec<&String> =
                files.iter().filter_map(|file| context.file_versions.get(file)).collect();
            let version = if versions.is_empty() { "default".into() } else { digest(&versions) };
            prefix.as_ref().map_or(version.clone(), |prefix| format!("{prefix}-{version}"))
        }
    };
    json!({
        "key": suffixed(&key),
        "untracked": cache.untracked,
        "policy": cache.policy.as_deref().unwrap_or("pull-push"),
        "paths": cache.paths,
        "when": cache.when.as_deref().unwrap_or("on_success"),
        "fallback_keys": cache.fallback_keys.iter().map(|key| suffixed(key)).collect::<Vec<_>>(),
    })
}

fn digest(versions: &[&String]) -> String {
    let mut hash = Sha256::new();
    for version in versions {
        hash.update(version.as_bytes());
        hash.update([0]);
    }
    hex::encode(hash.finalize()).chars().take(40).collect()
}
