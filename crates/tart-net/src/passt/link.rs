//! The wire between a guest's device and `passt`: frames, each after its length.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{self, MAX_FRAME, Policy};

/// Passes a guest's frames on as the policy allows, until either end is gone.
///
/// # Errors
/// Of either end, or `InvalidData` if the guest breaks the framing.
pub(super) async fn filter(
    policy: Policy,
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut from = tokio::io::BufReader::with_capacity(256 * 1024, from);
    // Length and frame together, so that one write passes both.
    let mut message = Vec::new();
    while read(&mut from, &mut message).await? {
        if policy.allows(message.get(4..).unwrap_or_default()) {
            to.write_all(&message).await?;
        }
    }
    to.shutdown().await
}

/// Reads a frame with its length; false at the end.
async fn read(from: &mut (impl AsyncRead + Unpin), message: &mut Vec<u8>) -> io::Result<bool> {
    let mut header = [0; 4];
    match from.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes")));
    }
    message.clear();
    message.extend(header);
    message.resize(4 + len, 0);
    from.read_exact(message.get_mut(4..).unwrap_or_default()).await?;
    Ok(true)
}

/// Asks `passt` for the gateway's address and waits for any answer.
pub(super) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let request = frame::arp_request();
    let len = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], &request].concat()).await?;
    if read(stream, &mut Vec::new()).await? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn filtered(input: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let mut output = Vec::new();
        (filter(Policy::default(), input, &mut output).await, output)
    }

    fn message(frame: &[u8]) -> Vec<u8> {
        [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_left_out() {
        let good = message(&frame::arp_request());
        let bad = message(&[0xff; 60]);
        let (result, output) = filtered(&[&good[..], &bad, &message(&[]), &good].concat()).await;
        result.unwrap();
        assert_eq!(output, [&good[..], &good].concat());
    }

    #[tokio::test]
    async fn a_frame_too_large_or_cut_off_ends_the_link() {
        assert_eq!(filtered(&[0xff; 8]).await.0.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            filtered(&message(&[1; 60])[..30]).await.0.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        filtered(&[]).await.0.unwrap();
    }
}
