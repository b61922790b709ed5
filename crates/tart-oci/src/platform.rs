//! Which image of an index is meant.

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os, Platform, PlatformBuilder};

use crate::error::LayerError;

/// Most platforms that an error lists.
const LISTED: usize = 12;

/// Reads `os/architecture[/variant]`; only an architecture is of Linux.
///
/// # Errors
/// If it is no platform.
pub fn parse_platform(text: &str) -> Result<Platform, LayerError> {
    let parts: Vec<_> = text.split('/').collect();
    let (os, arch, variant) = match *parts.as_slice() {
        [arch] if !arch.is_empty() => ("linux", arch, None),
        [os, arch] => (os, arch, None),
        [os, arch, variant] => (os, arch, Some(variant)),
        _ => ("", "", None),
    };
    let (arch, implied) = match arch {
        "x86_64" | "x86-64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        other => (other, None),
    };
    if os.is_empty() || arch.is_empty() {
        let problem = "no platform, which is written like linux/amd64 or linux/arm/v7";
        return Err(LayerError::image(format!("`{}`", text.escape_debug()), problem));
    }
    let builder = PlatformBuilder::default().os(Os::from(os)).architecture(Arch::from(arch));
    let builder = match variant.or(implied) {
        Some(variant) => builder.variant(variant),
        None => builder,
    };
    builder.build().map_err(|error| LayerError::image("the platform", error.to_string()))
}

/// A platform for people: `linux/arm/v7`.
#[must_use]
pub fn shown(platform: &Platform) -> String {
    let variant = platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}

/// The image of an index for a platform: one whose variant fits too, else one that names none or any.
///
/// # Errors
/// If there is none; the text lists what there is.
pub fn select<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor, LayerError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|candidate| {
            candidate.os() == platform.os() && candidate.architecture() == platform.architecture()
        })
    };
    let variant = |descriptor: &Descriptor| {
        descriptor.platform().as_ref().and_then(|candidate| candidate.variant().clone())
    };
    let candidates: Vec<_> = index.manifests().iter().filter(fits).collect();
    let exact = candidates.iter().find(|descriptor| variant(descriptor) == *platform.variant());
    let plain = candidates.iter().find(|descriptor| variant(descriptor).is_none());
    // Whoever names no variant takes any; whoever names one does not take another one.
    let any = candidates.first().filter(|_| platform.variant().is_none());
    // Indexes of one image often name no platform at all.
    let only = match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Some(only),
        _ => None,
    };
    exact.or(plain).or(any).copied().or(only).ok_or_else(|| {
        let mut known: Vec<_> = index
            .manifests()
            .iter()
            .filter_map(|descriptor| descriptor.platform().as_ref())
            // Attestations are listed as images for `unknown/unknown`.
            .filter(|platform| platform.os().to_string() != "unknown")
            .map(shown)
            .collect();
        known.dedup();
        known.truncate(LISTED);
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        LayerError::Platform { wanted: shown(platform), known }
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{ImageIndexBuilder, MediaType};

    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let manifests = platforms.iter().enumerate().map(|(position, platform)| {
            let digest: oci_spec::image::Digest = format!("sha256:{position:064x}").parse().unwrap();
            let mut descriptor = Descriptor::new(MediaType::ImageManifest, 1, digest);
            if !platform.is_empty() {
                descriptor.set_platform(Some(parse_platform(platform).unwrap()));
            }
            descriptor
        });
        let manifests = manifests.collect::<Vec<_>>();
        ImageIndexBuilder::default().schema_version(2_u32).manifests(manifests).build().unwrap()
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Result<usize, String> {
        let index = index(platforms);
        let found = select(&index, &parse_platform(wanted).unwrap()).map_err(|error| error.to_string())?;
        Ok(index.manifests().iter().position(|manifest| manifest == found).unwrap())
    }

    #[test]
    fn the_best_image_of_an_index_is_chosen() {
        let all = ["unknown/unknown", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "linux/amd64"];
        assert_eq!(chosen(&all, "linux/amd64"), Ok(4));
        assert_eq!(chosen(&all, "x86_64"), Ok(4));
        assert_eq!(chosen(&all, "linux/arm/v7"), Ok(3));
        assert_eq!(chosen(&all, "linux/arm64"), Ok(1));
        assert_eq!(chosen(&[""], "linux/amd64"), Ok(0));
        insta::assert_snapshot!(chosen(&all, "linux/s390x").unwrap_err(), @"no image for linux/s390x; there are: linux/arm64/v8, linux/arm/v6, linux/arm/v7, linux/amd64");
        insta::assert_snapshot!(chosen(&all, "linux/arm/v5").unwrap_err(), @"no image for linux/arm/v5; there are: linux/arm64/v8, linux/arm/v6, linux/arm/v7, linux/amd64");
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "/", "linux/", "a/b/c/d"] {
            assert!(parse_platform(text).is_err(), "{text}");
        }
        insta::assert_snapshot!(parse_platform("a/b/c/d").unwrap_err(), @"`a/b/c/d`: no platform, which is written like linux/amd64 or linux/arm/v7");
    }
}
