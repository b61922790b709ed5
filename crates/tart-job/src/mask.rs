//! The masking pipeline of a log stream: phrases, then URL parameters, then token prefixes.
//!
//! Every filter is a streaming machine: it sees bytes in the chunks in which they arrive, decides as early as the
//! rule allows, and gives the same output for every way the input can be cut. Only the phrase filter ever holds
//! bytes back, and only those that may still turn out to be the beginning of a phrase.

mod phrases;
mod token_prefixes;
mod url_parameters;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use phrases::{PhraseFilter, PhraseIndex};
use token_prefixes::{PrefixFilter, PrefixIndex};
use url_parameters::UrlFilter;

/// What a secret is replaced by.
pub const MASKED: &str = "[MASKED]";

/// The prefix of personal access tokens, which is masked whatever the feature flags say.
const ALWAYS_MASKED_PREFIX: &str = "glpat-";

/// Prefixes of the other GitLab tokens, masked with `FF_MASK_ALL_DEFAULT_TOKENS`.
const DEFAULT_PREFIXES: [&str; 13] = [
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// What has to be hidden in one job's log. Cheap to clone; shared by the job's streams.
#[derive(Clone)]
pub struct MaskRules {
    phrases: Arc<PhraseIndex>,
    prefixes: Arc<PrefixIndex>,
}

impl MaskRules {
    /// Compiles the rules.
    ///
    /// `phrases` are the values of the masked variables: they are trimmed, and empty ones are ignored.
    /// `server_prefixes` is `features.token_mask_prefixes` of the job; all of them are used, unlike in GitLab Runner,
    /// which silently drops all but 15. `all_default_tokens` is `FF_MASK_ALL_DEFAULT_TOKENS`.
    pub fn new<'a>(
        phrases: impl IntoIterator<Item = &'a str>,
        server_prefixes: impl IntoIterator<Item = &'a str>,
        all_default_tokens: bool,
    ) -> Self {
        let phrases = phrases.into_iter().map(|phrase| phrase.trim().as_bytes());
        let defaults = if all_default_tokens { DEFAULT_PREFIXES.as_slice() } else { &[] };
        let prefixes = std::iter::once(ALWAYS_MASKED_PREFIX)
            .chain(defaults.iter().copied())
            .chain(server_prefixes)
            .map(|prefix| prefix.trim().as_bytes());
        Self { phrases: Arc::new(PhraseIndex::new(phrases)), prefixes: Arc::new(PrefixIndex::new(prefixes)) }
    }

    /// Masks a whole text at once: for messages that do not pass through the job log.
    pub fn mask(&self, text: &str) -> String {
        let mut masker = Masker::new(self);
        let mut out = Vec::with_capacity(text.len());
        masker.write(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl fmt::Debug for MaskRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskRules").finish_non_exhaustive()
    }
}

/// The filters of one stream. Secrets are recognised across writes, never across streams.
pub struct Masker {
    phrases: PhraseFilter,
    urls: UrlFilter,
    prefixes: PrefixFilter,
    after_phrases: Vec<u8>,
    after_urls: Vec<u8>,
}

impl Masker {
    /// Starts a stream.
    pub fn new(rules: &MaskRules) -> Self {
        Self {
            phrases: PhraseFilter::new(Arc::clone(&rules.phrases)),
            urls: UrlFilter::default(),
            prefixes: PrefixFilter::new(Arc::clone(&rules.prefixes)),
            after_phrases: Vec::new(),
            after_urls: Vec::new(),
        }
    }

    /// Takes the stream's next bytes and appends to `out` all that is decided.
    pub fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.after_phrases.clear();
        self.phrases.write(input, &mut self.after_phrases);
        self.forward(out);
    }

    /// Appends the bytes that were held back. The masker can be used for a new stream afterwards.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.after_phrases.clear();
        self.phrases.finish(&mut self.after_phrases);
        self.forward(out);
        self.urls = UrlFilter::default();
        self.prefixes.reset();
    }

    fn forward(&mut self, out: &mut Vec<u8>) {
        self.after_urls.clear();
        self.urls.write(&self.after_phrases, &mut self.after_urls);
        self.prefixes.write(&self.after_urls, out);
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}
