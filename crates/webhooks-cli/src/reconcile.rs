//! Making a server have what records say.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::difference::{Difference, Step, patch, print};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::record::{Kind, Record, without_nulls};
use crate::record_file::Scope;
use crate::walk::lower_case;

/// The choices of an import.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    /// Nothing is changed.
    pub(crate) dry_run: bool,
    /// Endpoints are made disabled.
    pub(crate) disabled: bool,
    /// The scope in which things are removed that no record has.
    pub(crate) prune: Option<Scope>,
}

/// The numbers of things.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) made: usize,
    pub(crate) changed: usize,
    pub(crate) left: usize,
    pub(crate) removed: usize,
    /// Things that the server refused.
    pub(crate) refused: usize,
    /// Things that lack a secret that no server shows.
    pub(crate) unfinished: usize,
    /// Endpoints that were made with secrets of their own.
    pub(crate) new_secrets: usize,
}

/// The application whose endpoints follow.
#[derive(Debug)]
struct Current {
    name: String,
    /// Its id at the server; none if it is only to be made, or was refused.
    id: Option<String>,
    is_refused: bool,
    /// The endpoints that it has at the server.
    endpoints: Vec<Value>,
    /// The ids of those that the records have.
    seen: BTreeSet<String>,
}

/// An import under way.
#[derive(Debug)]
pub(crate) struct Reconcile<'c> {
    client: &'c Client,
    output: Output,
    choices: Choices,
    pub(crate) counts: Counts,
    /// The names of the event types, and the ids of the applications, that the records have.
    seen: BTreeSet<String>,
    current: Option<Current>,
}

/// A thing with its name for people and its path in the API.
struct Thing<'t> {
    record: &'t Record,
    name: &'t str,
    path: &'t [&'t str],
}

impl<'c> Reconcile<'c> {
    pub(crate) fn new(client: &'c Client, output: Output, choices: Choices) -> Self {
        let (counts, seen) = (Counts::default(), BTreeSet::new());
        Self { client, output, choices, counts, seen, current: None }
    }

