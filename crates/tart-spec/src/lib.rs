//! Wire types of the GitLab runner API.
