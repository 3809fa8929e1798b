//! `export` and `import`: a copy of a service, field by field.

use std::process::Command;

use serde_json::{Value, json};

use crate::program::{Ended, Place, Served};

/// A folder with a service of its own.
struct Service {
    place: Place,
    served: Served,
}

impl Service {
    fn start() -> Self {
        let mut place = Place::new();
        let served = place.serve(&["--dev"]);
        Self { place, served }
    }

    /// Calls the API.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.served.ask(self.served.key.as_deref().unwrap(), method, path, body)
    }

    /// Fills the service with one of everything that an export has.
    fn fill(&self) {
        let schemas = json!({ "1": { "type": "object", "examples": [{ "a": null, "b": 1.5 }] } });
        self.ask(
            "POST",
            "/event-type",
            &json!({ "name": "invoice.paid", "description": "Paid \"once\"\n", "schemas": schemas,
                     "groupName": "money", "featureFlag": "beta", "schemaEnforcement": "warn" }),
        );
        self.ask(
            "POST",
            "/event-type",
            &json!({ "name": "old", "description": "", "archived": true }),
        );
        let retry = json!({ "retrySchedule": [{ "secs": 5, "nanos": 0 }] });
        self.ask("PUT", "/event-type/invoice.paid/retry-schedule", &retry);
        self.ask(
            "POST",
            "/app",
            &json!({ "name": "Acme", "uid": "acme", "metadata": { "plan": "gold" }, "throttleRate": 9 }),
        );
        self.ask("PUT", "/app/acme/limits", &json!({ "maxEndpoints": 7 }));
        self.ask("POST", "/app", &json!({ "name": "No uid" }));
        self.ask(
            "POST",
            "/app/acme/endpoint",
            &json!({ "url": "https://example.com/hook?token=t", "uid": "crm", "description": "CRM",
                     "eventTypes": ["invoice.*"], "channels": ["eu"], "metadata": { "a": "b" },
                     "throttleRate": 3, "headers": { "X-Own": "1", "x-two": "zwei" },
                     "delivery": { "retrySchedule": [1, 2], "ordered": true, "paused": true,
                                   "throttlePeriodSecs": 60, "timeoutSecs": 7, "maxInFlight": 2,
                                   "maxAgeSecs": 99, "body": "cloudEvent" } }),
        );
        self.ask(
            "POST",
            "/app/acme/endpoint",
            &json!({ "url": "https://example.com/off", "disabled": true }),
        );
    }

    /// Returns everything, without what differs between two services: ids that it made, and times.
    fn content(&self) -> Vec<Value> {
        let clean = |mut shown: Value| {
            let fields = shown.as_object_mut().unwrap();
            fields.retain(|name, _| !["id", "createdAt", "updatedAt"].contains(&name.as_str()));
            // A thing without a uid gets its old id as its uid.
            fields.entry("uid").or_insert(json!("none"));
            if fields["uid"].as_str().unwrap().starts_with("imported.") {
                fields.insert("uid".to_owned(), json!("none"));
            }
            shown
        };
        let mut found = Vec::new();
        let list =
            |path: &str| self.ask("GET", path, &json!({}))["data"].as_array().unwrap().clone();
        for event_type in list("/event-type?include_archived=true&with_content=true") {
            let name = event_type["name"].as_str().unwrap().to_owned();
            found.push(clean(event_type));
            found.push(self.ask("GET", &format!("/event-type/{name}/retry-schedule"), &json!({})));
        }
        for app in list("/app") {
            let app_path = format!("/app/{}", app["id"].as_str().unwrap());
            found.push(clean(app));
            found.push(self.ask("GET", &format!("{app_path}/limits"), &json!({})));
            let mut endpoints = list(&format!("{app_path}/endpoint"));
            endpoints.sort_by_key(|endpoint| endpoint["url"].to_string());
            for endpoint in endpoints {
                let path = format!("{app_path}/endpoint/{}", endpoint["id"].as_str().unwrap());
                found.push(clean(endpoint));
                for part in ["headers", "secret", "ca"] {
                    found.push(self.ask("GET", &format!("{path}/{part}"), &json!({})));
                }
            }
        }
        found
    }

    fn import(&self, file: &str, options: &[&str]) -> Ended {
        self.place.run_with(&[&["import", "-"], options].concat(), file)
    }
}

/// Returns the signs at the start of the lines, sorted.
fn signs(out: &str) -> String {
    let mut signs: Vec<char> = out.lines().filter_map(|line| line.chars().next()).collect();
    signs.sort_unstable();
    signs.into_iter().collect()
}

