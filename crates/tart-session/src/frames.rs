//! What the frames of a terminal's websocket hold.
//!
//! `terminal.gitlab.com` carries bytes in binary frames, `base64.terminal.gitlab.com` carries base64 in text frames; to
//! both, frames of the other kind are invalid, and no frame tells a size. So a frame of the other kind is a
//! [`Control`] here: no client of GitLab sends any, and one that knows Tart can say how large its window is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

/// Bytes in binary frames.
pub const PLAIN: &str = "terminal.gitlab.com";

/// Base64 in text frames.
pub const BASE64: &str = "base64.terminal.gitlab.com";

/// What a client says of its terminal, as JSON: `{"resize": {"rows": 50, "cols": 132}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Control {
    /// Its size, in characters.
    Resize {
        /// Height.
        rows: u16,
        /// Width.
        cols: u16,
    },
}

/// What a frame of the client means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It typed this.
    Bytes(Bytes),
    /// Something about the terminal.
    Control(Control),
    /// The connection lives.
    Nothing,
    /// The client ends it.
    End,
    /// It is not of the protocol.
    Nonsense(&'static str),
}

/// Reads and writes the frames of one subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Base64,
}

impl Codec {
    /// A client that asks for no subprotocol gets bytes.
    pub(crate) fn of(protocol: Option<&str>) -> Self {
        if protocol == Some(BASE64) { Self::Base64 } else { Self::Plain }
    }

    pub(crate) fn read(self, message: Message) -> Said {
        match (self, message) {
            (Self::Plain, Message::Binary(bytes)) => Said::Bytes(bytes),
            (Self::Base64, Message::Text(text)) => match STANDARD.decode(text.as_str().trim()) {
                Ok(bytes) => Said::Bytes(bytes.into()),
                Err(_) => Said::Nonsense("the frame is no base64"),
            },
            (Self::Plain, Message::Text(text)) => control(text.as_bytes()),
            (Self::Base64, Message::Binary(bytes)) => control(&bytes),
            (_, Message::Close(_)) => Said::End,
            (_, Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Said::Nothing,
        }
    }

    pub(crate) fn write(self, bytes: Bytes) -> Message {
        match self {
            Self::Plain => Message::Binary(bytes),
            Self::Base64 => Message::Text(STANDARD.encode(bytes).into()),
        }
    }
}

fn control(text: &[u8]) -> Said {
    match serde_json::from_slice(text) {
        Ok(control) => Said::Control(control),
        Err(_) => Said::Nonsense("the frame is not of this subprotocol"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_the_other_kind_are_controls() {
        let text = r#"{"resize":{"rows":50,"cols":132}}"#;
        let resize = Control::Resize { rows: 50, cols: 132 };
        assert_eq!(serde_json::to_string(&resize).unwrap(), text);
        assert_eq!(Codec::Plain.read(Message::text(text)), Said::Control(resize));
        assert_eq!(Codec::Base64.read(Message::binary(text)), Said::Control(resize));
        assert!(matches!(Codec::Plain.read(Message::text("ls")), Said::Nonsense(_)));
        assert!(matches!(Codec::Base64.read(Message::text("?")), Said::Nonsense(_)));
        assert!(matches!(
            Codec::Plain.read(Message::text(r#"{"resize":{"rows":-1,"cols":1}}"#)),
            Said::Nonsense(_)
        ));
    }

    proptest! {
        #[test]
        fn bytes_come_through_both(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in [Codec::Plain, Codec::Base64] {
                let frame = codec.write(Bytes::from(bytes.clone()));
                prop_assert_eq!(codec.read(frame), Said::Bytes(Bytes::from(bytes.clone())));
            }
        }

        #[test]
        fn nothing_that_is_sent_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            for codec in [Codec::Plain, Codec::Base64] {
                let _said = codec.read(Message::binary(bytes.clone()));
                let _said = codec.read(Message::text(text.clone()));
            }
        }
    }
}
