use proptest::prelude::*;

use super::*;

fn of_url(text: &str) -> String {
    match Endpoint::of_url(&text.parse().unwrap()) {
        Ok(endpoint) => endpoint.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn urls_have_the_port_of_their_scheme() {
    assert_eq!(of_url("https://gitlab.example.com/group/project.git"), "gitlab.example.com:443");
    assert_eq!(of_url("http://GitLab.example.com/"), "gitlab.example.com:80");
    assert_eq!(of_url("http://127.0.0.1:8929/a/b.git"), "127.0.0.1:8929");
    assert_eq!(of_url("https://[2001:db8::1]/"), "[2001:db8::1]:443");
    assert_eq!(of_url("http://[::1]:3000/"), "[::1]:3000");
    assert_eq!(of_url("ssh://git@gitlab.example.com/a/b.git"), "gitlab.example.com:22");
    assert_eq!(of_url("https://bücher.example/"), "xn--bcher-kva.example:443");
}

#[test]
fn errors_of_urls_hold_no_credentials() {
    insta::assert_snapshot!(of_url("foo://user:secret@gitlab.example.com/"), @"`foo://gitlab.example.com` cannot be reached by a job: it names no port");
    insta::assert_snapshot!(of_url("file:///srv/repo.git"), @"`file://` cannot be reached by a job: it has no host");
}

#[test]
fn text_is_parsed_as_it_is_shown() {
    for text in ["a.example:1", "127.0.0.1:80", "[::1]:65535", "db_1:5432"] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_single_host_is_refused() {
    for text in [
        "a.example",
        "a.example:0",
        "a.example:65536",
        "::1:80",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[fe80::1]:80",
        "[a]:80",
        ":80",
        "a..b:80",
        "a b:80",
        "a\nb:80",
        "1.2.3:80",
        "300.1.1.1:80",
        "-:",
        "",
    ] {
        assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
    }
}

#[test]
fn loopback_is_known_by_address_and_by_name() {
    for text in
        ["127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "a.localhost:1"]
    {
        assert!(text.parse::<Endpoint>().unwrap().is_loopback(), "{text}");
    }
    for text in ["10.0.0.1:1", "[2001:db8::1]:1", "localhost.example:1", "notlocalhost:1"] {
        assert!(!text.parse::<Endpoint>().unwrap().is_loopback(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_accepted_text_is_stable_and_fit_for_a_hosts_file(text in ".{0,40}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert!(endpoint.host().bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}
