//! The file that `export` writes and `import` reads: TOML, or JSON with a record on each line.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::failure::{Exit, Failure};
use crate::record::{Kind, Record};

/// The version of the form.
const VERSION: u64 = 1;

/// The first lines of a file in TOML.
const HEAD: &str = "\
# Event types, applications and endpoints of a webhook service, by `webhooks export`.
# `webhooks import FILE --dry-run` shows how another service differs from it.
version = 1
";

/// The things that a file is about. A file in which it is missing was written by hand, or was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything that the service had.
    All,
    /// Single applications.
    Application,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Application => "application",
        }
    }
}

/// The two forms of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Toml,
}

impl Form {
    pub(crate) fn head(self) -> String {
        match self {
            Self::Json => json!({ "version": VERSION }).to_string(),
            Self::Toml => HEAD.to_owned(),
        }
    }

    /// Returns the text of a record. `app` is the name of the application before it.
    pub(crate) fn record(self, record: Record, app: &str) -> Result<String, Failure> {
        let Record { kind, mut fields } = record;
        if self == Self::Json {
            let line = match kind {
                Kind::EventType => json!({ "eventType": fields }),
                Kind::Application => json!({ "application": fields }),
                Kind::Endpoint => {
                    fields.insert("application".to_owned(), app.into());
                    json!({ "endpoint": fields })
                }
            };
            return Ok(line.to_string());
        }
        // TOML has no null, which a schema may have.
        if let Some(schemas) = fields.get_mut("schemas") {
            *schemas = schemas.to_string().into();
        }
        let tables = match kind {
            Kind::EventType => json!({ "eventTypes": [fields] }),
            Kind::Application => json!({ "applications": [fields] }),
            Kind::Endpoint => json!({ "applications": [{ "endpoints": [fields] }] }),
        };
        let text = toml::to_string(&tables).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write the {kind} as TOML"))
                .because(error)
                .hint("use --json")
        })?;
        // The table of its application is in the file already.
        let start =
            if kind == Kind::Endpoint { text.find("[[applications.endpoints]]") } else { None };
        Ok(text.get(start.unwrap_or_default()..).unwrap_or_default().to_owned())
    }

    /// Returns the last lines, without which a file is not whole.
    pub(crate) fn end(self, scope: Scope) -> String {
        match self {
            Self::Json => json!({ "end": { "scope": scope.word() } }).to_string(),
            Self::Toml => format!("[end]\nscope = \"{}\"", scope.word()),
        }
    }
}

/// The content of a file.
#[derive(Debug)]
pub(crate) struct RecordFile {
    pub(crate) scope: Option<Scope>,
    /// The event types, and each application with its endpoints after it.
    pub(crate) records: Vec<Record>,
}

impl RecordFile {
    /// Reads a file of either form.
    pub(crate) fn read(bytes: &[u8], place: &str) -> Result<Self, Failure> {
        let text = std::str::from_utf8(bytes);
        let text =
            text.map_err(|error| Failure::usage(format!("{place} is not UTF-8")).because(error))?;
        let document = match text.trim_start() {
            "" => return Err(Failure::usage(format!("{place} is empty"))),
            json if json.starts_with('{') => read_lines(text, place)?,
            _ => read_toml(text, place)?,
        };
        match document.get("version").and_then(Value::as_u64) {
            Some(VERSION) => Self::of(document),
            Some(version) => Err(Failure::usage(format!(
                "{place} has version {version}, and this program knows version {VERSION}"
            ))
            .hint("update the program")),
            None => Err(Failure::usage(format!("{place} has no `version = {VERSION}`"))
                .hint("`webhooks export` writes such a file")),
        }
    }

    fn of(mut document: Map<String, Value>) -> Result<Self, Failure> {
        let scope = match document.remove("end").map(|mut end| end["scope"].take()) {
            None => None,
            Some(Value::String(word)) if word == Scope::All.word() => Some(Scope::All),
            Some(Value::String(word)) if word == Scope::Application.word() => {
                Some(Scope::Application)
            }
            Some(other) => return Err(wrong(format!("end.scope is {other}, which is unknown"))),
        };
        document.remove("version");
        let (mut records, mut names) = (Vec::new(), BTreeSet::new());
        for mut fields in tables(&mut document, "eventTypes")? {
            // TOML has schemas as text.
            if let Some(Value::String(text)) = fields.get("schemas") {
                let schemas: Value = serde_json::from_str(text).map_err(|error| {
                    wrong("the schemas of an event type are not JSON").because(error)
                })?;
                fields.insert("schemas".to_owned(), schemas);
            }
            add(&mut records, &mut names, "", Record::written(Kind::EventType, fields)?)?;
        }
        for mut fields in tables(&mut document, "applications")? {
            let endpoints = tables(&mut fields, "endpoints")?;
            let app = Record::written(Kind::Application, fields)?;
            let name = app.name().to_owned();
            add(&mut records, &mut names, "", app)?;
            for fields in endpoints {
                let endpoint = Record::written(Kind::Endpoint, fields)?;
                add(&mut records, &mut names, &name, endpoint)?;
            }
        }
        match document.keys().next() {
            Some(field) => Err(wrong(format!("it has an unknown field {field:?}"))),
            None => Ok(Self { scope, records }),
        }
    }
}

/// Adds a record whose name no other one has.
fn add(
    records: &mut Vec<Record>,
    names: &mut BTreeSet<String>,
    app: &str,
    record: Record,
) -> Result<(), Failure> {
    record.check()?;
    let name = format!("{} {app}/{}", record.kind, record.name());
    if !names.insert(name) {
        return Err(wrong(format!("it has two of {} {:?}", record.kind, record.name())));
    }
    records.push(record);
    Ok(())
}

