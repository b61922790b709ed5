//! The services of a job: which, under which names, and with what environment. Pure.

use tart_spec::{Image, JobPayload};

use crate::variables::JobVariables;

/// Ports of a service that are tried at most, as the official runner does it.
pub const MAX_CHECKED_PORTS: usize = 20;

/// A service's variable that names the only port to try.
const CHECKED_PORT: &str = "HEALTHCHECK_TCP_PORT";

/// Longest name of a host, in bytes.
const MAX_HOST_NAME: usize = 63;

/// A service to start.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePlan {
    /// What was asked for, its name expanded.
    pub image: Image,
    /// The administrator configured it, so that no list of allowed services holds.
    pub configured: bool,
    /// Names by which the job reaches it.
    pub names: Vec<String>,
    /// Its own host name.
    pub hostname: String,
    /// What its lines in the job's log are marked with.
    pub label: String,
    /// Its environment, before the image's own is put below it.
    pub environment: Vec<(String, String)>,
}

impl ServicePlan {
    /// The TCP ports that show it to be up: the one of its variable, else the first that its image exposes, given in
    /// the words of images, such as `5432/tcp`. None means that nothing shows it.
    #[must_use]
    pub fn checked_ports(&self, exposed: &[String]) -> Vec<u16> {
        let variable = self.environment.iter().rev().find(|(key, _)| key == CHECKED_PORT);
        if let Some(port) = variable.and_then(|(_, value)| value.trim().parse().ok()) {
            return vec![port];
        }
        let mut ports: Vec<u16> = exposed.iter().filter_map(|port| tcp_port(port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.truncate(MAX_CHECKED_PORTS);
        ports
    }
}

/// `80`, `80/tcp`, or the first of `80-90/tcp`.
fn tcp_port(text: &str) -> Option<u16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let first = port.split('-').next()?;
    if protocol == "tcp" { first.parse().ok() } else { None }
}

/// All services of a job, those of the runner's configuration first.
///
/// # Errors
/// For people, if there are more than `limit`, or one has a name that cannot be used.
pub fn plan(
    payload: &JobPayload,
    configured: &[Image],
    limit: Option<usize>,
    variables: &JobVariables,
) -> Result<Vec<ServicePlan>, String> {
    let count = configured.len() + payload.services.len();
    if let Some(limit) = limit.filter(|limit| count > *limit) {
        return Err(format!(
            "the job has {count} services, and the runner allows {limit} (`services_limit` in [runners.docker])"
        ));
    }
    let configured = configured.iter().map(|image| (image, true));
    let all = configured.chain(payload.services.iter().map(|image| (image, false)));
    all.enumerate().map(|(number, (image, own))| service(number, image, own, variables)).collect()
}

fn service(
    number: usize,
    image: &Image,
    configured: bool,
    variables: &JobVariables,
) -> Result<ServicePlan, String> {
    let mut image = image.clone();
    image.name = variables.expand(&image.name).trim().to_owned();
    image.alias = variables.expand(&image.alias);
    if image.name.is_empty() {
        return Err(format!("service {} of the job has no image", number + 1));
    }
    let mut names = names_of(&image.name);
    names.extend(image.aliases().map(str::to_owned));
    let mut unique = Vec::new();
    for name in names {
        if !is_host_name(&name) {
            return Err(format!("`{name}` cannot be the name of a service: it is no host name"));
        }
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    let short = short_name(&image.name);
    let label = std::iter::once(short.as_str()).chain(image.aliases()).collect::<Vec<_>>().join("-");
    Ok(ServicePlan {
        configured,
        hostname: host_name(&short, number),
        label,
        environment: variables.service_environment(&image.variables),
        names: unique,
        image,
    })
}

/// `registry:5000/group/image:tag` is reached as `registry__group__image` and `registry-group-image`.
fn names_of(image: &str) -> Vec<String> {
    let path = without_version(image);
    let path = match path.split_once('/') {
        Some((host, rest)) => format!("{}/{rest}", host.split(':').next().unwrap_or(host)),
        None => path.to_owned(),
    };
    vec![path.replace('/', "__"), path.replace('/', "-")]
}

/// The last part of an image's name, without its version.
fn short_name(image: &str) -> String {
    let path = without_version(image);
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn without_version(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        // A port of a registry comes before a slash.
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    }
}

fn host_name(short: &str, number: usize) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let end = format!("-{number}");
    let start: String = short.chars().map(legal).take(MAX_HOST_NAME - end.len()).collect();
    format!("{start}{end}").trim_start_matches('-').to_owned()
}

fn is_host_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=255).contains(&name.len()) && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Product, RunnerContext};

    fn payload() -> JobPayload {
        let text = r#"{"id":1,"token":"t","job_info":{"project_id":7},
            "variables":[{"key":"PG","value":"15","public":true},{"key":"SECRET","value":"x"}],
            "services":[
                {"name":"postgres:$PG","alias":"db, main","variables":[{"key":"POSTGRES_DB","value":"test_$PG"}]},
                {"name":"registry.example.com:5000/group/tools/redis@sha256:00","alias":""}]}"#;
        serde_json::from_str(text).unwrap()
    }

    fn planned(
        payload: &JobPayload,
        configured: &[Image],
        limit: Option<usize>,
    ) -> Result<Vec<ServicePlan>, String> {
        let product = Product {
            name: "tart".into(),
            version: "1".into(),
            revision: "1".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        let plan = crate::plan::JobPlan::new(payload, &RunnerContext::plain(product)).unwrap();
        super::plan(payload, configured, limit, &plan.variables)
    }

    #[test]
    fn services_have_the_names_that_the_official_runner_gives_them() {
        let plans = planned(&payload(), &[], None).unwrap();
        let shown: Vec<_> = plans
            .iter()
            .map(|plan| {
                format!("{} | {} | {} | {}", plan.image.name, plan.names.join(" "), plan.hostname, plan.label)
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        postgres:15 | postgres db main | postgres-0 | postgres-db-main
        registry.example.com:5000/group/tools/redis@sha256:00 | registry.example.com__group__tools__redis registry.example.com-group-tools-redis | redis-1 | redis
        ");
    }

    #[test]
    fn a_service_has_public_variables_and_its_own() {
        let plans = planned(&payload(), &[], None).unwrap();
        let value = |key: &str| {
            plans[0].environment.iter().find(|(other, _)| other == key).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("POSTGRES_DB"), Some("test_15"));
        assert_eq!(value("PG"), Some("15"));
        assert_eq!(value("SECRET"), None);
    }

    #[test]
    fn the_runners_own_services_come_first_and_count() {
        let configured = [Image { name: "docker:dind".into(), ..Image::default() }];
        let plans = planned(&payload(), &configured, Some(3)).unwrap();
        assert!(plans[0].configured && !plans[1].configured);
        assert_eq!(plans[0].names, ["docker"]);
        insta::assert_snapshot!(planned(&payload(), &configured, Some(2)).unwrap_err(), @"the job has 3 services, and the runner allows 2 (`services_limit` in [runners.docker])");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let mut bad = payload();
        bad.services[0].alias = "a#b".into();
        insta::assert_snapshot!(planned(&bad, &[], None).unwrap_err(), @"`a#b` cannot be the name of a service: it is no host name");
        bad.services[0].name = "$NOTHING".into();
        insta::assert_snapshot!(planned(&bad, &[], None).unwrap_err(), @"service 1 of the job has no image");
    }

    #[test]
    fn ports_are_those_of_the_variable_or_the_first_of_the_image() {
        let mut plan = planned(&payload(), &[], None).unwrap().remove(0);
        let exposed = ["9000/udp", "8080/tcp", "80", "7000-7005/tcp", "80/tcp", "x"].map(str::to_owned);
        assert_eq!(plan.checked_ports(&exposed), [80, 7000, 8080]);
        assert_eq!(plan.checked_ports(&[]), [0_u16; 0]);
        plan.environment.push((CHECKED_PORT.into(), " 99 ".into()));
        assert_eq!(plan.checked_ports(&exposed), [99]);
    }
}
