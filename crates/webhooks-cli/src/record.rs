//! Event types, applications and endpoints, as `export` writes and `import` reads them.

use std::fmt;

use serde_json::{Map, Value};
use webhooks_admin::{IdKind, check_name};

use crate::failure::{Exit, Failure};

/// The start of the uid of a thing that had an id of a service like this one and no uid. A service refuses ids of
/// its own form as uids.
const IMPORTED: &str = "imported.";

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    EventType,
    Application,
    Endpoint,
}

/// A part of a record that has a path of its own in the API. It is read and written in the same form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) field: &'static str,
    pub(crate) path: &'static str,
}

/// The fields by which a record is found.
const NAMES: [&str; 3] = ["id", "name", "uid"];

/// The fields whose absence means that there is none, or everything.
const CLEARED: [&str; 6] =
    ["channels", "eventTypes", "featureFlag", "groupName", "schemas", "throttleRate"];

/// The fields of an endpoint that have a way of their own in the API.
const ACCESS: [&str; 5] = ["clientCertificate", "headers", "oauth", "secret", "sensitiveHeaders"];

impl Kind {
    /// Returns the fields that the API makes and changes.
    pub(crate) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::EventType => &[
                "archived",
                "deprecated",
                "description",
                "featureFlag",
                "groupName",
                "schemaEnforcement",
                "schemas",
            ],
            Self::Application => &["metadata", "name", "throttleRate"],
            Self::Endpoint => &[
                "channels",
                "delivery",
                "description",
                "disabled",
                "eventTypes",
                "metadata",
                "throttleRate",
                "url",
            ],
        }
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Self::EventType => Part { field: "retry", path: "retry-schedule" },
            Self::Application => Part { field: "limits", path: "limits" },
            Self::Endpoint => Part { field: "ca", path: "ca" },
        }
    }

    fn knows(self, field: &str) -> bool {
        let is_access = self == Self::Endpoint && ACCESS.contains(&field);
        is_access
            || NAMES.contains(&field)
            || field == self.part().field
            || self.fields().contains(&field)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventType => "event type",
            Self::Application => "application",
            Self::Endpoint => "endpoint",
        })
    }
}

/// An event type, an application or an endpoint.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) fields: Map<String, Value>,
}

impl Record {
    /// Returns the record of what a server shows. Fields that no server is told are left out.
    pub(crate) fn shown(kind: Kind, shown: &Value) -> Self {
        let fields = shown.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, value)| kind.knows(name) && !value.is_null());
        let mut fields: Map<String, Value> =
            fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        // The names that older servers of Svix have for them.
        for (old, new) in [("filterTypes", "eventTypes"), ("rateLimit", "throttleRate")] {
            if kind.fields().contains(&new) && !fields.contains_key(new) && !shown[old].is_null() {
                fields.insert(new.to_owned(), shown[old].clone());
            }
        }
        Self { kind, fields }
    }

    /// Returns the record of a file, whose fields must all be known.
    pub(crate) fn written(kind: Kind, fields: Map<String, Value>) -> Result<Self, Failure> {
        let record = Self { kind, fields };
        if let Some(field) = record.fields.keys().find(|field| !kind.knows(field)) {
            let name = record.name();
            let text = format!("{kind} {name:?} of the file has an unknown field {field:?}");
            return Err(Failure::new(Exit::Refused, text));
        }
        Ok(record)
    }

    /// Returns the uid, or the id of what has none. An event type has a name.
    pub(crate) fn name(&self) -> &str {
        let text = |field| self.fields.get(field).and_then(Value::as_str);
        match self.kind {
            Kind::EventType => text("name").unwrap_or_default(),
            Kind::Application | Kind::Endpoint => {
                text("uid").or_else(|| text("id")).unwrap_or_default()
            }
        }
    }

    /// Checks that the name can be a part of a path.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let name = self.name();
        let refused = |why: String| {
            Failure::new(Exit::Refused, format!("{} {name:?} has no usable name: {why}", self.kind))
        };
        check_name("uid", name).map_err(|error| refused(error.reason))?;
        match name {
            "." | ".." => Err(refused("it would lead to another path".to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns the names under which the thing may exist in another service: its own first.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = self.name();
        let other = match name.strip_prefix(IMPORTED) {
            Some(id) => id.to_owned(),
            None => format!("{IMPORTED}{name}"),
        };
        match self.kind {
            Kind::EventType => vec![name.to_owned()],
            Kind::Application | Kind::Endpoint => vec![name.to_owned(), other],
        }
    }

    /// Returns the uid with which the thing is made.
    pub(crate) fn uid(&self) -> String {
        let kind = if self.kind == Kind::Endpoint { IdKind::Endpoint } else { IdKind::Application };
        let name = self.name();
        if kind.number(name).is_ok() { format!("{IMPORTED}{name}") } else { name.to_owned() }
    }

    /// Returns the value that a field is to have: `None` if it is to stay.
    pub(crate) fn wanted(&self, field: &str) -> Option<Value> {
        let value = self.fields.get(field).cloned();
        value.or_else(|| CLEARED.contains(&field).then_some(Value::Null))
    }
}

/// Returns a value without the fields that are `null`.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(fields: &Value) -> Record {
        Record::shown(Kind::Endpoint, fields)
    }

    #[test]
    fn a_thing_without_a_uid_is_found_again_in_both_directions() {
        let id = IdKind::Endpoint.generate();
        let there = endpoint(&json!({ "id": id })).uid();
        assert_eq!(there, format!("imported.{id}"));
        assert!(endpoint(&json!({ "id": id })).names().contains(&there));
        assert!(endpoint(&json!({ "uid": there })).names().contains(&id));
        // Ids of Svix can be uids.
        assert_eq!(endpoint(&json!({ "id": "ep_2Kf" })).uid(), "ep_2Kf");
    }

    #[test]
    fn a_name_that_leads_to_another_path_is_refused() {
        for name in [".", "..", "a/b", ""] {
            endpoint(&json!({ "uid": name })).check().unwrap_err();
        }
        endpoint(&json!({ "uid": "a.b" })).check().unwrap();
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let fields = json!({ "uid": "crm", "evenTypes": [] });
        let error = Record::written(Kind::Endpoint, fields.as_object().unwrap().clone());
        assert!(error.unwrap_err().to_string().contains("evenTypes"));
    }

    #[test]
    fn old_names_of_fields_are_known() {
        let record = endpoint(&json!({ "filterTypes": ["a"], "rateLimit": 3, "version": 1 }));
        assert_eq!(Value::from(record.fields), json!({ "eventTypes": ["a"], "throttleRate": 3 }));
    }
}
