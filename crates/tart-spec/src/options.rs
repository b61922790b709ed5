use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// `executor_opts` of an image or service. What this runner does not know is kept apart, because a job must not run
/// without what it asks for (protocol reference 2.6 and 3.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// `docker`.
    pub docker: DockerOptions,
    /// `kubernetes`.
    pub kubernetes: KubernetesOptions,
    /// Names of options that are not known or have no usable value, such as `docker.gpus`.
    pub unsupported: Vec<String>,
}

/// Options of the docker executor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerOptions {
    /// Such as `linux/arm64`.
    pub platform: Option<String>,
    /// A name or number, with `:` and a group perhaps.
    pub user: Option<String>,
}

/// Options of the Kubernetes executor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// A number, with `:` and a group perhaps.
    pub user: Option<String>,
}

impl<'de> Deserialize<'de> for ExecutorOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::read)
    }
}

impl ExecutorOptions {
    fn read(value: Value) -> Self {
        let mut options = Self::default();
        for (executor, value) in options.object("executor_opts", value) {
            match executor.as_str() {
                "docker" => {
                    for (key, value) in options.object(&executor, value) {
                        match key.as_str() {
                            "platform" => options.docker.platform = options.text("docker.platform", value),
                            "user" => options.docker.user = options.text("docker.user", value),
                            _ => options.unsupported.push(format!("docker.{key}")),
                        }
                    }
                }
                "kubernetes" => {
                    for (key, value) in options.object(&executor, value) {
                        match key.as_str() {
                            "user" => options.kubernetes.user = options.text("kubernetes.user", value),
                            _ => options.unsupported.push(format!("kubernetes.{key}")),
                        }
                    }
                }
                _ => options.unsupported.push(executor),
            }
        }
        options
    }

    fn object(&mut self, name: &str, value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            _ => {
                self.unsupported.push(name.to_owned());
                Map::new()
            }
        }
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text),
            Value::Number(number) if number.is_u64() => Some(number.to_string()),
            Value::Null => None,
            _ => {
                self.unsupported.push(name.to_owned());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ExecutorOptions {
        serde_json::from_str(json).expect("options")
    }

    #[test]
    fn users_are_names_or_numbers() {
        let options =
            read(r#"{"docker": {"platform": "linux/arm64", "user": 1000}, "kubernetes": {"user": "1:2"}}"#);
        assert_eq!(options.docker.platform.as_deref(), Some("linux/arm64"));
        assert_eq!(options.docker.user.as_deref(), Some("1000"));
        assert_eq!(options.kubernetes.user.as_deref(), Some("1:2"));
        assert_eq!(options.unsupported, [""; 0]);
        assert_eq!(read(r#"{"docker": null, "kubernetes": {"user": ""}}"#), ExecutorOptions::default());
    }

    #[test]
    fn what_is_not_known_is_named() {
        let options = read(
            r#"{"docker": {"user": 1.5, "gpus": "all"}, "kubernetes": {"x": null}, "podman": {"user": "a"}}"#,
        );
        assert_eq!(options.unsupported, ["docker.gpus", "docker.user", "kubernetes.x", "podman"]);
        assert_eq!(read("[]").unsupported, ["executor_opts"]);
        assert_eq!(read(r#"{"docker": 1}"#).unsupported, ["docker"]);
    }
}
