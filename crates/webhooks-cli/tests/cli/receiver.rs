//! A receiver that always answers the same.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// Answers each request with this status, and returns the URL.
pub(crate) fn receiver(status: &'static str) -> String {
    receiver_by(move || status)
}

/// Answers each request with the status of that moment, and returns the URL.
pub(crate) fn receiver_by(status: impl Fn() -> &'static str + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&seen) {
                let len = stream.read(&mut piece).unwrap();
                if len == 0 {
                    break;
                }
                seen.extend_from_slice(&piece[..len]);
            }
            let status = status();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // The sender may be gone.
            let _unsent = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// Returns whether a request has all of its headers, and the body that they announce.
pub(crate) fn is_whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= announced.map_or(0, |len| len.parse().unwrap())
}
