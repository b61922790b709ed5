//! Evaluates a local .gitlab-ci.yml into jobs.
