//! What a request wants, before anything is done about it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, header};

use crate::frames::{BASE64, PLAIN};

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// The terminal of a session.
    Exec(&'a str),
    /// A service of a session's job.
    Proxy(&'a str),
}

impl<'a> Target<'a> {
    /// `/session/<name>/exec` and `/session/<name>/proxy/...`.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let (name, rest) = path.strip_prefix("/session/")?.split_once('/')?;
        match rest {
            "exec" => Some(Self::Exec(name)),
            _ if rest.starts_with("proxy/") => Some(Self::Proxy(name)),
            _ => None,
        }
    }

    pub(crate) fn session(self) -> &'a str {
        match self {
            Self::Exec(name) | Self::Proxy(name) => name,
        }
    }
}

/// Whether a request asks for a websocket at all.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket")
}

/// What a good handshake says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// `Sec-WebSocket-Key`.
    pub(crate) key: Vec<u8>,
    /// The subprotocol, if one is known of those that are asked for.
    pub(crate) protocol: Option<&'static str>,
}

impl Handshake {
    /// `None` if it is none (RFC 6455, 4.2.1).
    pub(crate) fn of(request: &Parts) -> Option<Self> {
        let headers = &request.headers;
        let is_good = request.method == Method::GET
            && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let key = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes();
        let nonce = STANDARD.decode(key).ok()?;
        let asks_for = |protocol: &&str| has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let protocol = [PLAIN, BASE64].into_iter().find(asks_for);
        (is_good && nonce.len() == 16).then(|| Self { key: key.to_vec(), protocol })
    }
}

/// Whether a header that is a list has an element.
fn has_token(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|element| element.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn paths_name_sessions_and_what_is_wanted_of_them() {
        assert_eq!(Target::of("/session/ab/exec"), Some(Target::Exec("ab")));
        assert_eq!(Target::of("/session/ab/proxy/db/5432/"), Some(Target::Proxy("ab")));
        for path in [
            "/",
            "/session/",
            "/session/ab",
            "/session/ab/",
            "/session/ab/exec/",
            "/session/ab/x/exec",
            "/other/ab/exec",
        ] {
            assert_eq!(Target::of(path), None, "{path}");
        }
    }

    fn parts(change: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder) -> Parts {
        let request = Request::get("/session/ab/exec")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        change(request).body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let of = |text: &'static str| {
            let parts = parts(|request| request.header("Sec-WebSocket-Protocol", text));
            assert!(is_upgrade(&parts.headers));
            Handshake::of(&parts).unwrap().protocol
        };
        assert_eq!(of("terminal.gitlab.com"), Some(PLAIN));
        assert_eq!(of("chat, base64.terminal.gitlab.com"), Some(BASE64));
        assert_eq!(of("channel.k8s.io"), None);
    }

    #[test]
    fn what_is_no_handshake_is_none() {
        assert!(Handshake::of(&parts(|request| request)).is_some());
        assert!(Handshake::of(&parts(|request| request.method(Method::POST))).is_none());
        let mut short = parts(|request| request);
        short.headers.insert(header::SEC_WEBSOCKET_KEY, "c2hvcnQ=".parse().unwrap());
        assert!(Handshake::of(&short).is_none());
        let mut old = parts(|request| request);
        old.headers.insert(header::SEC_WEBSOCKET_VERSION, "8".parse().unwrap());
        assert!(Handshake::of(&old).is_none());
    }
}
