//! Wire types of the GitLab runner API.
//!
//! What the server sends is decoded as the official runner does it: `null` is the zero value, unknown keys are
//! ignored. Tokens, passwords and values of variables do not show in `Debug`.

mod artifacts;
mod failure_reason;
mod image;
mod info;
mod null;
mod options;
mod payload;
mod secret;
mod short_token;
mod state;
mod variable;

pub use artifacts::{Artifact, ArtifactsFile, Cache, Credentials, Dependency, When};
pub use failure_reason::FailureReason;
pub use image::{Image, Port, Service};
pub use info::{ConfigInfo, Features, VersionInfo};
pub use options::{DockerOptions, ExecutorOptions, KubernetesOptions};
pub use payload::{
    GitInfo, Hook, Input, InputValue, JobFeatures, JobInfo, JobPayload, OtelAuth, OtelEndpoint, OtelGcpOidc,
    PolicyOptions, RunnerInfo, Step, SuspendOptions, Tracing,
};
pub use secret::{
    AwsSecret, AwsServer, AzureSecret, AzureServer, GcpSecret, GcpServer, GitlabInlineAuth, GitlabSecret,
    GitlabServer, Secret, SecretEngine, VaultAuth, VaultSecret, VaultServer,
};
pub use short_token::short_token;
pub use state::JobState;
pub use variable::Variable;
