use crate::null::wire;
use crate::options::ExecutorOptions;
use crate::variable::Variable;

wire! {
    /// The image of a job.
    #[derive(Debug)]
    pub struct Image {
        /// May hold references to variables.
        pub name: String,
        /// Names, separated by commas and spaces.
        pub alias: String,
        /// Replaces the image's own.
        pub entrypoint: Vec<String>,
        /// Means nothing for an image.
        pub command: Vec<String>,
        /// For the session's proxy.
        pub ports: Vec<Port>,
        /// Means nothing for an image.
        pub variables: Vec<Variable>,
        /// `always`, `if-not-present`, `never`, best first.
        pub pull_policy: Vec<String>,
        /// Options of certain executors.
        pub executor_opts: ExecutorOptions,
    }

    /// A port of an image.
    #[derive(Debug, Eq)]
    pub struct Port {
        /// Its number.
        pub number: i64,
        /// `http` or `https`.
        pub protocol: String,
        /// Its name.
        pub name: String,
    }
}

/// A service is written like an image.
pub type Service = Image;

impl Image {
    /// The names in `alias`.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.alias.split([',', ' ', '\t', '\n']).filter(|alias| !alias.is_empty())
    }
}
