//! Which image a job runs in.

use tart_assets::{AssetError, DEFAULT_IMAGE};
use tart_job::outcome::Failure;

use crate::host::HostError;

/// The image of a job: what the caller wants, what the job names, what the configuration names, or the default.
///
/// # Errors
/// The job names a path: it would be one of the host.
pub(super) fn choose(wanted: Option<&str>, job: &str, configured: Option<&str>) -> Result<String, Failure> {
    if let Some(wanted) = wanted {
        return Ok(wanted.to_owned());
    }
    let job = job.trim();
    if job.starts_with(['/', '.', '~']) {
        let text = format!("the job's image `{job}` is a path; name an image of the runner's store");
        return Err(Failure::configuration(text));
    }
    if !job.is_empty() {
        return Ok(job.to_owned());
    }
    Ok(configured.unwrap_or(DEFAULT_IMAGE).to_owned())
}

/// Why there is no such image.
pub(super) fn missing(name: &str, error: &HostError) -> Failure {
    match error {
        HostError::Assets(AssetError::NoImage { known, .. }) => Failure::configuration(format!(
            "image `{name}` is not in this runner's store, and this version of Tart does not fetch images from \
             registries; there are: {known}. Remove `image:` from the job to use the runner's default image, or \
             import the image's root file system on the runner's host: `tart assets import {name} ROOTFS`"
        )),
        HostError::Assets(AssetError::ImageName { .. }) => Failure::configuration(error.to_string()),
        error => Failure::system(format!("the image `{name}` cannot be used: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_wish_wins() {
        assert_eq!(choose(Some("/a/rootfs"), "job", Some("configured")).unwrap(), "/a/rootfs");
        assert_eq!(choose(None, "job", Some("configured")).unwrap(), "job");
        assert_eq!(choose(None, " ", Some("configured")).unwrap(), "configured");
        assert_eq!(choose(None, "", None).unwrap(), "default");
    }

    #[test]
    fn a_job_cannot_name_files_of_the_host() {
        for path in ["/etc", "./x", "../x", " /etc"] {
            let failure = choose(None, path, None).unwrap_err();
            assert_eq!(failure.reason(), tart_spec::FailureReason::RunnerConfigurationError, "{path}");
        }
    }

    #[test]
    fn a_missing_image_says_what_to_do() {
        let error = AssetError::NoImage { name: "ruby:3".to_owned(), known: "default".to_owned() };
        insta::assert_snapshot!(missing("ruby:3", &error.into()), @"image `ruby:3` is not in this runner's store, and this version of Tart does not fetch images from registries; there are: default. Remove `image:` from the job to use the runner's default image, or import the image's root file system on the runner's host: `tart assets import ruby:3 ROOTFS`");
    }
}
