//! A server of a few lines that answers as a test wants.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use crate::receiver::is_whole;

/// The bytes of an answer, headers included.
pub(crate) type Answer = Vec<u8>;

/// Starts a server; returns its URL. It calls `answer` with the method and the path of each request.
pub(crate) fn fake_service(
    answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream.unwrap(), &*answer));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &str) -> Answer) {
    let mut seen = Vec::new();
    let mut piece = [0; 8 * 1024];
    while !is_whole(&seen) {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(len) => seen.extend_from_slice(&piece[..len]),
        }
    }
    let text = String::from_utf8_lossy(&seen);
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    // The program may have ended.
    let _unsent = stream.write_all(&answer(method, path));
}

/// Returns an answer with its headers.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {len}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns the answer 200 with JSON.
pub(crate) fn json(body: &Value) -> Answer {
    answer("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
}
