//! Receivers that end HTTP/2 connections while requests are on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use webhooks_dispatch::transport::{ErrorClass, Request, Response, Transport as _, TransportError};
use webhooks_http::{HttpTransport, Proxy};
use webhooks_tests::RawServer;

use crate::proxy::TestProxy;
use crate::tls::Authority;
use crate::{builder, request, told};

// RFC 9113 §6, the types of frames, their flags, and §7, error codes.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u8 = 0;
const REFUSED_STREAM: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

/// RFC 9113 §6.5.2, a setting.
const MAX_CONCURRENT_STREAMS: u8 = 3;

/// `:status: 200` (RFC 7541, appendix A, entry 8).
const OK: [u8; 1] = [0x88];

/// The length of the preface before the first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// The time without a frame after which a server answers.
const QUIET: Duration = Duration::from_millis(10);

/// The treatment of a connection's requests, by their number on it, from 1.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Answers this number of requests, announces the last one as the last, and ignores later ones.
    EndsAfter(u32),
    /// The same, but closes instead of answering the last one, which it has read.
    DiesAfter(u32),
    /// Ends as the first does, and has few streams, so that requests wait for one.
    IsNarrow { streams: u8, ends_after: u32 },
    /// Refuses this number of streams, and answers later ones.
    Refuses(u32),
    /// Ends the connection at its first stream, with a reason in its own words.
    Scolds(&'static str),
}

/// The record of a server, over all connections.
#[derive(Default)]
struct Log {
    /// The bodies of the requests that it processed.
    processed: Vec<Bytes>,
    passed_over: usize,
}

struct Server {
    raw: RawServer,
    log: Arc<Mutex<Log>>,
    authority: Authority,
}

impl Server {
    async fn start(manner: Manner) -> Self {
        let authority = Authority::new();
        let acceptor = authority.issue("localhost").acceptor(None, &[b"h2"]);
        let log: Arc<Mutex<Log>> = Arc::default();
        let shared = Arc::clone(&log);
        let raw = RawServer::start(move |connection| {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&shared));
            async move {
                let Ok(stream) = acceptor.accept(connection.stream).await else { return };
                // The client must judge how a connection ends.
                let _ended = serve(stream, manner, &log).await;
            }
        })
        .await;
        Self { raw, log, authority }
    }

    fn request(&self, body: usize) -> Request {
        let url = format!("https://localhost:{}/", self.raw.address().port());
        Request { body: Bytes::from(body.to_string()), ..request(&url) }
    }

    /// Sends `count` requests, 16 at a time, and returns their outcomes.
    async fn flood(
        &self,
        transport: &HttpTransport,
        count: usize,
    ) -> Vec<Result<Response, TransportError>> {
        let sends = (0..count).map(|number| transport.send(self.request(number)));
        stream::iter(sends).buffer_unordered(16).collect().await
    }

    /// Returns the bodies that were processed more than once.
    fn twice(&self) -> BTreeSet<Bytes> {
        let (log, mut seen) = (self.log.lock().unwrap(), BTreeSet::new());
        log.processed.iter().filter(|body| !seen.insert(Bytes::clone(body))).cloned().collect()
    }
}

