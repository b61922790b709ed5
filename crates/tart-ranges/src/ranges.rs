//! The pieces of one file.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt as _};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Client, Response, StatusCode};
use thiserror::Error;
use tokio::time::timeout;
use url::Url;

/// Bytes of a piece. Together with [`AT_ONCE`] this bounds the memory that a download takes.
const PIECE: u64 = 4 << 20;
/// Pieces that are asked for at once.
const AT_ONCE: usize = 4;

/// Why a piece did not come. Says nothing of URLs.
#[derive(Debug, Error)]
pub enum RangeError {
    /// The storage is not reached, or breaks off.
    #[error("the connection to the storage broke")]
    Transport(#[source] reqwest::Error),
    /// Nothing comes.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The storage gives something else.
    #[error("the storage did not give the part of the file that it was asked for: {0}")]
    Wrong(&'static str),
    /// There is another file now.
    #[error("the file was replaced while it was read")]
    Replaced,
}

/// How pieces are asked for.
#[derive(Clone)]
struct Source {
    http: Client,
    url: Arc<dyn Fn() -> Url + Send + Sync>,
    /// What the file has as long as it is the same, if the storage says so.
    tag: Option<HeaderValue>,
    total: u64,
    limit: Duration,
}

/// The pieces of a file, in order.
pub struct Ranges {
    source: Source,
    /// The first piece, whose answer said how large the file is, and how many bytes of it are still to come.
    first: Option<(Response, u64)>,
    pieces: FuturesOrdered<BoxFuture<'static, Result<Bytes, RangeError>>>,
    next: u64,
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranges")
            .field("next", &self.next)
            .field("total", &self.source.total)
            .finish_non_exhaustive()
    }
}

impl Ranges {
    /// The value of `Range` in the first request.
    #[must_use]
    pub fn first() -> String {
        header(&(0..=PIECE - 1))
    }

    /// Goes on after the answer to the first request, whose status is 206. Each other piece has a URL of its own, since
    /// signatures grow old. The limit is for the time in which nothing comes.
    ///
    /// # Errors
    /// If the answer is not the first piece.
    pub fn new(
        http: &Client,
        url: impl Fn() -> Url + Send + Sync + 'static,
        response: Response,
        limit: Duration,
    ) -> Result<Self, RangeError> {
        let (range, total) = said(&response).ok_or(RangeError::Wrong("it does not say which one it gave"))?;
        if *range.start() != 0 || *range.end() != PIECE.min(total) - 1 {
            return Err(RangeError::Wrong("it gave another one"));
        }
        let tag = response.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        Ok(Self {
            source: Source { http: http.clone(), url: Arc::new(url), tag, total, limit },
            first: Some((response, PIECE.min(total))),
            pieces: FuturesOrdered::new(),
            next: PIECE,
        })
    }

    /// Whether pieces of another file would be noticed: the storage has said what the file has to itself, or there is
    /// but one piece.
    #[must_use]
    pub fn are_of_one_file(&self) -> bool {
        self.source.tag.is_some() || self.source.total <= PIECE
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RangeError> {
        if let Some((first, left)) = &mut self.first {
            if let Some(chunk) = within(self.source.limit, first.chunk()).await? {
                *left = left.checked_sub(chunk.len() as u64).ok_or(RangeError::Wrong("it gave more"))?;
                return Ok(Some(chunk));
            }
            if *left > 0 {
                return Err(RangeError::Wrong("it gave less"));
            }
            self.first = None;
        }
        while self.pieces.len() < AT_ONCE && self.next < self.source.total {
            let range = self.next..=(self.next + PIECE).min(self.source.total) - 1;
            self.next = range.end() + 1;
            self.pieces.push_back(Box::pin(self.source.clone().piece(range)));
        }
        self.pieces.next().await.transpose()
    }
}

impl Source {
    async fn piece(self, range: RangeInclusive<u64>) -> Result<Bytes, RangeError> {
        let mut request = self.http.get((self.url)()).header(RANGE, header(&range));
        if let Some(tag) = &self.tag {
            request = request.header(IF_MATCH, tag);
        }
        let mut response = within(self.limit, request.send()).await?;
        if response.status() == StatusCode::PRECONDITION_FAILED {
            return Err(RangeError::Replaced);
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(RangeError::Wrong("it gave none"));
        }
        if self.tag.is_some() && self.tag.as_ref() != response.headers().get(ETAG) {
            return Err(RangeError::Replaced);
        }
        if said(&response) != Some((range.clone(), self.total)) {
            return Err(RangeError::Wrong("it gave another one"));
        }
        let length = usize::try_from(range.end() - range.start() + 1).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = within(self.limit, response.chunk()).await? {
            if bytes.len() + chunk.len() > length {
                return Err(RangeError::Wrong("it gave more"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() < length { Err(RangeError::Wrong("it gave less")) } else { Ok(bytes.freeze()) }
    }
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, RangeError> {
    match timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| RangeError::Transport(error.without_url())),
        Err(_) => Err(RangeError::TimedOut(limit)),
    }
}

fn header(range: &RangeInclusive<u64>) -> String {
    format!("bytes={}-{}", range.start(), range.end())
}

/// Which bytes an answer has, and how many there are.
fn said(response: &Response) -> Option<(RangeInclusive<u64>, u64)> {
    parse(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)
}

fn parse(text: &str) -> Option<(RangeInclusive<u64>, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total) = (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start <= end && end < total).then_some((start..=end, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_odd_ones_refused() {
        assert_eq!(parse("bytes 0-9/20"), Some((0..=9, 20)));
        for odd in
            ["", "bytes */20", "bytes 9-0/20", "bytes 0-20/20", "bytes 0-9/*", "bytes 0-9", "items 0-9/20"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
