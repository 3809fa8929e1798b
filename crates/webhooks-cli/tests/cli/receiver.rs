//! A receiver that always answers the same.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// Answers each request with this status, and returns the URL.
pub(crate) fn receiver(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut piece = [0; 4096];
            // The payloads here end with the only brace that follows the headers.
            while !(contains(&seen, b"\r\n\r\n") && seen.ends_with(b"}")) {
                let len = stream.read(&mut piece).unwrap();
                if len == 0 {
                    break;
                }
                seen.extend_from_slice(&piece[..len]);
            }
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // The sender may be gone.
            let _unsent = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
