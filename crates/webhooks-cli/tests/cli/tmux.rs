//! The program at a real terminal, as a person uses it: colour, tables, progress, questions and Ctrl-C.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fake_service::{answer, fake_service, json as answer_json};
use crate::program::{Place, wait_for};

const PROMPT: &str = "at-your-service> ";

/// A shell in a terminal of tmux, whose server has a socket in the place and nobody's configuration.
struct Screen {
    place: Place,
}

impl Screen {
    fn new(place: Place) -> Self {
        let screen = Self { place };
        screen.tmux(&["new-session", "-d", "-x", "110", "-y", "30", "exec sh"]);
        // Spaces at the end of a line are not shown.
        screen.wait(PROMPT.trim_end());
        screen
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_webhooks")).parent().unwrap().display();
        let mut command = Command::new("tmux");
        command.args(["-L", "private", "-f", "/dev/null", "-u"]).args(words).env_clear();
        let environment = self.place.command(&[]);
        command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .env("TMUX_TMPDIR", self.place.folder.path())
            .env("PATH", format!("{bin}:/usr/bin:/bin"));
        command.env("SHELL", "/bin/sh").env("TERM", "xterm").env("PS1", PROMPT);
        command.current_dir(self.place.folder.path());
        command
    }

    /// Clears the screen, and types a line.
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-R"]);
        self.answer(line);
    }

    fn answer(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    /// Returns the text on the screen.
    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Returns the text on the screen with its colours.
    fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-e", "-p"])
    }

    /// Waits until the screen shows a text; returns the screen.
    #[track_caller]
    fn wait(&self, text: &str) -> String {
        wait_for(text, || Some(self.text()).filter(|screen| screen.contains(text)))
    }

    /// Waits until the program that was started last has ended with this code.
    #[track_caller]
    fn ended(&self, code: i32) {
        self.wait(&format!("code={code}."));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended with its shell.
        let _ended = self.command(&["kill-server"]).output();
    }
}

/// The end of a line that shows the exit code; the line itself does not have the text that it shows.
const CODE: &str = "; echo code=$?.";

