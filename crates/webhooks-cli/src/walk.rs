//! Reading all that a server has, page by page.

use serde_json::{Map, Value};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::record::{Kind, Record, without_nulls};

/// The kinds of servers that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A service like this one.
    Own,
    /// A server of Svix, hosted or not.
    Svix,
}

/// A server that is read.
#[derive(Debug)]
pub(crate) struct Walk<'c> {
    pub(crate) client: &'c Client,
    pub(crate) output: Output,
    pub(crate) dialect: Dialect,
    /// Whether the secrets of endpoints are read.
    pub(crate) has_secrets: bool,
    count: usize,
}

impl<'c> Walk<'c> {
    pub(crate) fn new(
        client: &'c Client,
        output: Output,
        dialect: Dialect,
        has_secrets: bool,
    ) -> Self {
        Self { client, output, dialect, has_secrets, count: 0 }
    }

    /// Visits the event types, and each application with its endpoints after it.
    pub(crate) async fn all(
        &mut self,
        mut visit: impl AsyncFnMut(Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let query = ["include_archived", "with_content"].map(|name| (name, "true".to_owned()));
        let mut iterator = None;
        loop {
            let (page, next) = self.client.page(&["event-type"], &query, iterator).await?;
            for shown in page {
                let mut record = Record::shown(Kind::EventType, &shown);
                let name = record.name().to_owned();
                self.add_part(&mut record, &["event-type", &name]).await?;
                self.progress();
                visit(record).await?;
            }
            iterator = next;
            if iterator.is_none() {
                break;
            }
        }
        loop {
            let (page, next) = self.client.page(&["app"], &[], iterator).await?;
            for shown in page {
                self.of_application(&shown, &mut visit).await?;
            }
            iterator = next;
            if iterator.is_none() {
                break;
            }
        }
        self.output.end_progress();
        Ok(())
    }

    /// Visits one application, and its endpoints after it.
    pub(crate) async fn application(
        &mut self,
        app: &str,
        mut visit: impl AsyncFnMut(Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let shown = self.client.get(&["app", app], &[]).await?;
        self.of_application(&shown, &mut visit).await?;
        self.output.end_progress();
        Ok(())
    }

    async fn of_application(
        &mut self,
        shown: &Value,
        visit: &mut impl AsyncFnMut(Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let app = id(shown)?;
        let mut record = Record::shown(Kind::Application, shown);
        self.add_part(&mut record, &["app", app]).await?;
        self.progress();
        visit(record).await?;
        let mut iterator = None;
        loop {
            let (page, next) = self.client.page(&["app", app, "endpoint"], &[], iterator).await?;
            for shown in page {
                let endpoint = id(&shown)?;
                let mut record = Record::shown(Kind::Endpoint, &shown);
                let path = ["app", app, "endpoint", endpoint];
                self.add_part(&mut record, &path).await?;
                self.add_access(&mut record, &path).await?;
                self.progress();
                visit(record).await?;
            }
            iterator = next;
            if iterator.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the part of a record that has a path of its own.
    async fn add_part(&self, record: &mut Record, path: &[&str]) -> Result<(), Failure> {
        if self.dialect == Dialect::Own {
            let part = record.kind.part();
            let found = self.client.get(&[path, &[part.path]].concat(), &[]).await?;
            record.fields.insert(part.field.to_owned(), without_nulls(found));
        }
        Ok(())
    }

    /// Reads the headers of an endpoint, its secret if it is asked for, and the facts about further secrets, which no
    /// server shows.
    async fn add_access(&self, record: &mut Record, path: &[&str]) -> Result<(), Failure> {
        let of = |part| [path, &[part]].concat();
        let fields = &mut record.fields;
        let headers = self.client.get(&of("headers"), &[]).await?;
        fields.insert("headers".to_owned(), lower_case(&headers["headers"]));
        if headers["sensitive"].as_array().is_some_and(|names| !names.is_empty()) {
            fields.insert("sensitiveHeaders".to_owned(), headers["sensitive"].clone());
        }
        if self.has_secrets {
            let secret = self.client.get(&of("secret"), &[]).await?;
            fields.insert("secret".to_owned(), secret["key"].clone());
        }
        if self.dialect == Dialect::Own {
            let oauth = self.client.get(&of("oauth-config"), &[]).await?;
            if oauth["enabled"] == true {
                fields.insert("oauth".to_owned(), without_nulls(oauth["config"].clone()));
            }
            let certificate = self.client.get(&of("mtls-config"), &[]).await?;
            if certificate["enabled"] == true {
                fields.insert("clientCertificate".to_owned(), true.into());
            }
        }
        Ok(())
    }

    fn progress(&mut self) {
        self.count += 1;
        self.output.progress(format!("{} read", self.count));
    }
}

/// Returns headers with their names in lower case, in which names are compared.
pub(crate) fn lower_case(headers: &Value) -> Value {
    let headers = headers.as_object().into_iter().flatten();
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    headers.collect::<Map<_, _>>().into()
}

/// Returns the id of what a server shows.
fn id(shown: &Value) -> Result<&str, Failure> {
    let id = shown["id"].as_str().filter(|id| !matches!(*id, "" | "." | ".."));
    id.ok_or_else(|| Failure::new(Exit::Failed, "the server showed a thing without an id"))
}
