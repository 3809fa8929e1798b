//! A name server on loopback that answers by a script.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// The answers for a name, by successive questions of one kind; the last answer repeats.
type Script = HashMap<String, Vec<Vec<String>>>;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<HashMap<(String, RecordType), usize>>>,
    _tasks: JoinSet<()>,
}

/// The treatment of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests build it")]
pub enum Treat {
    /// It is answered by the script.
    Answer,
    /// It is answered with this code.
    Fail(ResponseCode),
    /// It is not answered.
    Ignore,
}

impl NameServer {
    /// Starts a server with names and, for successive questions, their addresses or `CNAME name`;
    /// `*` stands for all other names. Its answers hold for `ttl` seconds.
    pub async fn start<'a>(
        ttl: u32,
        script: impl IntoIterator<Item = (&'a str, Vec<Vec<String>>)>,
    ) -> Self {
        Self::start_with(ttl, script, |_| Treat::Answer).await
    }

    /// Starts such a server, which treats each question by `treat`.
    pub async fn start_with<'a>(
        ttl: u32,
        script: impl IntoIterator<Item = (&'a str, Vec<Vec<String>>)>,
        treat: impl Fn(&Message) -> Treat + Send + Sync + 'static,
    ) -> Self {
        let script: Script =
            script.into_iter().map(|(name, answers)| (canonical(name), answers)).collect();
        let (packets, streams) = sockets().await;
        let address = packets.local_addr().expect("a bound socket");
        let asked = Arc::default();
        let book =
            Arc::new(Book { ttl, script, asked: Arc::clone(&asked), treat: Box::new(treat) });
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_packets(packets, Arc::clone(&book)));
        tasks.spawn(answer_streams(streams, book));
        Self { address, asked, _tasks: tasks }
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of questions for an IPv4 address of a name.
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&(canonical(name), RecordType::A)).copied().unwrap_or(0)
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

/// Returns sockets for UDP and TCP on one port.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let packets = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = packets.local_addr().expect("a bound socket");
        // Another program may have that port for TCP.
        if let Ok(streams) = TcpListener::bind(address).await {
            return (packets, streams);
        }
    }
}

/// The script and the record of a server.
struct Book {
    ttl: u32,
    script: Script,
    asked: Arc<Mutex<HashMap<(String, RecordType), usize>>>,
    treat: Box<dyn Fn(&Message) -> Treat + Send + Sync>,
}

/// The largest size of a packet without extensions (RFC 1035 §4.2.1).
const MAX_PACKET: usize = 512;

async fn answer_packets(socket: UdpSocket, book: Arc<Book>) {
    let mut packet = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut packet).await {
        let Ok(question) = Message::from_vec(&packet[..len]) else { continue };
        let has_extensions = question.edns.is_some();
        let Some(mut answer) = book.answer(question) else { continue };
        let mut bytes = answer.to_vec().expect("an answer that fits");
        if bytes.len() > MAX_PACKET && !has_extensions {
            answer.metadata.truncation = true;
            answer.answers.clear();
            bytes = answer.to_vec().expect("an answer that fits");
        }
        socket.send_to(&bytes, from).await.expect("loopback takes packets");
    }
}

async fn answer_streams(listener: TcpListener, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let book = Arc::clone(&book);
        connections.spawn(async move {
            // RFC 1035 §4.2.2: each message is preceded by its length.
            while let Ok(len) = stream.read_u16().await {
                let mut message = vec![0; len.into()];
                stream.read_exact(&mut message).await?;
                let Ok(question) = Message::from_vec(&message) else { break };
                let Some(answer) = book.answer(question) else { continue };
                let answer = answer.to_vec().expect("an answer that fits");
                stream.write_u16(answer.len().try_into().expect("64 KiB at most")).await?;
                stream.write_all(&answer).await?;
            }
            Ok::<(), std::io::Error>(())
        });
    }
}

impl Book {
    /// Notes a question and returns the answer, if there is one.
    fn answer(&self, question: Message) -> Option<Message> {
        let treat = (self.treat)(&question);
        let mut message = question.into_response();
        let Some(query) = message.queries.first().cloned() else { return Some(message) };
        let (name, kind) = (canonical(&query.name().to_ascii()), query.query_type());
        let turn = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry((name.clone(), kind)).or_default();
            *count += 1;
            *count - 1
        };
        let code = match treat {
            Treat::Answer => None,
            Treat::Fail(code) => Some(code),
            Treat::Ignore => return None,
        };
        let turns = self.script.get(&name).or_else(|| self.script.get("*"));
        match (code, turns) {
            (Some(code), _) => message.metadata.response_code = code,
            (None, None) => message.metadata.response_code = ResponseCode::NXDomain,
            (None, Some(turns)) => {
                let empty = Vec::new();
                let current = turns.get(turn).or_else(|| turns.last()).unwrap_or(&empty);
                let name = query.name();
                let records = records(name, kind, self.ttl, current, &self.script, MAX_ALIASES);
                message.add_answers(records);
            }
        }
        Some(message)
    }
}

/// The number of aliases that are followed, so that a circle of aliases ends.
const MAX_ALIASES: usize = 8;

fn records(
    name: &Name,
    kind: RecordType,
    ttl: u32,
    answers: &[String],
    script: &Script,
    aliases: usize,
) -> Vec<Record> {
    let mut records = Vec::new();
    for text in answers {
        if let Some(alias) = text.strip_prefix("CNAME ") {
            let target = Name::from_utf8(alias).expect("a name");
            let cname = RData::CNAME(CNAME(target.clone()));
            records.push(Record::from_rdata(name.clone(), ttl, cname));
            let next = script.get(&canonical(alias)).and_then(|turns| turns.last());
            if let (Some(next), 1..) = (next, aliases) {
                records.extend(self::records(&target, kind, ttl, next, script, aliases - 1));
            }
            continue;
        }
        let data = match (text.parse().expect("an address"), kind) {
            (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
            (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
            _ => continue,
        };
        records.push(Record::from_rdata(name.clone(), ttl, data));
    }
    records
}
