//! A `listen` that runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::program::{Place, read, signal};

pub(crate) const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// A receiver that runs.
pub(crate) struct Listening {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) ready: Value,
    pub(crate) address: String,
}

impl Listening {
    pub(crate) fn start(place: &Place, options: &[&str]) -> Self {
        let mut command = place.command(&[&["listen", "--json"], options].concat());
        let log = std::fs::File::create(place.path("listen.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("not ready: {}", read(&place.path("listen.log"))));
        let address = ready["url"].as_str().unwrap_or_default().trim_start_matches("http://");
        Self { address: address.to_owned(), child, out, ready }
    }

    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends it, and returns what it said to people.
    pub(crate) fn log(&mut self, place: &Place) -> String {
        self.signal("INT");
        self.code();
        read(&place.path("listen.log"))
    }

    /// Opens a connection and sends a request.
    pub(crate) fn send(&self, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /in?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // It may answer before it reads everything.
        let _unread = stream.write_all(body);
        stream
    }

    /// Sends a request, and returns the answer.
    pub(crate) fn post(&self, headers: &str, body: &[u8]) -> String {
        let mut answer = Vec::new();
        self.send(headers, body).read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Signs a body, and returns the headers.
pub(crate) fn signed(place: &Place, body: &str) -> String {
    let headers = place.run_with(&["sign", "--secret", "@secret", "--id", "msg_1", "-"], body).ok();
    headers.replace('\n', "\r\n")
}

pub(crate) fn place() -> Place {
    let place = Place::new();
    place.write_private("secret", SECRET);
    place
}

#[track_caller]
pub(crate) fn has_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
}