/// Goal: a copy has everything, secrets included, and a second import finds nothing to do. Method: a service is filled
/// by its API, exported in both forms, imported twice into a second one, and both are compared by the API.
#[test]
fn a_copy_of_a_service_has_every_field() {
    let from = Service::start();
    from.fill();
    for form in [&["export", "--with-secrets"][..], &["export", "--with-secrets", "--json"]] {
        let to = Service::start();
        let file = from.place.run(form).ok();
        let dry = to.import(&file, &["--dry-run"]);
        assert!(dry.err.contains("nothing was changed: 6 made"), "{dry:?}");
        assert_eq!((signs(&dry.ok()).as_str(), to.content()), ("++++++", Vec::new()));
        assert_eq!(signs(&to.import(&file, &[]).ok()), "++++++");
        let copied = to.content();
        assert_eq!(copied, from.content());
        let again = to.import(&file, &[]);
        assert!(again.err.contains("0 made, 0 changed, 6 left, 0 removed"), "{again:?}");
        assert_eq!((signs(&again.ok()).as_str(), to.content()), ("======", copied));
        // Back to where it came from, it finds everything, too.
        let back = to.place.run(&["export", "--with-secrets"]).ok();
        assert_eq!(signs(&from.import(&back, &[]).ok()), "======");
    }
}

#[test]
fn differences_are_told_and_repaired() {
    let from = Service::start();
    from.fill();
    let file = from.place.run(&["export", "--with-secrets"]).ok();
    let before = from.content();
    from.ask(
        "PATCH",
        "/app/acme/endpoint/crm",
        &json!({ "url": "https://example.com/b?token=u", "throttleRate": null, "delivery": { "ordered": false } }),
    );
    let headers =
        json!({ "headers": { "x-own": "2", "x-new": "1", "authorization": "topsecret" } });
    from.ask("PATCH", "/app/acme/endpoint/crm/headers", &headers);
    from.ask("POST", "/app/acme/endpoint/crm/secret/rotate", &json!({}));
    from.ask("PUT", "/app/acme/limits", &json!({}));
    from.ask(
        "POST",
        "/app/acme/endpoint",
        &json!({ "url": "https://example.com/x", "uid": "extra" }),
    );
    from.ask("POST", "/app", &json!({ "name": "Extra", "uid": "extra" }));
    from.ask("POST", "/event-type", &json!({ "name": "extra", "description": "" }));
    let out = from.import(&file, &[]).ok();
    let line = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    let crm = line("~ endpoint acme/crm: ");
    for part in [
        "headers.x-own",
        "headers.x-new",
        ", secret",
        "throttleRate null -> 3",
        "delivery.ordered false -> true",
        "url \"https://example.com/b?...\" -> \"https://example.com/hook?...\"",
    ] {
        assert!(crm.contains(part), "{part} is not in {crm}");
    }
    assert!(line("~ application acme").contains("limits {} -> {\"maxEndpoints\":7}"), "{out}");
    assert!(!out.contains("whsec_") && !out.contains("token="), "{out}");
    assert_eq!(signs(&out), "====~~");
    // The header that no server shows has stayed, and what the file does not have, too.
    from.import(&file, &["--prune"]).failed(2, &["--yes"]);
    let dry = from.import(&file, &["--prune", "--dry-run", "--json"]).ok();
    let removed = |text: &str| text.lines().filter(|line| line.contains("\"remove\"")).count();
    assert_eq!(removed(&dry), 3, "{dry}");
    let pruned = from.import(&file, &["--prune", "--yes"]).ok();
    assert_eq!(signs(&pruned), "---======", "{pruned}");
    let shown = from.ask("GET", "/app/acme/endpoint/crm/headers", &json!({}));
    assert_eq!(shown["sensitive"], json!(["authorization"]));
    from.ask(
        "PATCH",
        "/app/acme/endpoint/crm/headers",
        &json!({ "deleteHeaders": ["authorization"] }),
    );
    let mut after = from.content();
    // It is archived now.
    after.retain(|shown| shown["name"] != "extra");
    let bare = |found: &Vec<Value>| found.iter().filter(|shown| **shown != json!({})).count();
    assert_eq!(bare(&after), bare(&before));
    for shown in before {
        assert!(after.contains(&shown), "{shown} is gone");
    }
}

#[test]
fn a_file_of_one_application_or_a_cut_one_removes_no_other() {
    let from = Service::start();
    from.fill();
    let one = from.place.run(&["export", "--app", "acme"]).ok();
    assert!(!one.contains("whsec_") && !one.contains("eventTypes]]"), "{one}");
    let out = from.import(&one, &["--prune", "--yes"]).ok();
    assert_eq!(signs(&out), "===", "{out}");
    let all = from.place.run(&["export"]).ok();
    let cut = all.get(..all.find("[end]").unwrap()).unwrap();
    from.import(cut, &["--prune", "--yes"]).failed(2, &["cut off"]);
    from.import(cut, &[]).failed(2, &["cut off"]);
    from.import("version = 1\n[[applications]]\nuid = \"x\"\nnmae = 1\n", &[]).failed(6, &["nmae"]);
    let nothing = from.place.run(&["export", "--app", "none"]);
    assert_eq!(nothing.out, "");
    nothing.failed(5, &["application"]);
}

