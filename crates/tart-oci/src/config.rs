//! What an image says about running commands in it.

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// What an image says about running commands in it. Empty means nothing said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment variables; what has no `=` is left out.
    pub env: Vec<(String, String)>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: String,
    /// Working directory.
    pub workdir: String,
    /// Program and arguments that other programs are started by.
    pub entrypoint: Vec<String>,
    /// Program and arguments when nothing else is said.
    pub cmd: Vec<String>,
    /// Docker's `SHELL`, which only builds of images use; kept empty, as the docker executor ignores it too.
    pub shell: Vec<String>,
    /// Ports such as `80/tcp`.
    pub ports: Vec<String>,
    /// Directories that are no part of the image's file system while it runs.
    pub volumes: Vec<String>,
}

/// What a configuration says about running commands.
#[must_use]
pub fn image_config(configuration: &ImageConfiguration) -> ImageConfig {
    let Some(config) = configuration.config() else { return ImageConfig::default() };
    let env = config.env().iter().flatten();
    ImageConfig {
        env: env
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        user: config.user().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        shell: Vec::new(),
        ports: config.exposed_ports().clone().unwrap_or_default(),
        volumes: config.volumes().clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_empty() {
        let bare = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let bare: ImageConfiguration = serde_json::from_str(bare).unwrap();
        assert_eq!(image_config(&bare), ImageConfig::default());
    }

    #[test]
    fn everything_that_is_said_is_there() {
        let full = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"User":"1000:50","Env":["A=b=c","bad"],"Entrypoint":["/e"],"Cmd":["sh"],
            "WorkingDir":"/w","ExposedPorts":{"5432/tcp":{}},"Volumes":{"/var/lib/data":{}},"Healthcheck":{"Test":["CMD","x"]}}}"#;
        let full: ImageConfiguration = serde_json::from_str(full).unwrap();
        insta::assert_debug_snapshot!(image_config(&full), @r#"
        ImageConfig {
            env: [
                (
                    "A",
                    "b=c",
                ),
            ],
            user: "1000:50",
            workdir: "/w",
            entrypoint: [
                "/e",
            ],
            cmd: [
                "sh",
            ],
            shell: [],
            ports: [
                "5432/tcp",
            ],
            volumes: [
                "/var/lib/data",
            ],
        }
        "#);
    }
}
