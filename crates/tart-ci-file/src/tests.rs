//! Whole files.

mod errors;
mod hostile;
mod payload;
mod plans;
mod resolution;

use std::{collections::BTreeMap, fmt::Write};

use crate::{Files, Job, Pipeline, When};

/// Files in memory.
struct Memory(BTreeMap<String, String>);

impl Files for Memory {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "there is no such file".into())
    }

    fn list(&self) -> Result<Vec<String>, String> {
        Ok(self.0.keys().cloned().collect())
    }
}

fn load_files(files: &[(&str, &str)]) -> crate::Result<Pipeline> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    Pipeline::load(&Memory(files), ".gitlab-ci.yml")
}

fn load(text: &str) -> crate::Result<Pipeline> {
    load_files(&[(".gitlab-ci.yml", text)])
}

fn error(text: &str) -> String {
    load(text).expect_err("the file should be refused").to_string()
}

fn pipeline(text: &str) -> Pipeline {
    load(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What of a job is not empty.
fn show(job: &Job) -> String {
    let mut out = format!("{} ({})\n", job.name, job.stage);
    let mut list = |key: &str, items: &[String]| {
        if !items.is_empty() {
            writeln!(out, "  {key}: {items:?}").unwrap();
        }
    };
    list("before_script", &job.before_script);
    list("script", &job.script);
    list("after_script", &job.after_script);
    list("tags", &job.tags);
    let variables: Vec<String> = job
        .variables
        .iter()
        .map(|(name, variable)| {
            format!("{name}={}{}", variable.value, if variable.raw { " (raw)" } else { "" })
        })
        .collect();
    list("variables", &variables);
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(out, "  {key}: {value}").unwrap();
        }
    };
    put("image", job.image.as_ref().map(|image| format!("{} {:?}", image.name, image.entrypoint)));
    for service in &job.services {
        put("service", Some(format!("{} {:?} {:?}", service.image.name, service.alias, service.command)));
    }
    put("timeout", job.timeout.map(|timeout| format!("{timeout:?}")));
    put("retry", (job.retry.max > 0).then(|| format!("{:?}", job.retry)));
    put("needs", job.needs.as_ref().map(|needs| format!("{needs:?}")));
    put("artifacts", job.artifacts.as_ref().map(|artifacts| format!("{artifacts:?}")));
    for cache in &job.cache {
        put("cache", Some(format!("{cache:?}")));
    }
    put("instance", job.instance.map(|instance| format!("{}/{}", instance.index, instance.total)));
    put("when", (job.when != When::OnSuccess).then(|| job.when.as_str().to_owned()));
    put(
        "raw",
        (!job.raw.is_empty())
            .then(|| serde_json::to_string(&job.raw.iter().collect::<BTreeMap<_, _>>()).unwrap()),
    );
    out
}

fn show_all(pipeline: &Pipeline) -> String {
    pipeline.jobs.values().map(show).collect()
}