#[test]
fn an_import_that_is_partly_refused_goes_on_and_says_so() {
    let to = Service::start();
    let file = "version = 1
[[applications]]
uid = \"acme\"
[[applications.endpoints]]
uid = \"bad\"
url = \"not a url\"
[[applications.endpoints]]
uid = \"open\"
url = \"https://example.com/\"
secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"
sensitiveHeaders = [\"authorization\"]
oauth = { clientId = \"x\" }
[[applications]]
uid = \"app_0000000000000000000000\"
metadata = { a = 1 }
[[applications.endpoints]]
uid = \"lost\"
url = \"https://example.com/\"
[end]
scope = \"all\"
";
    let ended = to.import(file, &[]);
    assert_eq!(signs(&ended.out), "++", "{ended:?}");
    ended.failed(
        7,
        &[
            "endpoint acme/bad",
            "endpoint acme/open: set by hand, as no server shows it: the header authorization, the OAuth client",
            "its application was refused",
            "3 were refused, and 1 lack",
        ],
    );
}

#[test]
fn another_server_is_read_with_its_secrets() {
    let (from, to) = (Service::start(), Service::start());
    from.fill();
    to.place.write("from.key", from.served.key.as_deref().unwrap());
    Command::new("chmod").arg("600").arg(to.place.path("from.key")).status().unwrap();
    let read = |kind: &str, options: &[&str]| {
        let from = ["import", "--from", kind, &from.served.url, "--from-key", "@from.key"];
        to.place.run(&[&from[..], options].concat())
    };
    assert_eq!(signs(&read("svix", &["--disabled"]).ok()), "++++++");
    let endpoint = |service: &Service, part: &str| {
        service.ask("GET", &format!("/app/acme/endpoint/crm{part}"), &json!({}))
    };
    assert_eq!(endpoint(&to, "")["disabled"], true);
    for part in ["/secret", "/headers"] {
        assert_eq!(endpoint(&to, part), endpoint(&from, part));
    }
    // The two settings that a server of Svix does not have, and the switch.
    assert_eq!(signs(&read("webhooks", &[]).ok()), "===~~~");
    assert_eq!(to.content(), from.content());
    assert_eq!(signs(&read("webhooks", &[]).ok()), "======");
    read("hookdeck", &[]).failed(2, &["--from reads svix or webhooks"]);
    to.place.run(&["import", "--from", "svix", "http://127.0.0.1:1"]).failed(2, &["--from-key"]);
    to.place
        .run(&["import", "--from", "svix", "http://127.0.0.1:1", "--from-key", "@from.key"])
        .failed(3, &["no answer from http://127.0.0.1:1"]);
}

/// `cargo xtask test` installs the library.
#[test]
fn all_that_the_official_library_made_comes_across_once() {
    let (from, to) = (Service::start(), Service::start());
    let key = from.served.key.as_deref().unwrap();
    to.place.write_private("from.key", key);
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut fill = Command::new("python3");
    fill.arg(format!("{root}/tests/peers/svix_fill.py"));
    fill.env("PYTHONPATH", format!("{root}/target/peers/python"));
    let filled = fill.args(["--url", &from.served.url, "--token", key]).output().unwrap();
    let why = String::from_utf8_lossy(&filled.stderr);
    assert!(filled.status.success(), "{why}");
    let read = ["import", "--from", "svix", &from.served.url, "--from-key", "@from.key"];
    assert_eq!(signs(&to.place.run(&read).ok()), "+++++++");
    assert_eq!(to.content(), from.content());
    // The secrets that the library was shown sign at the other service, too.
    let endpoints = to.ask("GET", "/app/acme/endpoint", &json!({}));
    let found = endpoints["data"].as_array().unwrap();
    let told = String::from_utf8(filled.stdout).unwrap();
    assert_eq!((found.len(), told.lines().count()), (3, 3), "{told}");
    for line in told.lines() {
        let [app, endpoint, secret] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let uid = if endpoint.starts_with("ep_") {
            format!("imported.{endpoint}")
        } else {
            endpoint.to_owned()
        };
        let shown = to.ask("GET", &format!("/app/{app}/endpoint/{uid}/secret"), &json!({}));
        assert_eq!(shown["key"], secret, "{line}");
    }
    assert_eq!(signs(&to.place.run(&read).ok()), "=======", "nothing is made twice");
    assert_eq!(to.content(), from.content());
}

/// A server of Svix refuses those who read a lot at once.
#[test]
fn a_server_that_asks_for_a_pause_is_read_to_the_end() {
    let to = Service::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    to.place.write("from.key", "key");
    let answers = [
        ("429 Too Many Requests", "{}"),
        ("200 OK", "{\"data\":[{\"name\":\"a.b\",\"description\":\"\"}],\"done\":true}"),
        ("429 Too Many Requests", "{}"),
        ("200 OK", "{\"data\":[],\"done\":true}"),
    ];
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};

        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _read = stream.read(&mut [0; 4_096]).unwrap();
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).unwrap();
        }
    });
    let read = ["import", "--from", "svix", &url, "--from-key", "@from.key"];
    assert_eq!(to.place.run(&read).ok(), "+ event type a.b\n");
    answering.join().unwrap();
}
