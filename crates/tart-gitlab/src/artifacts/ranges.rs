//! A download in pieces, several of them at once (`FF_USE_PARALLEL_ARTIFACT_TRANSFER`).

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt as _};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::call::HEADER_TIMEOUT;
use crate::error::{ApiError, transport};

/// Bytes of a piece. Together with [`AT_ONCE`] this bounds the memory that a download takes.
const PIECE: u64 = 4 << 20;
/// Pieces that are asked for at once.
const AT_ONCE: usize = 4;

/// The pieces of a file, in order.
#[derive(Debug)]
pub(super) struct Ranges {
    http: reqwest::Client,
    url: Url,
    /// The first piece, whose answer said how large the file is, and how many bytes of it are still to come.
    first: Option<(Response, u64)>,
    pieces: FuturesOrdered<BoxFuture<'static, Result<Bytes, ApiError>>>,
    next: u64,
    total: u64,
}

impl Ranges {
    /// What the first request says.
    pub(super) fn first() -> String {
        header(&(0..=PIECE - 1))
    }

    /// Goes on after the answer to the first request.
    pub(super) fn new(http: &reqwest::Client, url: &Url, response: Response) -> Result<Self, ApiError> {
        let (range, total) = said(&response).ok_or_else(|| wrong("it does not say which one it gave"))?;
        if *range.start() != 0 || *range.end() != PIECE.min(total) - 1 {
            return Err(wrong("it gave another one"));
        }
        Ok(Self {
            http: http.clone(),
            url: url.clone(),
            first: Some((response, PIECE.min(total))),
            pieces: FuturesOrdered::new(),
            next: PIECE,
            total,
        })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some((first, left)) = &mut self.first {
            if let Some(chunk) = first.chunk().await.map_err(transport)? {
                *left = left.checked_sub(chunk.len() as u64).ok_or_else(|| wrong("it gave more"))?;
                return Ok(Some(chunk));
            }
            if *left > 0 {
                return Err(wrong("it gave less"));
            }
            self.first = None;
        }
        while self.pieces.len() < AT_ONCE && self.next < self.total {
            let range = self.next..=(self.next + PIECE).min(self.total) - 1;
            self.next = range.end() + 1;
            let piece = piece(self.http.clone(), self.url.clone(), range, self.total);
            self.pieces.push_back(Box::pin(piece));
        }
        self.pieces.next().await.transpose()
    }
}

async fn piece(
    http: reqwest::Client,
    url: Url,
    range: RangeInclusive<u64>,
    total: u64,
) -> Result<Bytes, ApiError> {
    let sent = http.get(url).header(RANGE, header(&range)).send();
    let mut response = tokio::time::timeout(HEADER_TIMEOUT, sent)
        .await
        .map_err(|_| ApiError::Transport(format!("no answer within {HEADER_TIMEOUT:?}")))?
        .map_err(transport)?;
    if response.status() != StatusCode::PARTIAL_CONTENT || said(&response) != Some((range.clone(), total)) {
        return Err(wrong("it gave another one"));
    }
    let length = usize::try_from(range.end() - range.start() + 1).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if bytes.len() + chunk.len() > length {
            return Err(wrong("it gave more"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < length { Err(wrong("it gave less")) } else { Ok(bytes.freeze()) }
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

fn wrong(what: &str) -> ApiError {
    ApiError::Transport(format!(
        "the storage did not give the part of the file that it was asked for: {what}"
    ))
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
