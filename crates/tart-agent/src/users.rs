//! Users and groups of a file tree, read from its own `/etc/passwd` and `/etc/group`.
//!
//! The rules are those of `docker run --user`, which users of GitLab's Docker executor know: a number need not be
//! listed, an explicit group takes away the supplementary ones, and a user that is not listed has group 0.

use rustix::process::{Gid, Uid};
use tart_proto::message::Failure;

use crate::{failure, tree::Tree};

/// Most of a database that is read, in bytes.
const MAX_DATABASE: u64 = 4 * 1024 * 1024;

/// Most supplementary groups (the kernel takes 65536).
const MAX_GROUPS: usize = 1024;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary groups.
    pub(crate) groups: Vec<Gid>,
    /// Home directory.
    pub(crate) home: String,
}

/// Looks `spec` up in the tree, see [`tart_proto::message::Exec::user`].
pub(crate) fn resolve(tree: &Tree, spec: &str) -> Result<User, Failure> {
    let passwd = database(tree, "/etc/passwd")?;
    let group = database(tree, "/etc/group")?;
    lookup(&passwd, &group, spec)
}

fn database(tree: &Tree, path: &str) -> Result<String, Failure> {
    let bytes =
        tree.read(path, MAX_DATABASE).map_err(|e| failure::system(format!("cannot read `{path}`"), e))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        match fields.as_slice() {
            [name, _password, uid, gid, rest @ ..] => Some(Account {
                name,
                uid: number(uid)?,
                gid: number(gid)?,
                home: rest.get(1).copied().unwrap_or_default(),
            }),
            _ => None,
        }
    })
}

/// Name, id and members of the groups.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, number(gid)?, fields.next().unwrap_or_default()))
    })
}

fn lookup(passwd: &str, group: &str, spec: &str) -> Result<User, Failure> {
    let (user, explicit_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let wanted = number(user);
    let account = accounts(passwd)
        .find(|account| account.name == user)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == wanted));
    let (name, uid, gid, home) = match (&account, wanted) {
        (Some(account), _) => (Some(account.name), account.uid, account.gid, account.home),
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => {
            return Err(failure::not_found(format!("no user `{user}` in the image's `/etc/passwd`")));
        }
    };
    let (gid, supplementary) = match explicit_group {
        Some(wanted) => (find_group(group, wanted)?, Vec::new()),
        None => (gid, name.map(|name| member_of(group, name)).unwrap_or_default()),
    };
    // The primary group is among them, as in Docker, so that a change of the primary one keeps what it denies.
    let gid_alone = [Gid::from_raw(gid)].into_iter();
    let groups = gid_alone.chain(supplementary.into_iter().filter(|other| other.as_raw() != gid)).collect();
    let home = match (home, uid) {
        ("", 0) => "/root",
        ("", _) => "/",
        (home, _) => home,
    };
    Ok(User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, home: home.to_owned() })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, Failure> {
    let id = number(wanted);
    groups(group)
        .find(|(name, ..)| *name == wanted)
        .or_else(|| groups(group).find(|(_, gid, _)| Some(*gid) == id))
        .map(|(_, gid, _)| gid)
        .or(id)
        .ok_or_else(|| failure::not_found(format!("no group `{wanted}` in the image's `/etc/group`")))
}

fn member_of(group: &str, user: &str) -> Vec<Gid> {
    groups(group)
        .filter(|(.., members)| members.split(',').any(|member| member.trim() == user))
        .map(|(_, gid, _)| Gid::from_raw(gid))
        .take(MAX_GROUPS)
        .collect()
}

/// A user or group id. The largest number is the kernel's "no change" and never one.
fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tart_proto::message::FailureKind;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken\nbuild:x:1000:1001:B:/home/build:/bin/sh\n\
                          77:x:78:79::/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\ndocker:x:998:other,build\nbuild:x:1001:\nbad:x:y:build\ntty:x:5:build\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let user = lookup(PASSWD, GROUP, spec).unwrap();
        let groups = user.groups.iter().map(|gid| gid.as_raw()).collect();
        (user.uid.as_raw(), user.gid.as_raw(), groups, user.home)
    }

    #[test]
    fn an_empty_user_is_root() {
        assert_eq!(ids(""), (0, 0, vec![0], "/root".into()));
        let bare = lookup("", "", "").unwrap();
        assert_eq!((bare.uid.as_raw(), bare.home.as_str()), (0, "/root"));
    }

    #[test]
    fn a_listed_user_has_its_groups_by_name_and_by_number() {
        assert_eq!(ids("build"), (1000, 1001, vec![1001, 998, 5], "/home/build".into()));
        assert_eq!(ids("1000"), ids("build"));
    }

    #[test]
    fn a_name_of_digits_wins_over_the_number() {
        assert_eq!(ids("77").0, 78);
    }

    #[test]
    fn a_number_need_not_be_listed() {
        assert_eq!(ids("4242"), (4242, 0, vec![0], "/".into()));
        assert_eq!(ids("4242:4343"), (4242, 4343, vec![4343], "/".into()));
    }

    #[test]
    fn an_explicit_group_takes_the_supplementary_ones_away() {
        assert_eq!(ids("build:docker"), (1000, 998, vec![998], "/home/build".into()));
    }

    #[test]
    fn unknown_names_and_impossible_numbers_are_not_found() {
        for spec in ["nobody", "build:staff", "-1", "+5", "4294967295", "4294967296", "root:-1"] {
            assert_eq!(lookup(PASSWD, GROUP, spec).unwrap_err().kind, FailureKind::NotFound, "{spec}");
        }
    }

    proptest! {
        #[test]
        fn any_database_is_read(passwd in ".{0,200}", group in ".{0,200}", spec in ".{0,20}") {
            let _user = lookup(&passwd, &group, &spec);
        }
    }
}
