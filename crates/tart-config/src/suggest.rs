//! Texts for keys that do not exist.

use crate::schema::{self, Section, join};

/// The message for an unknown key, with the nearest known one.
pub(crate) fn unknown_key(section: &Section, name: &str) -> String {
    let path = join(section.path, name);
    let elsewhere: Vec<String> = schema::sections()
        .filter(|other| other.path != section.path && !other.keys.is_empty())
        .filter(|other| other.keys.iter().any(|key| key.name == name))
        .map(|other| if other.path.is_empty() { other.heading() } else { format!("`{}`", other.heading()) })
        .collect();
    if !elsewhere.is_empty() {
        return format!("unknown key `{path}`: `{name}` belongs in {}", elsewhere.join(" or "));
    }
    let own = section.keys.iter().map(|key| key.name);
    let children = schema::sections().filter_map(|child| match child.path.rsplit_once('.') {
        Some((parent, name)) => (parent == section.path).then_some(name),
        None => (section.path.is_empty() && !child.path.is_empty()).then_some(child.path),
    });
    match nearest(name, own.chain(children)) {
        Some(known) => format!("unknown key `{path}`: did you mean `{known}`?"),
        None => format!(
            "unknown key `{path}`: `{}` has no such key (docs/configuration.md lists them)",
            section.heading()
        ),
    }
}

/// The candidate that differs least from `word`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
