/// The part of a token that may be shown: without the prefixes of its kind, at most 9 characters (protocol reference
/// 1.1).
pub fn short_token(token: &str) -> String {
    let token = strip_kind(token);
    let token = token.strip_prefix("glcbt-").unwrap_or(token);
    strip_registration_prefix(token).chars().take(9).collect()
}

/// Removes what tells a runner token's kind: `glrt-` with or without a partition, a bare partition, or `glrtr-`.
fn strip_kind(token: &str) -> &str {
    if let Some(rest) = token.strip_prefix("glrtr-") {
        return rest;
    }
    let rest = token.strip_prefix("glrt-").unwrap_or(token);
    ["t1_", "t2_", "t3_"].iter().find_map(|partition| rest.strip_prefix(partition)).unwrap_or(rest)
}

/// Removes `GR` and seven hexadecimal digits, the start of old registration tokens.
fn strip_registration_prefix(token: &str) -> &str {
    match token.strip_prefix("GR").and_then(|rest| rest.split_at_checked(7)) {
        Some((digits, rest)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest,
        _ => token,
    }
}
