//! Where artifacts come from: the statement that `RUNNER_GENERATE_ARTIFACTS_METADATA` puts into an archive. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tart_archive::{Format, Statement};

use super::plan::Planned;

/// The version of SLSA's provenance that there is, in `SLSA_PROVENANCE_SCHEMA_VERSION`.
pub(super) const VERSION: &str = "v1";

/// What a statement says.
pub(super) struct Facts<'a> {
    /// The repository's address, without credentials.
    pub(super) repository: &'a str,
    /// The commit.
    pub(super) commit: &'a str,
    pub(super) job_id: i64,
    pub(super) job_name: &'a str,
    /// The runner's number at the server.
    pub(super) runner_id: &'a str,
    pub(super) runner_name: &'a str,
    /// Names of the job's variables. Their values are said to nobody.
    pub(super) variables: Vec<&'a str>,
    pub(super) begun: Timestamp,
    pub(super) ended: Timestamp,
}

/// Has a zip say where it comes from, as the official runner does. Other formats have no room for it.
pub(super) fn attest(planned: &mut Planned, facts: &Facts<'_>) {
    if planned.request.format == Format::Zip {
        let name = planned.upload.file_name.trim_end_matches(".zip");
        let name = format!("{name}-metadata.json");
        planned.request.statement = Statement { name, text: statement(facts).to_string() };
    }
}

/// SLSA's provenance (<https://slsa.dev/spec/v1.0/provenance>) without its subjects, with the parameters that GitLab
/// documents for its runner.
fn statement(facts: &Facts<'_>) -> Value {
    let repository = facts.repository.trim_end_matches(".git");
    let mut external: Map<String, Value> =
        facts.variables.iter().map(|name| ((*name).to_owned(), json!(""))).collect();
    external.insert("entryPoint".to_owned(), json!(facts.job_name));
    external.insert("source".to_owned(), json!(repository));
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/main/PROVENANCE.md",
                "externalParameters": external,
                "internalParameters": {
                    "architecture": "amd64",
                    "executor": "microvm",
                    "job": facts.job_id.to_string(),
                    "name": facts.runner_name,
                },
                "resolvedDependencies": [{ "uri": repository, "digest": { "sha256": facts.commit } }],
            },
            "runDetails": {
                "builder": {
                    "id": format!("{repository}/-/runners/{}", facts.runner_id),
                    "version": { "tart": env!("CARGO_PKG_VERSION") },
                },
                "metadata": {
                    "invocationID": facts.job_id.to_string(),
                    "startedOn": seconds(facts.begun),
                    "finishedOn": seconds(facts.ended),
                },
            },
        },
    })
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_names_of_variables_and_no_values() {
        let facts = Facts {
            repository: "https://gitlab.test/group/app.git",
            commit: "c0ffee",
            job_id: 7,
            job_name: "build",
            runner_id: "3",
            runner_name: "one",
            variables: vec!["CI", "SECRET"],
            begun: Timestamp::UNIX_EPOCH,
            ended: Timestamp::from_second(90).unwrap(),
        };
        let text = serde_json::to_string_pretty(&statement(&facts)).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r#"
        {
          "_type": "https://in-toto.io/Statement/v1",
          "predicate": {
            "buildDefinition": {
              "buildType": "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/main/PROVENANCE.md",
              "externalParameters": {
                "CI": "",
                "SECRET": "",
                "entryPoint": "build",
                "source": "https://gitlab.test/group/app"
              },
              "internalParameters": {
                "architecture": "amd64",
                "executor": "microvm",
                "job": "7",
                "name": "one"
              },
              "resolvedDependencies": [
                {
                  "digest": {
                    "sha256": "c0ffee"
                  },
                  "uri": "https://gitlab.test/group/app"
                }
              ]
            },
            "runDetails": {
              "builder": {
                "id": "https://gitlab.test/group/app/-/runners/3",
                "version": {
                  "tart": "VERSION"
                }
              },
              "metadata": {
                "finishedOn": "1970-01-01T00:01:30Z",
                "invocationID": "7",
                "startedOn": "1970-01-01T00:00:00Z"
              }
            }
          },
          "predicateType": "https://slsa.dev/provenance/v1"
        }
        "#);
    }
}