    /// Makes the server have a record. A refusal is told and counted; other failures end the import.
    pub(crate) async fn apply(&mut self, record: Record) -> Result<(), Failure> {
        let name = match (&self.current, record.kind) {
            (Some(app), Kind::Endpoint) => format!("{}/{}", app.name, record.name()),
            _ => record.name().to_owned(),
        };
        let applied = match (record.check(), record.kind) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Kind::EventType) => self.event_type(&record).await,
            (Ok(()), Kind::Application) => self.application(&record).await,
            (Ok(()), Kind::Endpoint) => self.endpoint(&record, &name).await,
        };
        match applied {
            Err(failure) if matches!(failure.exit, Exit::Refused | Exit::NotFound) => {
                self.counts.refused += 1;
                self.output.end_progress();
                Output::warn(format!("{} {}: {failure}", record.kind, name.escape_debug()));
                Ok(())
            }
            applied => applied,
        }
    }

    async fn event_type(&mut self, record: &Record) -> Result<(), Failure> {
        let name = record.name();
        self.seen.insert(name.to_owned());
        let found = self.client.find(&["event-type", name]).await?;
        let thing = Thing { record, name, path: &["event-type", name] };
        match found {
            Some(found) => self.change(&thing, &found, Vec::new()).await,
            None => {
                let mut body = made_of(record);
                body.insert("name".to_owned(), name.into());
                body.entry("description").or_insert_with(|| "".into());
                self.make(&thing, &["event-type"], body).await.map(drop)
            }
        }
    }

    async fn application(&mut self, record: &Record) -> Result<(), Failure> {
        self.end_application().await?;
        let name = record.name();
        // Until it is known, its endpoints have nowhere to go.
        self.current = Some(Current {
            name: name.to_owned(),
            id: None,
            is_refused: true,
            endpoints: Vec::new(),
            seen: BTreeSet::new(),
        });
        let mut found = None;
        for name in record.names() {
            found = self.client.find(&["app", &name]).await?;
            if found.is_some() {
                break;
            }
        }
        let (id, endpoints) = if let Some(found) = found {
            let id = found["id"].as_str().unwrap_or_default().to_owned();
            self.seen.insert(id.clone());
            self.change(&Thing { record, name, path: &["app", &id] }, &found, Vec::new()).await?;
            let endpoints = self.client.list(&["app", &id, "endpoint"], &[], usize::MAX).await?;
            (Some(id), endpoints)
        } else {
            let mut body = made_of(record);
            body.insert("uid".to_owned(), record.uid().into());
            // A name is for people; a record may lack it.
            body.entry("name").or_insert_with(|| name.into());
            let uid = record.uid();
            let thing = Thing { record, name, path: &["app", &uid] };
            let id = self.make(&thing, &["app"], body).await?;
            self.seen.extend(id.clone());
            (id, Vec::new())
        };
        if let Some(current) = &mut self.current {
            current.id = id;
            current.is_refused = false;
            current.endpoints = endpoints;
        }
        Ok(())
    }

    async fn endpoint(&mut self, record: &Record, name: &str) -> Result<(), Failure> {
        let Some(current) = self.current.as_mut().filter(|current| !current.is_refused) else {
            return Err(Failure::new(Exit::Refused, "its application was refused"));
        };
        let names = record.names();
        let has_name = |found: &&Value| {
            let own = [found["uid"].as_str(), found["id"].as_str()];
            names.iter().any(|name| own.contains(&Some(name)))
        };
        let found = current.endpoints.iter().find(has_name).cloned();
        let app = current.id.clone().unwrap_or_default();
        if let Some(found) = found {
            let id = found["id"].as_str().unwrap_or_default().to_owned();
            current.seen.insert(id.clone());
            let path = ["app", &app, "endpoint", &id];
            let thing = Thing { record, name, path: &path };
            let access = self.change_access(&thing).await?;
            self.change(&thing, &found, access).await
        } else {
            let mut body = made_of(record);
            body.insert("uid".to_owned(), record.uid().into());
            for field in ["headers", "secret"] {
                body.extend(
                    record.fields.get(field).map(|value| (field.to_owned(), value.clone())),
                );
            }
            if self.choices.disabled {
                body.insert("disabled".to_owned(), true.into());
                // Nothing waits for a disabled one.
                if let Some(Value::Object(delivery)) = body.get_mut("delivery") {
                    delivery.remove("paused");
                }
            }
            let has_secret = body.contains_key("secret");
            let uid = record.uid();
            let path = ["app", &app, "endpoint", &uid];
            let thing = Thing { record, name, path: &path };
            if let Some(id) = self.make(&thing, &["app", &app, "endpoint"], body).await?
                && let Some(current) = &mut self.current
            {
                current.seen.insert(id);
            }
            self.counts.new_secrets += usize::from(!has_secret);
            self.tell_unshown(&thing, None).await
        }
    }

    /// Makes a thing; returns its id, if it has one and it is not a dry run.
    async fn make(
        &mut self,
        thing: &Thing<'_>,
        list: &[&str],
        body: Map<String, Value>,
    ) -> Result<Option<String>, Failure> {
        let kind = thing.record.kind;
        let mut id = None;
        if !self.choices.dry_run {
            let made = self.client.post(list, &body).await?;
            id = made["id"].as_str().map(str::to_owned);
            let part = kind.part();
            if let Some(value) =
                thing.record.fields.get(part.field).filter(|value| **value != json!({}))
            {
                self.client.put(&[thing.path, &[part.path]].concat(), value).await?;
            }
        }
        self.counts.made += 1;
        print(self.output, (Step::Make, kind, thing.name), &[])?;
        Ok(id)
    }

    /// Changes what differs in a thing that is there. `differences` are those that were changed already.
    async fn change(
        &mut self,
        thing: &Thing<'_>,
        found: &Value,
        mut differences: Vec<Difference>,
    ) -> Result<(), Failure> {
        let (record, kind) = (thing.record, thing.record.kind);
        let (body, more) = patch(record, &Record::shown(kind, found));
        differences.extend(more);
        if !body.is_empty() && !self.choices.dry_run {
            self.client.patch(thing.path, &body).await?;
        }
        let part = kind.part();
        if let Some(wanted) = record.fields.get(part.field) {
            let path = [thing.path, &[part.path]].concat();
            let old = without_nulls(self.client.get(&path, &[]).await?);
            if old != *wanted {
                if !self.choices.dry_run {
                    self.client.put(&path, wanted).await?;
                }
                let (field, values) = (part.field.to_owned(), Some((old, wanted.clone())));
                differences.push(Difference { field, values });
            }
        }
        let change = if differences.is_empty() { Step::Leave } else { Step::Change };
        match change {
            Step::Leave => self.counts.left += 1,
            _ => self.counts.changed += 1,
        }
        Ok(print(self.output, (change, kind, thing.name), &differences)?)
    }

    /// Changes the headers and the secret of an endpoint that is there.
    async fn change_access(&mut self, thing: &Thing<'_>) -> Result<Vec<Difference>, Failure> {
        let of = |part| [thing.path, &[part]].concat();
        let fields = &thing.record.fields;
        let mut differences = Vec::new();
        let shown = self.client.get(&of("headers"), &[]).await?;
        if let Some(wanted) = fields.get("headers").map(lower_case) {
            let wanted = wanted.as_object().cloned().unwrap_or_default();
            let old = lower_case(&shown["headers"]);
            let old = old.as_object().cloned().unwrap_or_default();
            let mut set = wanted.clone();
            set.retain(|name, value| old.get(name) != Some(value));
            // Headers that no server shows stay: nobody could bring them back.
            let gone: Vec<&String> =
                old.keys().filter(|name| !wanted.contains_key(*name)).collect();
            let changed = set.keys().chain(gone.iter().copied());
            differences.extend(changed.map(|name| Difference::hidden(format!("headers.{name}"))));
            if !differences.is_empty() && !self.choices.dry_run {
                let body = json!({ "headers": set, "deleteHeaders": gone });
                self.client.patch(&of("headers"), &body).await?;
            }
        }
        if let Some(secret) = fields.get("secret") {
            let old = self.client.get(&of("secret"), &[]).await?;
            if old["key"] != *secret {
                if !self.choices.dry_run {
                    self.client
                        .post(
                            &[thing.path, &["secret", "rotate"]].concat(),
                            &json!({ "key": secret }),
                        )
                        .await?;
                }
                differences.push(Difference::hidden("secret"));
            }
        }
        self.tell_unshown(thing, Some(&shown)).await?;
        Ok(differences)
    }

    /// Tells of the secrets that no server shows, and that the endpoint lacks. `headers` are those of an endpoint that
    /// is there.
    async fn tell_unshown(
        &mut self,
        thing: &Thing<'_>,
        headers: Option<&Value>,
    ) -> Result<(), Failure> {
        let fields = &thing.record.fields;
        let has = |name: &Value| {
            let sensitive = headers.and_then(|headers| headers["sensitive"].as_array());
            let name = name.as_str().unwrap_or_default().to_ascii_lowercase();
            sensitive.is_some_and(|names| names.iter().any(|found| *found == *name))
        };
        let sensitive = fields.get("sensitiveHeaders").and_then(Value::as_array);
        let mut lacks: Vec<String> = (sensitive.into_iter().flatten())
            .filter(|name| !has(name))
            .map(|name| format!("the header {}", name.as_str().unwrap_or_default()))
            .collect();
        if let Some(wanted) = fields.get("oauth") {
            let found = match headers {
                Some(_) => self.client.get(&[thing.path, &["oauth-config"]].concat(), &[]).await?,
                None => Value::Null,
            };
            if without_nulls(found["config"].clone()) != *wanted {
                lacks.push("the OAuth client and its secret".to_owned());
            }
        }
        if fields.get("clientCertificate") == Some(&true.into()) {
            let found = match headers {
                Some(_) => self.client.get(&[thing.path, &["mtls-config"]].concat(), &[]).await?,
                None => Value::Null,
            };
            if found["enabled"] != true {
                lacks.push("the client certificate".to_owned());
            }
        }
        if !lacks.is_empty() {
            self.counts.unfinished += 1;
            self.output.end_progress();
            let (name, lacks) = (thing.name, lacks.join(", "));
            Output::warn(format!("endpoint {name}: set by hand, as no server shows it: {lacks}"));
        }
        Ok(())
    }

    /// Ends the import: removes what no record has, if that is asked for.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        self.end_application().await?;
        if self.choices.prune != Some(Scope::All) {
            return Ok(());
        }
        for app in self.client.list(&["app"], &[], usize::MAX).await? {
            let id = app["id"].as_str().unwrap_or_default();
            if !self.seen.contains(id) {
                let name = app["uid"].as_str().unwrap_or(id);
                self.remove(Kind::Application, name, &["app", id]).await?;
            }
        }
        for event_type in self.client.list(&["event-type"], &[], usize::MAX).await? {
            let name = event_type["name"].as_str().unwrap_or_default();
            if !self.seen.contains(name) {
                self.remove(Kind::EventType, name, &["event-type", name]).await?;
            }
        }
        Ok(())
    }

    /// Removes the endpoints of the application that no record has.
    async fn end_application(&mut self) -> Result<(), Failure> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let Some(app) = current.id.filter(|_| self.choices.prune.is_some()) else { return Ok(()) };
        for endpoint in &current.endpoints {
            let id = endpoint["id"].as_str().unwrap_or_default();
            if !current.seen.contains(id) {
                let name = endpoint["uid"].as_str().unwrap_or(id);
                let name = format!("{}/{name}", current.name);
                self.remove(Kind::Endpoint, &name, &["app", &app, "endpoint", id]).await?;
            }
        }
        Ok(())
    }

    async fn remove(&mut self, kind: Kind, name: &str, path: &[&str]) -> Result<(), Failure> {
        if !self.choices.dry_run {
            self.client.delete(path).await?;
        }
        self.counts.removed += 1;
        Ok(print(self.output, (Step::Remove, kind, name), &[])?)
    }
}

/// Returns the body of the request that makes a thing.
fn made_of(record: &Record) -> Map<String, Value> {
    let fields = record.kind.fields().iter();
    let fields =
        fields.filter_map(|&name| Some((name.to_owned(), record.fields.get(name)?.clone())));
    fields.collect()
}