/// Takes a list of tables out.
fn tables(fields: &mut Map<String, Value>, name: &str) -> Result<Vec<Map<String, Value>>, Failure> {
    let Some(value) = fields.remove(name) else { return Ok(Vec::new()) };
    let Value::Array(items) = value else { return Err(wrong(format!("{name} is not a list"))) };
    let table = |item| match item {
        Value::Object(fields) => Ok(fields),
        _ => Err(wrong(format!("{name} has an entry that is not a table"))),
    };
    items.into_iter().map(table).collect()
}

fn wrong(text: impl Into<String>) -> Failure {
    let text: String = text.into();
    Failure::new(Exit::Refused, format!("the file is refused: {text}"))
}

fn read_toml(text: &str, place: &str) -> Result<Map<String, Value>, Failure> {
    toml::from_str(text).map_err(|error| {
        // The message of the parser shows the line, which may have a secret.
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        Failure::usage(format!("line {line} of {place} is not TOML: {}", error.message()))
    })
}

/// Returns the document of the lines, in the form that TOML has.
fn read_lines(text: &str, place: &str) -> Result<Map<String, Value>, Failure> {
    let mut document = Map::new();
    let (mut event_types, mut apps) = (Vec::new(), Vec::<Value>::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {} of {place}", number + 1);
        let found: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| Failure::usage(format!("{place} is not JSON")).because(error))?;
        for (kind, value) in found {
            match (kind.as_str(), value) {
                ("eventType", value) => event_types.push(value),
                ("application", value) => apps.push(value),
                ("endpoint", Value::Object(mut fields)) => {
                    let app = fields.remove("application").unwrap_or_default();
                    let owner = apps.iter_mut().rev().find(|owner| {
                        let has_name = |name: &str| !owner[name].is_null() && owner[name] == app;
                        has_name("uid") || (owner["uid"].is_null() && has_name("id"))
                    });
                    let Some(Value::Object(owner)) = owner else {
                        return Err(wrong(format!(
                            "{place} has an endpoint of an application that is not before it"
                        )));
                    };
                    let list = owner.entry("endpoints").or_insert_with(|| json!([]));
                    if let Value::Array(list) = list {
                        list.push(fields.into());
                    }
                }
                (kind, value) => {
                    document.insert(kind.to_owned(), value);
                }
            }
        }
    }
    document.insert("eventTypes".to_owned(), event_types.into());
    document.insert("applications".to_owned(), apps.into());
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let record = |kind, fields: Value| Record::shown(kind, &fields);
        let schemas = json!({ "1": { "enum": [null, "'''", 1.5, u64::MAX] } });
        vec![
            record(Kind::EventType, json!({ "name": "a.b", "schemas": schemas, "retry": {} })),
            record(
                Kind::Application,
                json!({ "uid": "acme", "name": "A\u{1b}\n", "metadata": {} }),
            ),
            record(
                Kind::Endpoint,
                json!({ "uid": "crm", "headers": { "x": "1" }, "url": "https://a.test/",
                        "delivery": { "ordered": true, "retrySchedule": [] }, "eventTypes": ["a"] }),
            ),
            record(Kind::Application, json!({ "id": "app_x", "name": "B" })),
            record(Kind::Endpoint, json!({ "uid": "crm", "url": "https://b.test/" })),
        ]
    }

    fn written(form: Form) -> String {
        let (mut lines, mut app) = (vec![form.head()], String::new());
        for record in records() {
            if record.kind == Kind::Application {
                record.name().clone_into(&mut app);
            }
            lines.push(form.record(record, &app).unwrap());
        }
        lines.push(form.end(Scope::All));
        lines.join("\n")
    }

    #[test]
    fn both_forms_have_everything() {
        for form in [Form::Json, Form::Toml] {
            let text = written(form);
            let read = RecordFile::read(text.as_bytes(), "f").unwrap();
            assert_eq!(read.scope, Some(Scope::All));
            let fields = |records: &[Record]| -> Vec<Value> {
                records.iter().map(|record| record.fields.clone().into()).collect()
            };
            assert_eq!(fields(&read.records), fields(&records()), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_has_no_scope() {
        for form in [Form::Json, Form::Toml] {
            let text = written(form);
            let cut = text.find(&form.end(Scope::All)).unwrap();
            assert_eq!(RecordFile::read(&text.as_bytes()[..cut], "f").unwrap().scope, None);
        }
    }

    #[test]
    fn faults_are_told_without_secrets() {
        for (text, says) in [
            ("", "f is empty"),
            ("a = 1", "f has no `version = 1`"),
            ("version = 2", "knows version 1"),
            ("version = 1\nx = 1", "unknown field \"x\""),
            ("version = 1\nsecret = whsec_topsecret", "line 2 of f is not TOML"),
            ("{\"version\":1}\n{\"x", "line 2 of f is not JSON"),
            ("{\"version\":1}\n{\"endpoint\":{\"application\":\"a\"}}", "not before it"),
            ("version = 1\n[[eventTypes]]\nname = \"a\"\n[[eventTypes]]\nname = \"a\"", "two of"),
            ("version = 1\n[[applications]]\nuid = \"..\"", "no usable name"),
            ("version = 1\n[end]\nscope = \"most\"", "end.scope"),
        ] {
            let error = RecordFile::read(text.as_bytes(), "f").unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("topsecret"), "{text}: {error}");
        }
    }
}
