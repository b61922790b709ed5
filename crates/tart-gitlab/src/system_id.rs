//! The identity of this machine among those that share a runner token (protocol reference 1.2).

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The name of the state file beside config.toml.
const FILE_NAME: &str = ".runner_system_id";
/// Where Linux keeps the machine's id.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
const ID_LENGTH: usize = 12;

/// `s_` (made from the machine's id) or `r_` (random) and 12 letters or digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SystemId(String);

/// A system id, and why it could not be kept.
#[derive(Debug)]
pub struct LoadedSystemId {
    /// The id to use.
    pub id: SystemId,
    /// It could not be written, so the next start may have another one; worth a warning.
    pub not_saved: Option<(PathBuf, std::io::Error)>,
}

impl SystemId {
    /// Takes a well-formed id.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("s_").or_else(|| text.strip_prefix("r_"))?;
        let good = rest.len() == ID_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        good.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the id beside a configuration file, or makes one and writes it there.
    pub fn load_or_create(config_file: &Path) -> LoadedSystemId {
        let directory = config_file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = directory.unwrap_or(Path::new(".")).join(FILE_NAME);
        let stored = std::fs::read_to_string(&path).ok();
        if let Some(id) = stored.and_then(|text| Self::parse(text.trim())) {
            return LoadedSystemId { id, not_saved: None };
        }
        let machine_id = MACHINE_ID_FILES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        let id = machine_id.as_deref().and_then(Self::of_machine).unwrap_or_else(Self::random);
        let not_saved = save(&path, &id).err().map(|error| (path, error));
        LoadedSystemId { id, not_saved }
    }

    fn of_machine(machine_id: &str) -> Option<Self> {
        let machine_id = machine_id.trim();
        if machine_id.is_empty() {
            return None;
        }
        let mut hmac = Hmac::<Sha256>::new_from_slice(machine_id.as_bytes()).ok()?;
        hmac.update(b"gitlab-runner");
        let digest = hex::encode(hmac.finalize().into_bytes());
        Self::parse(&format!("s_{}", digest.get(..ID_LENGTH)?))
    }

    fn random() -> Self {
        const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let mut text = String::from("r_");
        while text.len() < ID_LENGTH + 2 {
            let byte = getrandom::u32().expect("the system has randomness once it is up") & 0x3f;
            // Of 64 numbers 62 are letters; the others are drawn again, so that all letters are equally likely.
            let letter = usize::try_from(byte).ok().and_then(|index| LETTERS.get(index));
            text.extend(letter.map(|letter| char::from(*letter)));
        }
        Self(text)
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Writes in one step and for the owner only: two runners that start together end with one file, not half of two.
fn save(path: &Path, id: &SystemId) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // A temporary file has the mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(id.as_str().as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("new/config.toml");
        let first = SystemId::load_or_create(&config);
        assert!(first.not_saved.is_none());
        let file = directory.path().join("new/.runner_system_id");
        let mode = |path: &Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&directory.path().join("new")), 0o700);
        assert_eq!(SystemId::load_or_create(&config).id, first.id);
    }

    #[test]
    fn a_stored_id_is_trimmed_and_a_bad_one_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("config.toml");
        let file = directory.path().join(FILE_NAME);
        std::fs::write(&file, " r_ABCxyz012345\n").expect("written");
        assert_eq!(SystemId::load_or_create(&config).id.as_str(), "r_ABCxyz012345");
        std::fs::write(&file, "x_nonsense").expect("written");
        let id = SystemId::load_or_create(&config).id;
        assert_eq!(std::fs::read_to_string(&file).expect("read"), id.as_str());
    }

    #[test]
    fn an_id_that_cannot_be_written_is_used_all_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let blocker = directory.path().join("file");
        std::fs::write(&blocker, "").expect("written");
        let loaded = SystemId::load_or_create(&blocker.join("config.toml"));
        assert!(SystemId::parse(loaded.id.as_str()).is_some() && loaded.not_saved.is_some());
    }

    #[test]
    fn the_machine_decides_the_id() {
        // printf gitlab-runner | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let id = SystemId::of_machine("0123456789abcdef0123456789abcdef\n").expect("an id");
        assert_eq!(id.as_str(), "s_ee3af03959fe");
        assert_eq!(SystemId::of_machine(" \n"), None);
    }

    #[test]
    fn random_ids_are_well_formed_and_differ() {
        let (one, two) = (SystemId::random(), SystemId::random());
        assert!(SystemId::parse(one.as_str()).is_some_and(|id| id != two));
    }

    proptest! {
        #[test]
        fn only_fourteen_characters_are_an_id(text in "[sr]_[0-9a-zA-Z]{10,14}|.{0,20}") {
            let parsed = SystemId::parse(&text);
            prop_assert!(parsed.is_none_or(|id| id.as_str().len() == 14 && id.as_str() == text));
        }
    }
}
