//! A strict GitLab server for tests: the runner API and git over smart HTTP.
