//! The files of `/etc` that tell a tree its names. They live in a directory of the agent's and are bound into the
//! trees, so they are rewritten in place: a rename would leave the trees with the old ones.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
};

use tart_proto::message::{Configure, Failure, ServiceHost};

use crate::failure;

/// Files that every tree gets.
pub(crate) const HOSTNAME: &str = "hostname";
pub(crate) const HOSTS: &str = "hosts";
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
/// Only for trees that have one.
pub(crate) const MACHINE_ID: &str = "machine-id";

/// Where the guest's own name leads, as in Debian.
const OWN_ADDRESS: &str = "127.0.1.1";

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
    write(etc, HOSTNAME, &format!("{}\n", request.hostname))?;
    write(etc, HOSTS, &hosts(&request.hostname, &request.hosts))?;
    write(etc, RESOLV_CONF, &resolv_conf(&request.nameservers, &request.search_domains))?;
    write(etc, MACHINE_ID, &format!("{}\n", request.machine_id))
}

/// Adds lines to `/etc/hosts`.
pub(super) fn add_hosts(etc: &Path, lines: &[(String, Vec<String>)]) -> Result<(), Failure> {
    check_hosts(lines)?;
    let file = fs::OpenOptions::new().append(true).open(etc.join(HOSTS));
    let added = file.and_then(|mut file| file.write_all(host_lines(lines).as_bytes()));
    added.map_err(|e| failure::system("cannot write `/etc/hosts`", e))
}

/// Writes the files of a service: its own host name, and the rest as the job has it. The job's lines of `/etc/hosts`
/// but the one of its own name are the service's too.
pub(super) fn set_service(
    etc: &Path,
    service: &ServiceHost,
    jobs: &Path,
    lines: &[(String, Vec<String>)],
) -> Result<(), Failure> {
    check_hostname(&service.hostname)?;
    check_hosts(lines)?;
    let read = |name: &str| {
        fs::read_to_string(jobs.join(name))
            .map_err(|e| failure::system(format!("cannot read `/etc/{name}` of the job"), e))
    };
    create(etc).map_err(|e| failure::system("cannot make the names of a service", e))?;
    write(etc, HOSTNAME, &format!("{}\n", service.hostname))?;
    let jobs_hosts = read(HOSTS)?;
    let others = jobs_hosts.lines().filter(|line| !line.starts_with(OWN_ADDRESS));
    let mut hosts: String = others.map(|line| format!("{line}\n")).collect();
    hosts.push_str(&host_lines(lines));
    write(etc, HOSTS, &hosts)?;
    write(etc, RESOLV_CONF, &read(RESOLV_CONF)?)?;
    write(etc, MACHINE_ID, &read(MACHINE_ID)?)
}

fn write(etc: &Path, name: &str, contents: &str) -> Result<(), Failure> {
    fs::write(etc.join(name), contents).map_err(|e| failure::system(format!("cannot write `/etc/{name}`"), e))
}

fn check(request: &Configure) -> Result<(), Failure> {
    check_hostname(&request.hostname)?;
    let id = &request.machine_id;
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(failure::invalid(format!("`{id}` is no machine id: 32 hex digits are")));
    }
    check_hosts(&request.hosts)?;
    request.nameservers.iter().try_for_each(|address| check_address(address))?;
    request.search_domains.iter().try_for_each(|name| check_name(name))
}

fn check_hostname(name: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.chars().all(legal) {
        return Err(failure::invalid(format!("`{name}` is no host name")));
    }
    Ok(())
}

fn check_hosts(lines: &[(String, Vec<String>)]) -> Result<(), Failure> {
    for (address, names) in lines {
        check_address(address)?;
        names.iter().try_for_each(|name| check_name(name))?;
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), Failure> {
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(failure::invalid(format!("`{address}` is no IP address"))),
    }
}

/// A name with a space or a line end would be another line's beginning.
fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(failure::invalid(format!("`{name}` is no name of a host or domain")));
    }
    Ok(())
}

fn hosts(hostname: &str, extra: &[(String, Vec<String>)]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if hostname != "localhost" {
        text.push_str(&format!("{OWN_ADDRESS}\t{hostname}\n"));
    }
    text.push_str(&host_lines(extra));
    text
}

fn host_lines(lines: &[(String, Vec<String>)]) -> String {
    lines.iter().map(|(address, names)| format!("{address}\t{}\n", names.join(" "))).collect()
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
    fn a_service_has_its_own_name_and_the_jobs_hosts() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        set(dir.path(), &request()).unwrap();
        let lines = [("172.30.0.2".to_owned(), vec!["redis".to_owned()])];
        let service = ServiceHost { address: "172.30.0.2/24".into(), hostname: "redis-0".into() };
        let etc = dir.path().join("service-0");
        set_service(&etc, &service, dir.path(), &lines).unwrap();
        add_hosts(dir.path(), &lines).unwrap();
        assert_eq!(fs::read_to_string(etc.join(HOSTNAME)).unwrap(), "redis-0\n");
        let hosts = fs::read_to_string(etc.join(HOSTS)).unwrap();
        assert!(hosts.ends_with("10.0.0.5\tpostgres db\n172.30.0.2\tredis\n"), "{hosts}");
        assert!(!hosts.contains("runner-1"), "{hosts}");
        let jobs = fs::read_to_string(dir.path().join(HOSTS)).unwrap();
        assert!(jobs.contains("runner-1") && jobs.ends_with("172.30.0.2\tredis\n"), "{jobs}");
        let bad = ServiceHost { hostname: "a b".into(), ..service };
        assert_eq!(set_service(&etc, &bad, dir.path(), &[]).unwrap_err().message, "`a b` is no host name");
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
