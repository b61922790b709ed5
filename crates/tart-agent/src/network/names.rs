//! The files of `/etc` that tell a tree its names. They live in a directory of the agent's and are bound into the
//! trees, so they are rewritten in place: a rename would leave the trees with the old ones.

use std::{fs, io, net::IpAddr, path::Path};

use tart_proto::message::{Configure, Failure};

use crate::failure;

/// Files that every tree gets.
pub(crate) const HOSTNAME: &str = "hostname";
pub(crate) const HOSTS: &str = "hosts";
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
/// Only for trees that have one.
pub(crate) const MACHINE_ID: &str = "machine-id";

/// What `gethostname` gives at most, and a label of DNS.
const MAX_HOSTNAME: usize = 63;

/// Makes the files as they are before the guest is configured.
pub(crate) fn create(etc: &Path) -> io::Result<()> {
    fs::create_dir_all(etc)?;
    fs::write(etc.join(HOSTNAME), "localhost\n")?;
    fs::write(etc.join(HOSTS), hosts("localhost", &[]))?;
    fs::write(etc.join(RESOLV_CONF), "")?;
    fs::write(etc.join(MACHINE_ID), "")
}

/// Writes the files for a request.
pub(super) fn set(etc: &Path, request: &Configure) -> Result<(), Failure> {
    check(request)?;
    let files = [
        (HOSTNAME, format!("{}\n", request.hostname)),
        (HOSTS, hosts(&request.hostname, &request.hosts)),
        (RESOLV_CONF, resolv_conf(&request.nameservers, &request.search_domains)),
        (MACHINE_ID, format!("{}\n", request.machine_id)),
    ];
    for (name, contents) in files {
        fs::write(etc.join(name), contents)
            .map_err(|e| failure::system(format!("cannot write `/etc/{name}`"), e))?;
    }
    Ok(())
}

fn check(request: &Configure) -> Result<(), Failure> {
    let name = &request.hostname;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.chars().all(legal) {
        return Err(failure::invalid(format!("`{name}` is no host name")));
    }
    let id = &request.machine_id;
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(failure::invalid(format!("`{id}` is no machine id: 32 hex digits are")));
    }
    let addresses = request.hosts.iter().map(|(address, _)| address).chain(&request.nameservers);
    for address in addresses {
        if address.parse::<IpAddr>().is_err() {
            return Err(failure::invalid(format!("`{address}` is no IP address")));
        }
    }
    // A name with a space or a line end would be another line's beginning.
    let names = request.hosts.iter().flat_map(|(_, names)| names).chain(&request.search_domains);
    for name in names {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
            return Err(failure::invalid(format!("`{name}` is no name of a host or domain")));
        }
    }
    Ok(())
}

fn hosts(hostname: &str, extra: &[(String, Vec<String>)]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if hostname != "localhost" {
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    for (address, names) in extra {
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    text
}

fn resolv_conf(nameservers: &[String], search: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Configure {
        Configure {
            hostname: "runner-1".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            hosts: vec![("10.0.0.5".into(), vec!["postgres".into(), "db".into()])],
            nameservers: vec!["10.0.2.3".into(), "fd00::3".into()],
            search_domains: vec!["example.org".into()],
            ..Configure::default()
        }
    }

    #[test]
    fn the_files_say_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        set(dir.path(), &request()).unwrap();
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read(HOSTNAME), "runner-1\n");
        assert_eq!(
            read(HOSTS),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\trunner-1\n\
             10.0.0.5\tpostgres db\n"
        );
        assert_eq!(read(RESOLV_CONF), "search example.org\nnameserver 10.0.2.3\nnameserver fd00::3\n");
        assert_eq!(read(MACHINE_ID), "0123456789abcdef0123456789abcdef\n");
    }

    #[test]
    fn nothing_can_smuggle_a_line_in() {
        let refused = |change: fn(&mut Configure)| {
            let mut request = request();
            change(&mut request);
            check(&request).unwrap_err().message
        };
        assert_eq!(refused(|r| r.hostname = "a\nb".into()), "`a\nb` is no host name");
        assert_eq!(refused(|r| r.machine_id = "xyz".into()), "`xyz` is no machine id: 32 hex digits are");
        assert_eq!(refused(|r| r.nameservers = vec!["dns".into()]), "`dns` is no IP address");
        assert_eq!(refused(|r| r.hosts[0].0 = "1.1.1.1 x".into()), "`1.1.1.1 x` is no IP address");
        assert_eq!(refused(|r| r.hosts[0].1[0] = "a b".into()), "`a b` is no name of a host or domain");
    }
}
