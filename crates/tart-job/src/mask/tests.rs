use proptest::prelude::*;

use super::{DEFAULT_PREFIXES, MASKED, MaskRules, Masker};

fn mask(phrases: &[&str], prefixes: &[&str], chunks: &[&[u8]]) -> Vec<u8> {
    let mut masker = Masker::new(&MaskRules::new(phrases.iter().copied(), prefixes.iter().copied(), true));
    let mut out = Vec::new();
    for chunk in chunks {
        masker.write(chunk, &mut out);
    }
    masker.finish(&mut out);
    out
}

fn mask_text(phrases: &[&str], text: &str) -> String {
    String::from_utf8(mask(phrases, &[], &[text.as_bytes()])).expect("text stays text")
}

/// The rules applied to a whole buffer in the most direct way.
fn reference(phrases: &[String], prefixes: &[String], input: &[u8]) -> Vec<u8> {
    let input = reference_phrases(phrases, input);
    let input = reference_urls(&input);
    reference_prefixes(prefixes, &input)
}

fn reference_phrases(phrases: &[String], input: &[u8]) -> Vec<u8> {
    let mut hits = Vec::new();
    for phrase in phrases.iter().map(|phrase| phrase.trim().as_bytes()).filter(|phrase| !phrase.is_empty()) {
        for start in 0..input.len() {
            if input[start..].starts_with(phrase) {
                hits.push((start, start + phrase.len()));
            }
        }
    }
    hits.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in hits {
        match merged.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let mut out = Vec::new();
    let mut position = 0;
    for (start, end) in merged {
        out.extend_from_slice(&input[position..start]);
        out.extend_from_slice(MASKED.as_bytes());
        position = end;
    }
    out.extend_from_slice(&input[position..]);
    out
}

fn reference_urls(input: &[u8]) -> Vec<u8> {
    let keys = ["private_token=", "authenticity_token=", "rss_token=", "x-amz-signature="];
    let more = ["x-amz-credential=", "x-amz-security-token="];
    let mut out = Vec::new();
    let mut position = 0;
    while position < input.len() {
        let byte = input[position];
        out.push(byte);
        position += 1;
        if byte != b'?' && byte != b'&' {
            continue;
        }
        let rest = input[position..].to_ascii_lowercase();
        if let Some(key) = keys.iter().chain(&more).find(|key| rest.starts_with(key.as_bytes())) {
            out.extend_from_slice(&input[position..position + key.len()]);
            out.extend_from_slice(MASKED.as_bytes());
            position += key.len();
            while position < input.len() && !matches!(input[position], b'?' | b'&' | 0..=b' ' | 127) {
                position += 1;
            }
        }
    }
    out
}

fn reference_prefixes(prefixes: &[String], input: &[u8]) -> Vec<u8> {
    let token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_=.-".contains(&byte);
    let mut out = Vec::new();
    let mut text_start = 0;
    let mut position = 0;
    while position < input.len() {
        out.push(input[position]);
        position += 1;
        let seen = &input[text_start..position];
        let ended = prefixes
            .iter()
            .map(|prefix| prefix.trim())
            .any(|prefix| !prefix.is_empty() && seen.ends_with(prefix.as_bytes()));
        if ended && position < input.len() && token_byte(input[position]) {
            out.extend_from_slice(MASKED.as_bytes());
            while position < input.len() && token_byte(input[position]) {
                position += 1;
            }
            text_start = position;
        }
    }
    out
}

#[test]
fn masks_a_phrase_wherever_the_chunks_are_cut() {
    let text = b"before s3cr3t after";
    for cut in 0..text.len() {
        let (left, right) = text.split_at(cut);
        assert_eq!(mask(&["s3cr3t"], &[], &[left, right]), b"before [MASKED] after", "cut at {cut}");
    }
}

#[test]
fn a_longer_phrase_hides_the_shorter_one_inside_it() {
    assert_eq!(mask_text(&["pass", "password", "word"], "password pass word"), "[MASKED] [MASKED] [MASKED]");
}

#[test]
fn overlapping_phrases_leave_no_rest() {
    assert_eq!(mask_text(&["abcd", "cdef"], "xabcdefx"), "x[MASKED]x");
    assert_eq!(mask_text(&["xab", "abcd"], "xabcd"), "[MASKED]");
}

#[test]
fn neighbouring_phrases_are_masked_one_by_one() {
    assert_eq!(mask_text(&["ab"], "ababab"), "[MASKED][MASKED][MASKED]");
}

#[test]
fn blank_phrases_hide_nothing_and_others_are_trimmed() {
    assert_eq!(mask_text(&["", "  \n", " key\n"], "a key b"), "a [MASKED] b");
}

#[test]
fn a_partial_phrase_is_held_back_until_it_is_decided() {
    let rules = MaskRules::new(["secret"], [], true);
    let mut masker = Masker::new(&rules);
    let mut out = Vec::new();
    masker.write(b"line\nsec", &mut out);
    assert_eq!(out, b"line\n");
    masker.write(b"ond\n", &mut out);
    assert_eq!(out, b"line\nsecond\n");
    masker.write(b"secre", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"line\nsecond\nsecre");
}

#[test]
fn a_multi_line_value_matches_as_one_string() {
    let key = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n";
    assert_eq!(mask_text(&[key], &format!("k={key}done")), "k=[MASKED]\ndone");
    assert_eq!(mask_text(&[key], "abc\n"), "abc\n");
}

#[test]
fn masks_secret_url_parameters() {
    assert_eq!(
        mask_text(&[], "GET https://h/p?a=1&Private_Token=abc&X-Amz-Signature=f0f0 next ?rss_token=&b=2"),
        "GET https://h/p?a=1&Private_Token=[MASKED]&X-Amz-Signature=[MASKED] next ?rss_token=[MASKED]&b=2"
    );
    assert_eq!(
        mask_text(&[], "private_token=abc my?xprivate_token=abc"),
        "private_token=abc my?xprivate_token=abc"
    );
}

#[test]
fn masks_tokens_after_every_known_prefix() {
    for prefix in DEFAULT_PREFIXES.iter().chain(&["glpat-"]) {
        assert_eq!(mask_text(&[], &format!("<{prefix}aB3_x.9=> ok")), format!("<{prefix}[MASKED]> ok"));
        assert_eq!(mask_text(&[], &format!("{prefix} rest")), format!("{prefix} rest"));
    }
}

#[test]
fn all_server_prefixes_are_used() {
    let prefixes: Vec<String> = (0..40).map(|n| format!("corp{n:02}-a-rather-long-prefix-")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    for prefix in &prefixes {
        let input = format!("{prefix}secret");
        let expected = format!("{prefix}[MASKED]");
        assert_eq!(mask(&[], &prefixes, &[input.as_bytes()]), expected.as_bytes());
    }
}

#[test]
fn without_the_flag_only_personal_tokens_are_masked() {
    let rules = MaskRules::new([], [], false);
    assert_eq!(rules.mask("glpat-abc glrt-abc"), "glpat-[MASKED] glrt-abc");
}

#[test]
fn the_rules_do_not_print_their_secrets() {
    let rules = MaskRules::new(["hunter2"], [], true);
    assert!(!format!("{rules:?} {:?}", Masker::new(&rules)).contains("hunter2"));
}

/// Texts from a small alphabet, so that phrases do occur, overlap and almost occur.
fn dense_text(longest: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[ab ]{1,4}",
        1 => "[?&]",
        1 => Just("private_token=".to_owned()),
        1 => Just("X-AMZ-Security-Token=".to_owned()),
        1 => Just("glpat-".to_owned()),
        1 => Just("tok:".to_owned()),
        1 => Just("[MASKED]".to_owned()),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..longest).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_way_of_cutting_the_input_agrees_with_the_reference(
        phrases in prop::collection::vec("[ab ?\u{e9}]{0,6}", 0..5),
        own_prefixes in prop::collection::vec(prop_oneof!["[ab]{1,3}", Just("tok:".to_owned())], 0..3),
        text in dense_text(40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let input = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();

        let phrase_refs: Vec<&str> = phrases.iter().map(String::as_str).collect();
        let prefix_refs: Vec<&str> = own_prefixes.iter().map(String::as_str).collect();
        let streamed = mask(&phrase_refs, &prefix_refs, &chunks);

        let mut prefixes = own_prefixes.clone();
        prefixes.extend(DEFAULT_PREFIXES.iter().map(|prefix| (*prefix).to_owned()));
        prefixes.push("glpat-".to_owned());
        let expected = reference(&phrases, &prefixes, input);
        prop_assert_eq!(String::from_utf8_lossy(&streamed), String::from_utf8_lossy(&expected));
    }
}