/// One connection of the server.
struct Http2<'l, S> {
    stream: S,
    read: BytesMut,
    manner: Manner,
    log: &'l Mutex<Log>,
    opened: u32,
    /// The last stream that is processed.
    last: u32,
    bodies: BTreeMap<u32, BytesMut>,
    /// Streams without an answer so far.
    waiting: Vec<u32>,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    manner: Manner,
    log: &Mutex<Log>,
) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE]).await?;
    let (read, bodies, waiting) = (BytesMut::new(), BTreeMap::new(), Vec::new());
    let mut server =
        Http2 { stream, read, manner, log, opened: 0, last: u32::MAX, bodies, waiting };
    let settings: &[u8] = match manner {
        Manner::IsNarrow { streams, .. } => &[0, MAX_CONCURRENT_STREAMS, 0, 0, 0, streams],
        _ => &[],
    };
    server.write(SETTINGS, 0, 0, settings).await?;
    loop {
        // Frames on their way come first, so that requests pile up.
        let Ok(frame) = timeout(QUIET, server.frame()).await else {
            for id in std::mem::take(&mut server.waiting) {
                server.write(HEADERS, END_STREAM | END_HEADERS, id, &OK).await?;
            }
            continue;
        };
        let (kind, flags, id, payload) = frame?;
        match kind {
            SETTINGS if flags & ACK == 0 => server.write(SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => server.write(PING, ACK, 0, &payload).await?,
            HEADERS => server.open(id).await?,
            DATA => server.body(id, &payload, flags & END_STREAM != 0)?,
            _ => {}
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<'_, S> {
    async fn open(&mut self, id: u32) -> io::Result<()> {
        self.opened += 1;
        match self.manner {
            _ if id > self.last => self.log.lock().unwrap().passed_over += 1,
            Manner::Refuses(limit) if self.opened <= limit => {
                self.write(RST_STREAM, 0, id, &[0, 0, 0, REFUSED_STREAM]).await?;
            }
            Manner::Scolds(words) => {
                let told = [&[0, 0, 0, 0, 0, 0, 0, ENHANCE_YOUR_CALM], words.as_bytes()].concat();
                self.write(GOAWAY, 0, 0, &told).await?;
            }
            Manner::EndsAfter(limit)
            | Manner::DiesAfter(limit)
            | Manner::IsNarrow { ends_after: limit, .. }
                if self.opened == limit =>
            {
                self.last = id;
                self.bodies.insert(id, BytesMut::new());
                let told = [&id.to_be_bytes()[..], &[0, 0, 0, NO_ERROR]].concat();
                self.write(GOAWAY, 0, 0, &told).await?;
            }
            _ => drop(self.bodies.insert(id, BytesMut::new())),
        }
        Ok(())
    }

    fn body(&mut self, id: u32, part: &[u8], is_last: bool) -> io::Result<()> {
        let Some(body) = self.bodies.get_mut(&id) else { return Ok(()) };
        body.extend_from_slice(part);
        if is_last {
            let body = self.bodies.remove(&id).unwrap().freeze();
            self.log.lock().unwrap().processed.push(body);
            if matches!(self.manner, Manner::DiesAfter(_)) && id == self.last {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.waiting.push(id);
        }
        Ok(())
    }

    /// Reads a frame (RFC 9113 §4.1): its type, flags, stream and payload.
    ///
    /// Dropping the future loses nothing.
    async fn frame(&mut self) -> io::Result<(u8, u8, u32, Bytes)> {
        loop {
            if let Some(&[a, b, c, kind, flags, ..]) = self.read.first_chunk::<9>() {
                let len = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.read.len() >= 9 + len {
                    let mut frame = self.read.split_to(9 + len).freeze().slice(5..);
                    return Ok((kind, flags, frame.get_u32(), frame));
                }
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn write(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&[a, b, c, kind, flags][..], &id.to_be_bytes()].concat();
        self.stream.write_all(&[&head, payload].concat()).await?;
        self.stream.flush().await
    }
}

/// As nginx does after `keepalive_requests`.
#[tokio::test]
async fn what_an_orderly_end_of_a_connection_passes_over_goes_out_again() {
    let narrow = Manner::IsNarrow { streams: 5, ends_after: 30 };
    for (manner, count, is_proxied) in [
        (Manner::EndsAfter(50), 600, false),
        (Manner::EndsAfter(12), 120, false),
        (Manner::EndsAfter(12), 120, true),
        (narrow, 300, false),
        (narrow, 300, true),
    ] {
        let (server, proxy) = (Server::start(manner).await, TestProxy::http().await);
        let builder = builder().extra_root(server.authority.root());
        let via = || Proxy::new(&proxy.url()).unwrap();
        let builder = if is_proxied { builder.proxy(via()) } else { builder };
        let outcomes = server.flood(&builder.build().unwrap(), count).await;
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
        assert!(failed.is_empty(), "{manner:?}: {} of {count}: {failed:?}", failed.len());
        assert!(outcomes.iter().flatten().all(|response| response.status == 200));
        assert_eq!(server.twice(), BTreeSet::new());
        let log = server.log.lock().unwrap();
        assert_eq!(log.processed.len(), count);
        assert!(log.passed_over > 0, "{manner:?}: nothing was on its way when a connection ended");
    }
}

#[tokio::test]
async fn what_may_have_been_processed_never_goes_out_again() {
    let server = Server::start(Manner::DiesAfter(4)).await;
    let transport = builder().extra_root(server.authority.root()).build().unwrap();
    let outcomes = server.flood(&transport, 100).await;
    assert_eq!(server.twice(), BTreeSet::new());
    let failed = outcomes.into_iter().filter_map(Result::err);
    let classes: Vec<ErrorClass> = failed.map(|error| error.class).collect();
    assert!(classes.len() >= 20, "each connection leaves requests without an answer: {classes:?}");
    assert!(classes.iter().all(|class| *class == ErrorClass::Reset), "{classes:?}");
}

#[tokio::test]
async fn a_refused_stream_goes_out_again_a_bounded_number_of_times() {
    for (refused, expected) in [(1, Ok(200)), (2, Ok(200)), (3, Err(ErrorClass::Reset))] {
        let server = Server::start(Manner::Refuses(refused)).await;
        let transport = builder().extra_root(server.authority.root()).build().unwrap();
        let outcome = transport.send(server.request(0)).await;
        let outcome = outcome.map(|response| response.status).map_err(|error| error.class);
        assert_eq!(outcome, expected, "{refused}");
        assert_eq!(server.log.lock().unwrap().processed.len(), usize::from(expected.is_ok()));
    }
}

/// A receiver's words belong to a client's log, not to ours.
#[tokio::test]
async fn an_end_is_told_by_its_code_alone() {
    let server = Server::start(Manner::Scolds("hush")).await;
    let transport = builder().extra_root(server.authority.root()).build().unwrap();
    let error = transport.send(server.request(0)).await.unwrap_err();
    let expected = "the receiver ended the HTTP/2 connection: ENHANCE_YOUR_CALM";
    assert_eq!(
        told(&error),
        format!("the connection was closed before a response came: {expected}")
    );
}
