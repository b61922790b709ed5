//! Client of the GitLab runner API: registration, job requests, updates, traces.
