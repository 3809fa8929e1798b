//! A reader that stopped reading: the pipe is full, a command is stuck in a write, and Ctrl-C ends it all the same.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::io::{ioctl_fionbio, ioctl_fionread};
use serde_json::{Value, json};

use crate::fake_service::{self, fake_service};
use crate::listener::Listening;
use crate::program::{Place, signal, wait_for};

/// The bytes that have room in the pipe: fewer than each command prints at once.
const ROOM: usize = 4_096;

/// A pipe that nobody reads.
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    /// The bytes that are in it before a command writes.
    before: u64,
}

impl Pipe {
    fn new() -> Self {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[b'.'; ROOM]).is_ok() {}
        ioctl_fionbio(&writer, false).unwrap();
        reader.read_exact(&mut [0; ROOM]).unwrap();
        let before = ioctl_fionread(&reader).unwrap();
        Self { reader, writer, before }
    }

    fn end(&self) -> Stdio {
        self.writer.try_clone().unwrap().into()
    }

    /// Waits until a command has begun to write: it goes on until it is stuck.
    fn wait(&self) {
        wait_for("the first line", || {
            (ioctl_fionread(&self.reader).unwrap() > self.before).then_some(())
        });
    }
}

/// Returns a place whose server has many attempts.
fn place() -> Place {
    let attempts: Vec<Value> = (0..250)
        .map(|number| json!({ "id": format!("atmpt_{number}"), "timestamp": "2026-01-02T03:04:05Z" }))
        .collect();
    let page = json!({ "data": attempts, "iterator": "1", "done": true });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &fake_service(move |_method, _path| fake_service::json(&page)));
    place
}

fn code(mut child: Child) -> Option<i32> {
    signal(&child, "INT");
    child.wait().unwrap().code()
}

#[test]
fn a_tail_ends() {
    let place = place();
    for has_errors_too in [false, true] {
        let pipe = Pipe::new();
        let mut command = place.command(&["delivery", "tail", "--app", "a", "--json"]);
        command.stdout(pipe.end());
        command.stderr(if has_errors_too { pipe.end() } else { Stdio::null() });
        let child = command.spawn().unwrap();
        pipe.wait();
        assert_eq!(code(child), Some(130));
    }
}

/// A command that leaves the signals to the program, and has its last words in the same pipe.
#[test]
fn a_list_ends() {
    let (place, pipe) = (place(), Pipe::new());
    let mut command = place.command(&["app", "list", "--limit", "250", "--json"]);
    let child = command.stdout(pipe.end()).stderr(pipe.end()).spawn().unwrap();
    pipe.wait();
    assert_eq!(code(child), Some(130));
}

#[test]
fn a_receiver_ends() {
    let (place, pipe) = (Place::new(), Pipe::new());
    // A port that is free now.
    let port = Listening::start(&place, &[]).address.rsplit(':').next().unwrap().to_owned();
    let mut command = place.command(&["listen", "--port", &port, "--full"]);
    let child = command.stdout(pipe.end()).stderr(Stdio::null()).spawn().unwrap();
    let address = format!("127.0.0.1:{port}");
    let mut stream = wait_for("the receiver", || TcpStream::connect(&address).ok());
    let body = "x".repeat(16 * ROOM);
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    pipe.wait();
    assert_eq!(code(child), Some(130));
}
