//! Waiting for the kernel to announce devices.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};
use tart_proto::time::scaled;
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// The multicast group of the kernel's own events.
const KERNEL_GROUP: u32 = 1;

/// Waits until `find` finds something, looking again after every announcement. `None` after the limit.
///
/// # Errors
/// If announcements cannot be had or `find` fails.
pub(crate) async fn wait_for<T>(
    limit: Duration,
    mut find: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    if let Some(found) = find()? {
        return Ok(Some(found));
    }
    let events = subscribe()?;
    // It may have come between the look and the subscription.
    let waiting = async {
        loop {
            if let Some(found) = find()? {
                return Ok(found);
            }
            announced(&events).await?;
        }
    };
    tokio::time::timeout(scaled(limit), waiting).await.ok().transpose()
}

fn subscribe() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = Some(netlink::KOBJECT_UEVENT);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, kind)?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    readiness::watch(socket)
}

/// Waits for at least one announcement. What it says does not matter: the caller looks for itself.
async fn announced(events: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut any = false;
    loop {
        match recv(events.get_ref(), &mut buffer, RecvFlags::empty()) {
            // Lost announcements are announcements.
            Ok(_) | Err(Errno::NOBUFS) => any = true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if any => return Ok(()),
            Err(Errno::AGAIN) => events.readable().await?.clear_ready(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_found_at_once_and_what_never_comes_is_given_up() {
        assert_eq!(wait_for(Duration::ZERO, || Ok(Some(1))).await.unwrap(), Some(1));
        assert_eq!(wait_for(Duration::from_millis(1), || Ok(None::<u8>)).await.unwrap(), None);
        assert!(
            wait_for(Duration::from_secs(9), || Err::<Option<u8>, _>(io::Error::other("x"))).await.is_err()
        );
    }
}
