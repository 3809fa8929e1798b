//! Help and tables, as they were when somebody last looked at them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fake_service::{answer, fake_service, json as answer_json};
use crate::program::Place;
use crate::terminal::at_terminal;
use crate::tree;

/// The variable with which the files are written anew.
const UPDATE: &str = "UPDATE_SNAPSHOTS";

/// The heading of the options that each help has.
const GLOBAL: &str = "\nOptions of every command:\n";

/// A folder of texts, each in a file of its own.
struct Snapshots {
    folder: PathBuf,
    seen: BTreeSet<String>,
    differences: String,
}

impl Snapshots {
    fn new(folder: &str) -> Self {
        let all = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/snapshots"));
        Self { folder: all.join(folder), seen: BTreeSet::new(), differences: String::new() }
    }

    /// Compares a text with its file, or writes the file.
    fn check(&mut self, name: &str, text: &str) {
        let name = format!("{name}.txt");
        // Spaces at the end of a line are seen by nobody.
        let text = &text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        let path = self.folder.join(&name);
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        self.seen.insert(name);
        if stored == *text {
            return;
        }
        if std::env::var_os(UPDATE).is_some() {
            std::fs::create_dir_all(&self.folder).unwrap();
            std::fs::write(path, text).unwrap();
            return;
        }
        let mut lines = text.lines().zip(stored.lines().chain(std::iter::repeat("")));
        let found = lines.find(|(new, old)| new != old).unwrap_or(("fewer lines", "more lines"));
        let (new, old) = found;
        writeln!(self.differences, "{}\n  is now     {new}\n  and was    {old}", path.display())
            .unwrap();
    }

    /// Fails if a text differs, or if a file is left over.
    #[track_caller]
    fn finish(self) {
        let Self { folder, seen, mut differences } = self;
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if seen.contains(path.file_name().unwrap().to_str().unwrap()) {
                continue;
            }
            if std::env::var_os(UPDATE).is_some() {
                std::fs::remove_file(path).unwrap();
            } else {
                writeln!(differences, "{} is left over", path.display()).unwrap();
            }
        }
        assert!(
            differences.is_empty(),
            "{differences}If this is meant, write the files anew, and look at them before you commit:\n  \
             {UPDATE}=1 cargo test -p webhooks-cli --test cli snapshots"
        );
    }
}

#[test]
fn each_help_is_as_it_was() {
    let mut place = Place::new();
    place.set("COLUMNS", "100");
    let help = |words: &[&str]| place.run(&[words, &["--help"]].concat()).ok();
    // Its end is the list of exit codes.
    let first = help(&[]);
    let global = first.split(GLOBAL).nth(1).unwrap().split("\n\nExit codes:").next().unwrap();
    let mut snapshots = Snapshots::new("help");
    for command in tree::commands() {
        let name = [vec!["webhooks"], command.words()].concat().join("-");
        let text = if command.words.is_empty() { first.clone() } else { help(&command.words()) };
        let own = if command.words.is_empty() {
            text
        } else {
            // They are in the first file alone.
            let (before, options) = text.split_once(GLOBAL).unwrap();
            let options = options.trim_end().strip_prefix(global.trim_end());
            format!(
                "{before}\n(options of every command){}\n",
                options.unwrap_or("\nDIFFERENT FROM `webhooks --help`")
            )
        };
        snapshots.check(&name, &own);
    }
    snapshots.finish();
}

/// The commands that print tables, and the answers of a server with the same few things for ever.
const TABLES: [&[&str]; 11] = [
    &["app", "list"],
    &["app", "show", "acme"],
    &["delivery", "jobs"],
    &["delivery", "list", "--app", "acme"],
    &["delivery", "show", "msg_1", "--app", "acme"],
    &["endpoint", "list", "--app", "acme"],
    &["endpoint", "stats", "crm", "--app", "acme"],
    &["event", "list", "--app", "acme"],
    &["event", "search", "17", "--app", "acme"],
    &["event-type", "list"],
    &["key", "list"],
];

