//! Who asks.

use std::fmt;

/// Who asks a registry. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Auth {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user.
    Basic {
        /// The name.
        user: String,
        /// The password or access token.
        password: String,
    },
    /// Who has a token that is exchanged for others (`identitytoken` of Docker's configuration).
    IdentityToken(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
        }
    }
}

impl Auth {
    /// Whether there are no credentials.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        *self == Self::Anonymous
    }
}
