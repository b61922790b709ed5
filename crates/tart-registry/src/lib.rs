//! Client of OCI and Docker registries: references, credentials, manifests, layers with resume.