fn fixed(path: &str) -> Option<Value> {
    let list = |items: Value| json!({ "data": items, "done": true, "iterator": null });
    let app = json!({ "id": "app_1", "uid": "acme", "name": "Acme Inc", "metadata": { "plan": "gold" },
        "throttleRate": 9, "createdAt": TIME, "updatedAt": TIME });
    let event = json!({ "id": "msg_1", "eventId": "invoice-17", "eventType": "invoice.paid", "timestamp": TIME,
        "channels": ["eu"], "tags": [], "payload": { "invoice": 17 } });
    let delivery = json!({ "id": "msg_1", "eventType": "invoice.paid", "timestamp": TIME, "status": 2,
        "statusText": "fail", "nextAttempt": null });
    Some(match path.strip_prefix("/api/v1")? {
        "/app" => list(
            json!([app, { "id": "app_2", "uid": null, "name": "Zoë & Co", "createdAt": TIME }]),
        ),
        "/app/acme" => app,
        "/background-task" => list(json!([
            { "id": "qtask_1", "task": "endpoint.replay", "status": "running", "data": { "deliveries": 2871 }, "updatedAt": TIME },
            { "id": "qtask_2", "task": "endpoint.recover", "status": "failed", "data": { "deliveries": 0, "error": "the endpoint is gone" }, "updatedAt": TIME },
        ])),
        "/app/acme/endpoint" => list(json!([
            { "id": "ep_1", "uid": "crm", "url": "https://hooks.acme.test/in", "eventTypes": ["invoice.*", "user.created"], "channels": [], "disabled": false, "delivery": { "paused": false }, "throttleRate": 9 },
            { "id": "ep_2", "uid": null, "url": "https://b.test/", "eventTypes": [], "channels": ["eu"], "disabled": true, "delivery": { "paused": true } },
        ])),
        "/app/acme/endpoint/ep_1/msg" => list(json!([delivery])),
        "/app/acme/endpoint/ep_2/msg" => list(json!([
            { "id": "msg_2", "eventType": "user.created", "timestamp": "2026-01-02T03:05:05Z", "status": 3, "statusText": "sending", "nextAttempt": "2026-01-02T03:06:00Z" },
        ])),
        "/app/acme/msg/msg_1/endpoint" => list(json!([
            { "id": "ep_1", "uid": "crm", "url": "https://hooks.acme.test/in", "status": 2, "statusText": "fail", "nextAttempt": null },
        ])),
        "/app/acme/attempt/msg/msg_1" => list(json!([
            { "id": "atmpt_1", "endpointId": "ep_1", "statusText": "fail", "responseStatusCode": 503, "responseDurationMs": 31, "timestamp": TIME, "response": "busy\nlater" },
        ])),
        "/app/acme/endpoint/crm/stats" => {
            json!({ "success": 1091, "fail": 9, "pending": 311, "sending": 2, "canceled": 0 })
        }
        "/app/acme/msg" => list(json!([event])),
        "/app/acme/msg/search" => list(json!([event])),
        "/event-type" => list(json!([
            { "name": "invoice.paid", "description": "An invoice was paid.", "archived": false, "schemaEnforcement": "refuse", "updatedAt": TIME },
            { "name": "user.created", "description": "", "archived": true, "schemaEnforcement": "off", "updatedAt": TIME },
        ])),
        "/management/authentication/default/api-token" => list(json!([
            { "id": "key_1", "name": "administrator", "role": "admin", "application": null, "expiresAt": null, "lastUsedAt": TIME },
            { "id": "key_2", "name": "billing", "role": "publisher", "application": "app_1", "expiresAt": "2026-04-02T03:04:05Z" },
        ])),
        _ => return None,
    })
}

const TIME: &str = "2026-01-02T03:04:05Z";

#[test]
fn each_table_is_as_it_was() {
    let mut place = Place::new();
    let url = fake_service(|_method, path| match fixed(path) {
        Some(found) => answer_json(&found),
        None => answer("404 Not Found", "", path.as_bytes()),
    });
    place.set("WEBHOOKS_SERVER", &url);
    let mut snapshots = Snapshots::new("tables");
    for words in TABLES {
        let line = words.join(" ");
        let terminal =
            at_terminal(&place, words).ok().replace("\r\n", "\n").replace('\u{1b}', "ESC");
        let plain = place.run(words).ok().replace('\t', "<TAB>");
        let json = place.run(&[words, &["--json"]].concat()).ok();
        let text = format!(
            "$ webhooks {line}\n{terminal}\n$ webhooks {line} | cat\n{plain}\n$ webhooks {line} --json\n{json}"
        );
        snapshots.check(&words[..2].join("-"), &text);
    }
    snapshots.finish();
}
