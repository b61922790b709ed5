//! The host's end of a session, for tests.

// Each test binary uses its own part of it.
#![allow(dead_code, reason = "shared by two test binaries")]
#![allow(missing_docs, reason = "test support")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tart_proto::{
    Incoming, Mux, Role, Stream, StreamItem, StreamReader, StreamWriter,
    message::{
        Exec, Exited, Failure, GetFile, GuestEvent, GuestOpen, Hello, HostControl, HostOpen, Limits, Output,
        PutFile, Root, Stats, decode, encode,
    },
    mux,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Limit of everything that should take a moment; generous for an emulated guest.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took too long"),
    }
}

/// A session with an agent.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) mux: Mux,
    pub(crate) incoming: Incoming,
    pub(crate) hello: Hello,
}

impl Host {
    pub(crate) async fn greet<R, W>(mut reader: R, mut writer: W) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let decoder = within("the handshake", mux::handshake_host(&mut reader, &mut writer)).await.unwrap();
        let (mux, mut incoming) = Mux::start(reader, writer, Role::Host, decoder);
        let (payload, stream) = within("the hello", incoming.next()).await.unwrap();
        assert_eq!(stream.id(), tart_proto::message::HELLO_STREAM);
        let GuestOpen::Hello(hello) = decode(&payload).unwrap() else { panic!("no hello") };
        Self { mux, incoming, hello }
    }

    pub(crate) async fn open(&self, request: &HostOpen) -> Stream {
        self.mux.open(encode(request).unwrap()).await.unwrap()
    }

    /// A request that is answered by one event.
    pub(crate) async fn ask(&self, request: &HostOpen) -> Result<(), Failure> {
        match self.event(request).await {
            GuestEvent::Done => Ok(()),
            GuestEvent::Failed(failure) => Err(failure),
            event => panic!("unexpected {event:?}"),
        }
    }

    pub(crate) async fn stats(&self) -> Stats {
        match self.event(&HostOpen::Stats).await {
            GuestEvent::Stats(stats) => stats,
            event => panic!("unexpected {event:?}"),
        }
    }

    async fn event(&self, request: &HostOpen) -> GuestEvent {
        let (mut reader, _writer) = self.open(request).await.split();
        within("the answer", next_event(&mut reader)).await
    }

    pub(crate) async fn exec(&self, exec: Exec) -> Command {
        let (reader, writer) = self.open(&HostOpen::Exec(exec)).await.split();
        Command { reader, writer: Some(writer), output: BTreeMap::new() }
    }

    /// Runs a script to its end.
    pub(crate) async fn sh(&self, script: &str) -> Outcome {
        self.exec(shell(script)).await.finish().await
    }

    pub(crate) async fn put(&self, file: PutFile, contents: &[u8]) -> Result<(), Failure> {
        let (mut reader, writer) = self.open(&HostOpen::PutFile(file)).await.split();
        let upload = async {
            // A refused file is not taken to its end.
            let _refused = writer.data(0, Bytes::copy_from_slice(contents)).await;
            let _refused = writer.eof(0).await;
        };
        let (event, ()) = within("the upload", async { tokio::join!(next_event(&mut reader), upload) }).await;
        match event {
            GuestEvent::Done => Ok(()),
            GuestEvent::Failed(failure) => Err(failure),
            event => panic!("unexpected {event:?}"),
        }
    }

    pub(crate) async fn get(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, Failure> {
        let request = HostOpen::GetFile(GetFile { root: Root::Job, path: path.into(), max_bytes });
        let (mut reader, _writer) = self.open(&request).await.split();
        let mut contents = Vec::new();
        loop {
            match within("the download", reader.next()).await {
                StreamItem::Data { channel: 0, bytes } => contents.extend_from_slice(&bytes),
                StreamItem::Eof { channel: 0 } => {}
                StreamItem::Message(bytes) => match decode(&bytes).unwrap() {
                    GuestEvent::Done => return Ok(contents),
                    GuestEvent::Failed(failure) => return Err(failure),
                    event => panic!("unexpected {event:?}"),
                },
                item => panic!("unexpected {item:?}"),
            }
        }
    }
}

async fn next_event(reader: &mut StreamReader) -> GuestEvent {
    match reader.next().await {
        StreamItem::Message(bytes) => decode(&bytes).unwrap(),
        item => panic!("unexpected {item:?}"),
    }
}

/// A script for `/bin/sh` of the job tree, by root, without limits.
pub(crate) fn shell(script: &str) -> Exec {
    Exec {
        root: Root::Job,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        cwd: "/".into(),
        user: String::new(),
        output: Output::Separate,
        stdin: false,
        cgroup: "step".into(),
        limits: Limits::default(),
    }
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) reader: StreamReader,
    pub(crate) writer: Option<StreamWriter>,
    output: BTreeMap<u8, Vec<u8>>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) result: Result<Exited, Failure>,
}

impl Command {
    fn writer(&self) -> &StreamWriter {
        self.writer.as_ref().unwrap()
    }

    pub(crate) async fn input(&self, bytes: &[u8]) {
        within("input", self.writer().data(0, Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    pub(crate) async fn end_input(&self) {
        within("the end of input", self.writer().eof(0)).await.unwrap();
    }

    pub(crate) async fn control(&self, control: HostControl) {
        within("a control", self.writer().message(encode(&control).unwrap())).await.unwrap();
    }

    pub(crate) async fn cancel(&self, grace_ms: u32) {
        self.control(HostControl::Cancel { grace_ms }).await;
    }

    /// Reads on until the output has a text.
    pub(crate) async fn wait_for_output(&mut self, text: &str) {
        while !self.text(1).contains(text) {
            if let Some(result) = self.step().await {
                panic!("ended with {result:?} before it wrote {text:?}: {:?}", self.text(1));
            }
        }
    }

    pub(crate) async fn finish(mut self) -> Outcome {
        loop {
            if let Some(result) = self.step().await {
                return Outcome { stdout: self.text(1), stderr: self.text(2), result };
            }
        }
    }

    async fn step(&mut self) -> Option<Result<Exited, Failure>> {
        match within("the command", self.reader.next()).await {
            StreamItem::Data { channel, bytes } => {
                self.output.entry(channel).or_default().extend_from_slice(&bytes);
            }
            StreamItem::Eof { .. } => {}
            StreamItem::Message(bytes) => match decode(&bytes).unwrap() {
                GuestEvent::Started { pid } => assert!(pid > 0),
                GuestEvent::Exited(exited) => return Some(Ok(exited)),
                GuestEvent::Failed(failure) => return Some(Err(failure)),
                event => panic!("unexpected {event:?}"),
            },
            item => panic!("unexpected {item:?}"),
        }
        None
    }

    fn text(&self, channel: u8) -> String {
        self.output.get(&channel).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }
}
