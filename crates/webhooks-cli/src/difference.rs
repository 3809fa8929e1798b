//! The differences between what a record wants and what a server has, and their form for people and programs.

use serde_json::{Map, Value, json};

use crate::output::Output;
use crate::record::{Kind, Record};
use crate::visible::visible;

/// The steps of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Make,
    Change,
    Leave,
    Remove,
}

impl Step {
    fn sign(self) -> char {
        match self {
            Self::Make => '+',
            Self::Change => '~',
            Self::Leave => '=',
            Self::Remove => '-',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Change => "change",
            Self::Leave => "leave",
            Self::Remove => "remove",
        }
    }
}

/// A field that differs.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) field: String,
    /// The old and the new value, unless they are secret.
    pub(crate) values: Option<(Value, Value)>,
}

impl Difference {
    /// Returns the difference of a secret.
    pub(crate) fn hidden(field: impl Into<String>) -> Self {
        Self { field: field.into(), values: None }
    }

    fn new(field: &str, old: &Value, new: &Value) -> Self {
        Self { field: field.to_owned(), values: Some((shown(field, old), shown(field, new))) }
    }
}

/// Returns the body of a request that changes the fields in which a record differs from what a server has.
pub(crate) fn patch(record: &Record, found: &Record) -> (Map<String, Value>, Vec<Difference>) {
    let (mut body, mut differences) = (Map::new(), Vec::new());
    for &field in record.kind.fields() {
        let Some(new) = record.wanted(field) else { continue };
        let old = found.fields.get(field).unwrap_or(&Value::Null);
        if field == "delivery" {
            let (changed, more) = patch_delivery(&new, old);
            if !changed.is_empty() {
                body.insert(field.to_owned(), changed.into());
            }
            differences.extend(more);
        } else if new != *old {
            differences.push(Difference::new(field, old, &new));
            body.insert(field.to_owned(), new);
        }
    }
    (body, differences)
}

fn patch_delivery(new: &Value, old: &Value) -> (Map<String, Value>, Vec<Difference>) {
    let mut wanted = new.as_object().cloned().unwrap_or_default();
    // Without a schedule, that of the event type or the service counts.
    wanted.entry("retrySchedule").or_insert(Value::Null);
    wanted.retain(|field, value| *value != old[field]);
    let difference = |(field, value): (&String, &Value)| {
        Difference::new(&format!("delivery.{field}"), &old[field], value)
    };
    let differences = wanted.iter().map(difference).collect();
    (wanted, differences)
}

/// Prints what is done with a thing.
pub(crate) fn print(
    output: Output,
    (step, kind, name): (Step, Kind, &str),
    differences: &[Difference],
) -> std::io::Result<()> {
    output.end_progress();
    if output.is_json() {
        let fields = differences.iter().map(|difference| {
            let values = difference.values.as_ref();
            let values =
                values.map_or_else(|| json!({}), |(old, new)| json!({ "from": old, "to": new }));
            (difference.field.clone(), values)
        });
        let fields: Map<String, Value> = fields.collect();
        let kind = kind.to_string();
        return output
            .json(&json!({ "change": step.word(), "kind": kind, "name": name, "fields": fields }));
    }
    let text = |difference: &Difference| match &difference.values {
        Some((old, new)) => format!("{} {old} -> {new}", difference.field),
        None => difference.field.clone(),
    };
    let texts: Vec<String> = differences.iter().map(text).collect();
    let colon = if texts.is_empty() { "" } else { ": " };
    let line = format!("{} {kind} {name}{colon}{}", step.sign(), texts.join(", "));
    // A stranger may have stored control characters.
    output.line(visible(&line))
}

/// Returns what may be shown of a value: the query of a URL often has a token.
fn shown(field: &str, value: &Value) -> Value {
    let place = value.as_str().filter(|_| field == "url").and_then(|url| url.split_once('?'));
    place.map_or_else(|| value.clone(), |(place, _)| format!("{place}?...").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &Value) -> Record {
        Record::shown(Kind::Endpoint, fields)
    }

    #[test]
    fn absent_fields_stay_or_are_cleared() {
        let found = json!({ "url": "https://a.test/?t=secret", "eventTypes": ["a"], "metadata": {"a": "b"},
                            "delivery": { "ordered": true, "timeoutSecs": 3, "retrySchedule": [1] } });
        let wanted = json!({ "url": "https://a.test/?t=other", "delivery": { "ordered": false } });
        let (body, differences) = patch(&record(&wanted), &record(&found));
        let expected = json!({ "url": "https://a.test/?t=other", "eventTypes": null,
                               "delivery": { "ordered": false, "retrySchedule": null } });
        assert_eq!(Value::from(body), expected);
        assert!(!format!("{differences:?}").contains("t="));
    }

    #[test]
    fn equal_records_have_no_difference() {
        let found = json!({ "url": "https://a.test/", "delivery": { "timeoutSecs": 3 } });
        assert_eq!(patch(&record(&found), &record(&found)), (Map::new(), Vec::new()));
    }
}
