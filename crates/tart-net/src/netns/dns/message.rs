//! As much of DNS messages (RFC 1035) as a forwarder needs. Pure; every byte is from a guest or a name server.

use std::net::IpAddr;

/// Length of a message's header, in bytes.
const HEADER: usize = 12;

/// Longest name, in bytes of its text.
const MAX_NAME: usize = 255;

/// Addresses that are read from one answer.
const MAX_ADDRESSES: usize = 64;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// What a query asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The name in lower case, without a final dot.
    pub(super) name: String,
    /// Where the question ends in the message.
    end: usize,
}

/// The question of a query with exactly one; `None` for anything else.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let [_, _, flags, ..] = message else { return None };
    // A query, of kind 0, with one question.
    if flags & 0xf8 != 0 || number(message, 4)? != 1 {
        return None;
    }
    let mut at = HEADER;
    let mut name = String::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        // Longer ones are pointers, which a question has no use for.
        let label = message.get(at..at + len).filter(|_| len < 64)?;
        at += len;
        if !name.is_empty() {
            name.push('.');
        }
        // A byte that is no part of host names matches no rule.
        name.extend(label.iter().map(|byte| match byte {
            b'.' => '\u{fffd}',
            byte if byte.is_ascii_graphic() => char::from(byte.to_ascii_lowercase()),
            _ => '\u{fffd}',
        }));
        if name.len() > MAX_NAME * 3 {
            return None;
        }
    }
    // Type and class.
    message.get(at..at + 4)?;
    Some(Question { name, end: at + 4 })
}

/// The query under another id.
pub(super) fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(to) = message.get_mut(..2) {
        to.copy_from_slice(&id);
    }
    message
}

/// The id of a message.
pub(super) fn id(message: &[u8]) -> [u8; 2] {
    message.first_chunk().copied().unwrap_or_default()
}

/// Whether a message answers a query: same id, same question.
pub(super) fn answers(message: &[u8], query: &[u8], question: &Question) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && id(message) == id(query)
        && number(message, 4) == Some(1)
        && message
            .get(HEADER..question.end)
            .is_some_and(|asked| Some(asked) == query.get(HEADER..question.end))
}

/// Codes of answers without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// No name server answered.
    ServerFailure = 2,
    /// The policy does not let the name be looked up.
    Refused = 5,
}

/// An answer that is none.
pub(super) fn failure(query: &[u8], question: &Question, code: Code) -> Vec<u8> {
    let mut answer = query.get(..question.end).unwrap_or_default().to_vec();
    if let [_, _, flags, code_byte, _, _, counts @ ..] = answer.as_mut_slice() {
        // An answer, with the query's wish for recursion; recursion is available.
        *flags = 0x80 | (*flags & 0x01);
        *code_byte = 0x80 | code as u8;
        counts.iter_mut().take(6).for_each(|byte| *byte = 0);
    }
    answer
}

/// The addresses of an answer, and for how many seconds they hold.
pub(super) fn addresses(message: &[u8], question: &Question) -> Vec<(IpAddr, u32)> {
    let mut found = Vec::new();
    let mut at = question.end;
    for _ in 0..number(message, 6).unwrap_or(0) {
        let Some((address, next)) = record(message, at) else { break };
        found.extend(address);
        at = next;
        if found.len() == MAX_ADDRESSES {
            break;
        }
    }
    found
}

/// The address of a record, if it is one, and where the next begins.
fn record(message: &[u8], mut at: usize) -> Option<(Option<(IpAddr, u32)>, usize)> {
    loop {
        let len = *message.get(at)?;
        at += 1;
        match len {
            0 => break,
            // The second byte of a pointer, with which a name ends.
            0xc0.. => {
                at += 1;
                break;
            }
            _ => at += usize::from(len),
        }
    }
    let (kind, class, len) = (number(message, at)?, number(message, at + 2)?, number(message, at + 8)?);
    let ttl = u32::from(number(message, at + 4)?) << 16 | u32::from(number(message, at + 6)?);
    let data = message.get(at + 10..at + 10 + usize::from(len))?;
    let address: Option<IpAddr> = match kind {
        TYPE_A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        TYPE_AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    };
    let address = address.filter(|_| class == CLASS_IN);
    Some((address.map(|address| (address, ttl)), at + 10 + usize::from(len)))
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for the IPv4 addresses of a name.
    pub(in crate::netns) fn query(name: &str) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    /// An answer with an alias and then an address.
    fn answer(query: &[u8], address: [u8; 4], ttl: u32) -> Vec<u8> {
        let mut message = query.to_vec();
        (message[2], message[3], message[7]) = (0x81, 0x80, 2);
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 12]);
        message.extend([1, b'x', 0xc0, 12, 0, 1, 0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address);
        message
    }

    #[test]
    fn a_question_is_read_in_lower_case() {
        let query = query("WWW.Example.com");
        let question = question(&query).unwrap();
        assert_eq!((question.name.as_str(), question.end), ("www.example.com", query.len()));
    }

    #[test]
    fn a_dot_inside_a_label_does_not_look_like_two_labels() {
        let mut query = query("aXb");
        query[14] = b'.';
        assert_eq!(question(&query).unwrap().name, "a\u{fffd}b");
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let query = query("a.b");
        let question = question(&query).unwrap();
        let good = answer(&query, [192, 0, 2, 1], 70000);
        assert!(answers(&good, &query, &question));
        assert_eq!(addresses(&good, &question), [(IpAddr::from([192, 0, 2, 1]), 70000)]);
        let other = answer(&tests::query("a.c"), [192, 0, 2, 1], 1);
        assert!(!answers(&other, &query, &question));
        assert!(!answers(&with_id(&good, [0, 0]), &query, &question));
        assert!(!answers(&query, &query, &question), "a query is no answer");
    }

    #[test]
    fn an_ipv6_address_is_read_too() {
        let mut message = query("a.b");
        let question = question(&message).unwrap();
        (message[2], message[7]) = (0x81, 1);
        message.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16]);
        message.extend([1; 16]);
        assert_eq!(addresses(&message, &question), [(IpAddr::from([1; 16]), 9)]);
    }

    #[test]
    fn a_refusal_repeats_the_question_and_no_more() {
        let mut query = query("a.b");
        let question = question(&query).unwrap();
        // An additional record, as EDNS has it.
        query[11] = 1;
        query.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        let refusal = failure(&query, &question, Code::Refused);
        assert!(answers(&refusal, &query, &question));
        assert_eq!((refusal.len(), refusal[3] & 15, refusal[11]), (question.end, 5, 0));
    }

    proptest! {
        #[test]
        fn no_message_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), end in 0_usize..300) {
            if let Some(question) = question(&bytes) {
                failure(&bytes, &question, Code::ServerFailure);
            }
            addresses(&bytes, &Question { name: String::new(), end });
        }
    }
}
