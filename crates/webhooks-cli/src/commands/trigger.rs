//! `trigger`: an example of an event type, published.

use clap::Args;
use serde_json::{Value, json};

use super::follow::Follow;
use super::publish::COLUMNS;
use crate::application_option::ApplicationOption;
use crate::body::pair;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Publish the example of an event type, which its schema has
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks trigger invoice.paid --app acme
  webhooks trigger invoice.paid --set total=5 --set customer.name=Ada --app acme --wait")]
pub(crate) struct TriggerArgs {
    /// Event type, such as invoice.paid
    #[arg(value_name = "TYPE")]
    event_type: String,
    #[command(flatten)]
    app: ApplicationOption,
    /// Field of the payload to set; the value is JSON, or a text; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    fields: Vec<(String, String)>,
    #[command(flatten)]
    follow: Follow,
}

pub(crate) async fn run(args: TriggerArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let app = args.app.find(&client).await?;
    let name = args.event_type;
    let found = client.get(&["event-type", &name], &[]).await?;
    let mut payload = example(&found).ok_or_else(|| {
        Failure::new(Exit::Refused, format!("event type {name} has no example"))
            .hint("add `examples` to its schema, or use `webhooks publish`")
    })?;
    for (field, text) in &args.fields {
        set(&mut payload, field, value(text))?;
    }
    let body = json!({ "eventType": name, "payload": payload });
    let accepted = client.post(&["app", &app, "msg"], &body).await?;
    context.output.thing(&COLUMNS, &accepted)?;
    args.follow.run(&client, context, &app, &accepted).await
}

/// Returns the first example of the newest schema that has one.
fn example(event_type: &Value) -> Option<Value> {
    let mut schemas: Vec<_> = event_type["schemas"].as_object()?.iter().collect();
    schemas.sort_by_key(|(version, _)| version.parse::<u64>().unwrap_or_default());
    let mut examples = schemas.into_iter().rev().map(|(_, schema)| {
        let first = schema.pointer("/examples/0");
        first.or_else(|| schema.get("example")).cloned()
    });
    examples.find_map(|example| example)
}

/// Reads a value: JSON, or a text that is none.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_no_json| text.into())
}

/// Sets a field, whose name has dots between its parts.
fn set(payload: &mut Value, field: &str, value: Value) -> Result<(), Failure> {
    if field.split('.').any(str::is_empty) {
        return Err(Failure::usage(format!("--set {field}=…: a part of the name is empty")));
    }
    let mut place = payload;
    for part in field.split('.') {
        place = match place {
            Value::Object(fields) => fields.entry(part).or_insert_with(|| json!({})),
            Value::Array(items) => {
                let item = part.parse::<usize>().ok().and_then(|index| items.get_mut(index));
                item.ok_or_else(|| {
                    Failure::usage(format!("--set {field}: there is no item {part}"))
                })?
            }
            _ => {
                return Err(Failure::usage(format!(
                    "--set {field}: what {part} is in is no object"
                )));
            }
        };
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(field: &str, text: &str) -> Value {
        let mut payload = json!({ "total": 1, "lines": [{ "n": 1 }] });
        set(&mut payload, field, value(text)).map_or(Value::Null, |()| payload)
    }

    #[test]
    fn fields_are_set_at_their_place() {
        assert_eq!(changed("total", "5"), json!({ "total": 5, "lines": [{ "n": 1 }] }));
        assert_eq!(changed("lines.0.n", "two"), json!({ "total": 1, "lines": [{ "n": "two" }] }));
        assert_eq!(changed("a.b", "true")["a"], json!({ "b": true }));
        for wrong in ["lines.7", "total.x", "", "a..b"] {
            assert_eq!(changed(wrong, "1"), Value::Null);
        }
    }

    #[test]
    fn the_newest_schema_gives_the_example() {
        let schema = |number: u8| json!({ "examples": [{ "n": number }] });
        let event_type = json!({ "schemas": { "2": schema(2), "10": schema(10), "11": {} } });
        assert_eq!(example(&event_type), Some(json!({ "n": 10 })));
        assert_eq!(example(&json!({ "schemas": {} })), None);
    }
}
