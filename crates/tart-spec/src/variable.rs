use std::fmt;

use crate::null::wire;

wire! {
    /// A variable of a job. `Debug` does not show its value.
    #[derive(Eq)]
    pub struct Variable {
        /// The name.
        pub key: String,
        /// The value; the content, for a file variable.
        pub value: String,
        /// May be given to services.
        pub public: bool,
        /// The value is hidden in the log.
        pub masked: bool,
        /// The value is written to a file, and the variable holds its path.
        pub file: bool,
        /// References inside the value stay as they are.
        pub raw: bool,
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable")
            .field("key", &self.key)
            .field("public", &self.public)
            .field("masked", &self.masked)
            .field("file", &self.file)
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}