/// Starts a terminal on a service that has an application; its event has two deliveries, of which as many have ended
/// as the number says.
fn screen(environment: &[(&str, &str)]) -> (Screen, Arc<AtomicUsize>) {
    const TIME: &str = "2026-01-02T03:04:05Z";
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let url = fake_service(move |method, path| {
        let app = json!({ "id": "app_1", "uid": "acme", "name": "Acme Inc", "createdAt": TIME });
        let list = |items: Value| answer_json(&json!({ "data": items, "done": true }));
        let delivery = |number: usize| {
            let status = if number < count.load(Ordering::Acquire) { "success" } else { "sending" };
            json!({ "id": format!("ep_{number}"), "url": "https://example.com/", "statusText": status })
        };
        match (method, path.strip_prefix("/api/v1").unwrap()) {
            ("GET", "/app") => list(json!([app])),
            ("DELETE", "/app/acme") => answer("204 No Content", "", b""),
            ("POST", "/app/acme/msg") => {
                answer_json(&json!({ "id": "msg_1", "eventType": "a.b", "timestamp": TIME }))
            }
            ("GET", "/app/acme/msg/msg_1/endpoint") => list(json!([delivery(0), delivery(1)])),
            _ => answer("404 Not Found", "", b"{\"detail\":\"no such application\"}"),
        }
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    for (name, value) in environment {
        place.set(name, value);
    }
    (Screen::new(place), ended)
}

#[test]
fn tables_have_headings_and_colours() {
    let (screen, _ended) = screen(&[]);
    screen.enter(&format!("webhooks app list{CODE}"));
    screen.ended(0);
    let (text, colours) = (screen.text(), screen.colours());
    let mut lines = text.lines().skip(1);
    assert_eq!(lines.next(), Some("ID     UID   NAME      RATE  CREATED"), "{text}");
    assert_eq!(lines.next(), Some("app_1  acme  Acme Inc  -     2026-01-02T03:04:05Z"), "{text}");
    assert!(colours.contains("\u{1b}[1mID "), "the heading is bold: {colours:?}");
    screen.enter(&format!("webhooks app show none{CODE}"));
    screen.ended(5);
    let colours = screen.colours();
    assert!(colours.contains("31merror:"), "an error is red: {colours:?}");
    screen.enter(&format!("webhooks publish a.b --app acme{CODE}"));
    screen.ended(0);
    let colours = screen.colours();
    assert!(colours.contains("\u{1b}[2mwhat became of it: "), "a hint is dim: {colours:?}");
}

#[test]
fn colours_can_be_turned_off() {
    for environment in [("NO_COLOR", "1"), ("WEBHOOKS_COLOR", "never")] {
        let (screen, ended) = screen(&[environment]);
        for (words, code) in [("app list", 0), ("app show none", 5), ("publish a.b --app acme", 0)]
        {
            screen.enter(&format!("webhooks {words}{CODE}"));
            screen.ended(code);
            let colours = screen.colours();
            assert!(!colours.contains('\u{1b}'), "{environment:?}: {colours:?}");
        }
        // To redraw a line is no colour.
        screen.enter(&format!("webhooks publish a.b --app acme --wait{CODE}"));
        screen.wait("0 of 2 have ended");
        ended.store(2, Ordering::Release);
        screen.ended(0);
        let text = screen.text();
        assert!(!text.contains("have ended") && text.matches("success").count() == 2, "{text}");
    }
}

/// Nothing is sent that a dumb terminal would show as it is.
#[test]
fn a_dumb_terminal_gets_no_sequences() {
    let (screen, ended) = screen(&[]);
    let raw = screen.place.path("raw");
    screen.tmux(&["pipe-pane", "-o", &format!("cat > '{}'", raw.display())]);
    let wait = "webhooks publish a.b --app acme --wait --within 0s";
    screen.enter(&format!("TERM=dumb {wait}{CODE}"));
    screen.ended(9);
    ended.store(2, Ordering::Release);
    screen.enter(&format!("TERM=dumb {wait}{CODE}"));
    screen.ended(0);
    let got = || std::fs::read_to_string(&raw).unwrap_or_default();
    wait_for("everything that the terminal got", || got().contains("code=0.").then_some(()));
    assert!(!got().contains('\u{1b}'), "{:?}", got());
}

/// Goal: progress is one line that changes. Method: the server takes the steps when the test wants them.
#[test]
fn progress_redraws_one_line() {
    let (screen, ended) = screen(&[]);
    let raw = screen.place.path("raw");
    screen.tmux(&["pipe-pane", "-o", &format!("cat > '{}'", raw.display())]);
    screen.enter(&format!("webhooks publish a.b --app acme --wait{CODE}"));
    screen.wait("0 of 2 have ended");
    ended.store(1, Ordering::Release);
    let text = screen.wait("1 of 2 have ended");
    assert_eq!(text.matches("have ended").count(), 1, "{text}");
    ended.store(2, Ordering::Release);
    screen.ended(0);
    let text = screen.text();
    assert!(!text.contains("have ended") && text.matches("success").count() == 2, "{text}");
    wait_for("everything that the terminal got", || {
        let raw = std::fs::read_to_string(&raw).unwrap_or_default();
        let redrawn = |text| raw.contains(&format!("\r\u{1b}[2K{text} of 2 have ended"));
        (redrawn("0") && redrawn("1")).then_some(())
    });
}

#[test]
fn a_question_is_asked_and_ctrl_c_is_an_answer() {
    let (screen, _ended) = screen(&[]);
    let delete = format!("webhooks app delete acme{CODE}");
    let ask = || {
        screen.enter(&delete);
        screen.wait("Delete application acme with all its endpoints? [y/N]");
    };
    ask();
    screen.answer("n");
    screen.wait("nothing was changed");
    screen.ended(1);
    ask();
    // An empty answer is the one in capitals.
    screen.key("Enter");
    screen.ended(1);
    ask();
    screen.key("C-c");
    screen.wait("interrupted");
    screen.ended(130);
    ask();
    screen.answer("y");
    screen.ended(0);
}

#[test]
fn ctrl_c_ends_a_wait_and_says_how_to_go_on() {
    let (screen, _ended) = screen(&[]);
    screen.enter(&format!("webhooks publish a.b --app acme --wait{CODE}"));
    screen.wait("0 of 2 have ended");
    screen.key("C-c");
    screen.ended(130);
    let text = screen.text();
    assert!(text.contains("webhooks delivery show msg_1 --app acme"), "{text}");
    assert!(!text.contains("have ended"), "its progress is taken away: {text}");
}
