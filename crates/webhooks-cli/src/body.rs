//! Bodies of requests, made of the options that were given, and of answers.

use serde_json::{Map, Value, json};

/// Adds a field if there is a value.
pub(crate) fn add(body: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

/// Adds a list of texts if it has any.
pub(crate) fn add_list(body: &mut Map<String, Value>, name: &str, values: &[String]) {
    if !values.is_empty() {
        body.insert(name.to_owned(), json!(values));
    }
}

/// Reads `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns pairs as a JSON object.
pub(crate) fn object(pairs: Vec<(String, String)>) -> Value {
    pairs
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// Names the status of deliveries as lists do: the API shows one that will be tried again as `fail` among the
/// endpoints of a message.
pub(crate) fn name_statuses(deliveries: &mut [Value]) {
    for delivery in deliveries {
        if delivery["statusText"] == "fail" && !delivery["nextAttempt"].is_null() {
            (delivery["status"], delivery["statusText"]) = (json!(3), json!("sending"));
        }
    }
}

/// Returns whether a delivery waits for its first attempt or for another one.
pub(crate) fn waits(delivery: &Value) -> bool {
    matches!(delivery["statusText"].as_str(), Some("pending" | "sending"))
}

/// Returns the id by which people know a thing: their own if it has one.
pub(crate) fn name_of(thing: &Value) -> &str {
    let own = thing["uid"].as_str();
    own.or_else(|| thing["id"].as_str()).unwrap_or_default()
}
