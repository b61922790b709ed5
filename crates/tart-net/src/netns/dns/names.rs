//! Which names a guest may look up, and which name servers the host has. Pure.

use std::net::IpAddr;

use crate::{
    Egress,
    netns::rules::{List, Set},
};

/// The names of a policy.
#[derive(Debug, Clone, Default)]
pub(in crate::netns) struct Names(Egress);

impl Names {
    pub(in crate::netns) fn new(egress: &Egress) -> Self {
        Self(egress.clone())
    }

    /// The sets that the addresses of a name go to, or `None` if it may not be looked up: looking names up is a way
    /// out too, so where lists say what is reached, they also say which names are asked for.
    pub(super) fn sets_of(&self, name: &str) -> Option<Vec<Set>> {
        let egress = &self.0;
        if egress.deny.iter().any(|rule| rule.names(name)) {
            return None;
        }
        let mut sets = Vec::new();
        for (list, rules) in List::all(egress) {
            let before = sets.len();
            let named = rules.iter().enumerate().filter(|(_, rule)| rule.names(name));
            sets.extend(named.map(|(position, _)| Set { list, rule: position }));
            let required = match list {
                List::Allow => egress.listed,
                List::Job => egress.job.is_some(),
            };
            if required && sets.len() == before {
                return None;
            }
        }
        Some(sets)
    }
}

/// The name servers of a `resolv.conf`.
pub(in crate::netns) fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    });
    servers.take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_rules;

    fn names(listed: bool, allow: &[&str], deny: &[&str], job: Option<&[&str]>) -> Names {
        let rules = |list: &[&str]| parse_rules(list.iter().copied()).unwrap();
        Names::new(&Egress { listed, allow: rules(allow), deny: rules(deny), job: job.map(rules) })
    }

    fn sets(names: &Names, name: &str) -> Vec<String> {
        names.sets_of(name).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_lists_every_name_is_looked_up_and_none_is_held() {
        assert_eq!(Names::default().sets_of("example.com"), Some(Vec::new()));
    }

    #[test]
    fn where_lists_decide_other_names_are_not_looked_up() {
        let names =
            names(true, &["10.0.0.0/8", "*.example.com:443", "a.example.com"], &["b.example.com"], None);
        assert_eq!(sets(&names, "a.example.com"), ["allow_1", "allow_2"]);
        assert_eq!(names.sets_of("b.example.com"), None);
        assert_eq!(names.sets_of("example.org"), None);
    }

    #[test]
    fn a_jobs_list_narrows_and_never_widens() {
        let names = names(true, &["a.b"], &[], Some(&["a.b", "c.d"]));
        assert_eq!(sets(&names, "a.b"), ["allow_0", "job_0"]);
        assert_eq!(names.sets_of("c.d"), None);
        assert_eq!(super::tests::names(true, &["a.b"], &[], Some(&[])).sets_of("a.b"), None);
    }

    #[test]
    fn name_servers_on_the_loopback_will_do() {
        let text = "search x\nnameserver 127.0.0.53\nnameserver fd00::1 # comment\nnameserver nonsense\n";
        assert_eq!(nameservers(text), ["127.0.0.53".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
