//! Writing and reading files of the trees.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
    process::{Gid, Uid},
};
use tart_proto::{
    MuxError, StreamItem, StreamReader, StreamWriter,
    limits::MAX_DATA,
    message::{CHANNEL_STDIN, Failure, GetFile, PutFile},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

use crate::{
    failure,
    machine::Machine,
    tree::{self, Tree},
    users,
};

/// Writes a file from the stream.
pub(crate) async fn put(
    machine: &Machine,
    request: &PutFile,
    reader: &mut StreamReader,
) -> Result<Result<(), Failure>, MuxError> {
    let mut draft = match Draft::create(machine, request) {
        Ok(draft) => draft,
        Err(failure) => return Ok(Err(failure)),
    };
    let cannot_write = |e: io::Error| failure::system(format!("cannot write `{}`", request.path), e);
    loop {
        match reader.next().await {
            StreamItem::Data { channel: CHANNEL_STDIN, bytes } => {
                if let Err(error) = draft.file.write_all(&bytes).await {
                    return Ok(Err(cannot_write(error)));
                }
            }
            StreamItem::Eof { channel: CHANNEL_STDIN } => {
                // Errors of the last write come with the flush.
                let flushed = draft.file.flush().await;
                return Ok(flushed.and_then(|()| draft.publish()).map_err(cannot_write));
            }
            StreamItem::Closed | StreamItem::Reset(_) => return Err(MuxError::Closed),
            _ => {}
        }
    }
}

/// A file that is not there yet under its name; dropped, it is gone.
struct Draft {
    directory: OwnedFd,
    temporary: String,
    name: String,
    file: File,
    published: bool,
}

impl Draft {
    fn create(machine: &Machine, request: &PutFile) -> Result<Self, Failure> {
        let path = absolute(&request.path)?;
        let tree = machine.trees.open(request.root)?;
        let user = users::resolve(&tree, &request.owner)?;
        let failed = |e: io::Error| failure::system(format!("cannot make `{path}`"), e);
        let (directory, name) = place(&tree, path, (user.uid, user.gid)).map_err(failed)?;
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| failed(e.into()))?;
        let temporary = format!(".tart-{:016x}", u64::from_le_bytes(random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&directory, &temporary, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| failed(e.into()))?;
        let file = File::from_std(fd.into());
        let draft = Self { directory, temporary, name, file, published: false };
        // The mode comes last: a change of owner clears the set-id bits.
        rustix::fs::fchown(&draft.file, Some(user.uid), Some(user.gid))
            .and_then(|()| rustix::fs::fchmod(&draft.file, Mode::from_raw_mode(request.mode & 0o7777)))
            .map_err(|e| failed(e.into()))?;
        Ok(draft)
    }

    fn publish(mut self) -> io::Result<()> {
        rustix::fs::renameat(&self.directory, &self.temporary, &self.directory, &self.name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            let _gone = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}

/// Directory and name that a path stands for: of the file itself if the path ends in a link to one. Missing
/// directories are made.
fn place(tree: &Tree, path: &str, owner: (Uid, Gid)) -> io::Result<(OwnedFd, String)> {
    let real;
    let path = match tree.open(path, OFlags::PATH) {
        Ok(fd) => {
            if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Directory {
                return Err(Errno::ISDIR.into());
            }
            real = tree.real_path(fd.as_fd())?;
            real.as_str()
        }
        Err(Errno::NOENT) => path,
        Err(errno) => return Err(errno.into()),
    };
    let (directory, name) = tree::split(path).ok_or(Errno::ISDIR)?;
    Ok((tree.directory(directory, owner)?, name.to_owned()))
}

/// Sends a file to the stream.
pub(crate) async fn get(
    machine: &Machine,
    request: &GetFile,
    writer: &StreamWriter,
) -> Result<Result<(), Failure>, MuxError> {
    let (mut file, size) = match open(machine, request) {
        Ok(opened) => opened,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut left = size;
    let mut buffer = vec![0; MAX_DATA];
    // A file that grows meanwhile is sent up to the size it had.
    while left > 0 {
        let len = match file.read(&mut buffer).await {
            Ok(0) => break,
            Ok(len) => len.min(usize::try_from(left).unwrap_or(len)),
            Err(error) => return Ok(Err(failure::system(format!("cannot read `{}`", request.path), error))),
        };
        left -= len as u64;
        let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
        writer.data(CHANNEL_STDIN, bytes).await?;
    }
    writer.eof(CHANNEL_STDIN).await?;
    Ok(Ok(()))
}

fn open(machine: &Machine, request: &GetFile) -> Result<(File, u64), Failure> {
    let path = absolute(&request.path)?;
    let tree = machine.trees.open(request.root)?;
    // Without O_NONBLOCK a fifo would hang the whole agent.
    let fd = tree
        .open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map_err(|e| failure::system(format!("cannot open `{path}`"), e))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| failure::system(format!("cannot open `{path}`"), e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failure::denied(format!("`{path}` is not a regular file")));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > request.max_bytes {
        return Err(failure::invalid(format!(
            "`{path}` has {size} bytes, more than the limit of {} bytes",
            request.max_bytes
        )));
    }
    Ok((File::from_std(fd.into()), size))
}

fn absolute(path: &str) -> Result<&str, Failure> {
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(failure::invalid(format!("the path `{path}` is not absolute")))
    }
}
