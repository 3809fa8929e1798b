//! A name server on loopback that answers by a script.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// What a name stands for, by successive questions of one kind; the last goes on.
type Script = HashMap<String, Vec<Vec<String>>>;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<HashMap<(String, RecordType), usize>>>,
    _tasks: JoinSet<()>,
}

impl NameServer {
    /// Starts a server that knows names and, for successive questions, their addresses, or
    /// `CNAME name`; `*` stands for all other names. Its answers hold for so many seconds.
    pub async fn start<'a>(
        ttl: u32,
        script: impl IntoIterator<Item = (&'a str, Vec<Vec<String>>)>,
    ) -> Self {
        let script: Script =
            script.into_iter().map(|(name, answers)| (canonical(name), answers)).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        let asked = Arc::default();
        let (noted, mut tasks) = (Arc::clone(&asked), JoinSet::new());
        tasks.spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut packet).await {
                let Ok(question) = Message::from_vec(&packet[..len]) else { continue };
                let answer = answer(question, ttl, &script, &noted).to_vec();
                let sent = socket.send_to(&answer.expect("an answer that fits"), from).await;
                sent.expect("loopback takes packets");
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how often it was asked for an IPv4 address of a name.
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&(canonical(name), RecordType::A)).copied().unwrap_or(0)
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

fn answer(
    question: Message,
    ttl: u32,
    script: &Script,
    asked: &Mutex<HashMap<(String, RecordType), usize>>,
) -> Message {
    let mut message = question.into_response();
    let Some(query) = message.queries.first().cloned() else { return message };
    let (name, kind) = (canonical(&query.name().to_ascii()), query.query_type());
    let turn = {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.entry((name.clone(), kind)).or_default();
        *count += 1;
        *count - 1
    };
    let Some(turns) = script.get(&name).or_else(|| script.get("*")) else {
        message.metadata.response_code = ResponseCode::NXDomain;
        return message;
    };
    let empty = Vec::new();
    let current = turns.get(turn).or_else(|| turns.last()).unwrap_or(&empty);
    let records = records(query.name(), kind, ttl, current, script, MAX_ALIASES);
    message.add_answers(records);
    message
}

/// How many aliases are followed, so that those that lead to themselves end.
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
