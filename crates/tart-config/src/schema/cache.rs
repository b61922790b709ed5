//! `[runners.cache]`: the object store behind `cache:`.

use super::{Default, Kind, Section, flag, key, unset, with};

pub(super) static SECTIONS: &[Section] = &[
    Section {
        path: "runners.cache",
        repeated: false,
        meaning: "Where caches are kept between jobs. Key names are capitalised as in the official runner.",
        keys: &[
            unset(
                "Type",
                Kind::Choice(&["s3", "gcs", "azure"]),
                "The kind of object store; without it caches are kept on this host",
            ),
            unset("Path", Kind::Text, "A prefix of all object names"),
            flag("Shared", "Share caches between runners"),
            with(
                "MaxUploadedArchiveSize",
                Kind::Int(0, i64::MAX),
                "0",
                "The largest archive that is stored, in bytes; 0 means no limit",
            ),
            flag("RedactURL", "Leave addresses of the object store out of jobs' logs"),
        ],
    },
    Section {
        path: "runners.cache.s3",
        repeated: false,
        meaning: "A store that speaks S3.",
        keys: &[
            unset("ServerAddress", Kind::Text, "The server, as `host` or `host:port`"),
            unset("AccessKey", Kind::Secret, "The access key"),
            unset("SecretKey", Kind::Secret, "The secret key"),
            unset("SessionToken", Kind::Secret, "The session token of temporary keys"),
            unset("BucketName", Kind::Text, "The bucket"),
            unset("BucketLocation", Kind::Text, "The region of the bucket"),
            flag("Insecure", "Speak HTTP, not HTTPS"),
            key(
                "AuthenticationType",
                Kind::Choice(&["access-key", "iam"]),
                Default::Words("`access-key` if the server and both keys are given, else `iam`"),
                "How to authenticate",
            ),
            unset(
                "ServerSideEncryption",
                Kind::Choice(&["S3", "KMS", "DSSE-KMS"]),
                "Encryption by the store",
            ),
            unset("ServerSideEncryptionKeyID", Kind::Text, "The key of the encryption by the store"),
            with("DualStack", Kind::Bool, "true", "Use addresses that have IPv6"),
            key(
                "PathStyle",
                Kind::Bool,
                Default::Words("chosen by the server's name"),
                "Put the bucket into the path, not into the host name",
            ),
            flag("Accelerate", "Use transfer acceleration"),
            unset("RoleARN", Kind::Text, "The role to take for transfers"),
            unset("UploadRoleARN", Kind::Text, "The role to take for uploads"),
            with(
                "AssumeRoleMaxConcurrency",
                Kind::Int(-1, 10_000),
                "5",
                "How many roles are taken at once; -1 means any number",
            ),
            flag("DisableAssumeRoleCredentialsCaching", "Take the role anew for each transfer"),
        ],
    },
    Section {
        path: "runners.cache.gcs",
        repeated: false,
        meaning: "Google Cloud Storage.",
        keys: &[
            unset("AccessID", Kind::Text, "The service account"),
            unset("PrivateKey", Kind::Secret, "The key of the service account"),
            unset(
                "CredentialsFile",
                Kind::Path,
                "A file with the account and its key, which is used instead of both",
            ),
            unset("BucketName", Kind::Text, "The bucket"),
            unset("UniverseDomain", Kind::Text, "The domain of the service"),
        ],
    },
    Section {
        path: "runners.cache.azure",
        repeated: false,
        meaning: "Azure Blob Storage.",
        keys: &[
            unset("AccountName", Kind::Text, "The storage account"),
            unset("AccountKey", Kind::Secret, "The key of the account"),
            unset("ContainerName", Kind::Text, "The container"),
            with("StorageDomain", Kind::Text, "\"blob.core.windows.net\"", "The domain of the service"),
        ],
    },
];
