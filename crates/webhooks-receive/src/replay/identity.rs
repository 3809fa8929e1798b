//! What two attempts of one event have in common: an id that is signed, fields of the body, or all of
//! it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::Webhook;

/// What tells an event from others.
#[derive(Clone)]
pub(super) enum Identity {
    SignedId,
    /// JSON pointers (RFC 6901), with `*` for each item of an array.
    Fields(Arc<[Box<str>]>),
    BodyHash,
}

impl Identity {
    pub(super) fn fields(pointers: &[&str]) -> Self {
        Self::Fields(pointers.iter().copied().map(Box::from).collect())
    }

    /// Returns the name of a webhook's event; `None` if the id that should be signed is not there.
    pub(super) fn of<'w>(&self, webhook: &'w Webhook) -> Option<Cow<'w, str>> {
        let hash = || hex("sha256", Sha256::digest(webhook.body()).as_slice());
        match self {
            Self::SignedId => webhook.id().map(Cow::Borrowed),
            // Of what has none of the fields, such as the test of a new webhook, all is the same.
            Self::Fields(pointers) => {
                Some(named(webhook.body(), pointers).unwrap_or_else(hash).into())
            }
            Self::BodyHash => Some(hash().into()),
        }
    }
}

/// Returns the name of the event whose id is in these fields, if they are there.
fn named(body: &[u8], pointers: &[Box<str>]) -> Option<String> {
    let json = str::from_utf8(body).ok()?;
    let (mut found, mut hash) = (false, Sha256::new());
    for (pointer, number) in pointers.iter().zip(0_u64..) {
        each_value(json, pointer.strip_prefix('/')?, &mut |value| {
            let value = value.trim_ascii();
            if value == "null" {
                return;
            }
            found = true;
            // Which field and how long, so that no two lists of values are the same bytes.
            hash.update(number.to_be_bytes());
            hash.update(value.len().to_be_bytes());
            hash.update(value);
        });
    }
    found.then(|| hex("fields", hash.finalize().as_slice()))
}

fn hex(kind: &str, hash: &[u8]) -> String {
    format!("{kind}:{:x}", Bytes::copy_from_slice(hash))
}

/// Shows each value at a pointer, whose first `/` was taken off. The text is gone over once for each
/// part of the pointer, and nothing of it is copied but keys.
fn each_value<'j>(json: &'j str, pointer: &str, show: &mut impl FnMut(&'j str)) {
    let (part, rest) = match pointer.split_once('/') {
        Some((part, rest)) => (part, Some(rest)),
        None => (pointer, None),
    };
    let mut go_on = |value: &'j RawValue| match rest {
        Some(rest) => each_value(value.get(), rest, show),
        None => show(value.get()),
    };
    if json.trim_ascii_start().starts_with('[') {
        let items = serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default();
        if part == "*" {
            items.into_iter().for_each(go_on);
        } else if let Some(item) = part.parse().ok().and_then(|index: usize| items.get(index)) {
            go_on(item);
        }
    } else if let Ok(fields) = serde_json::from_str::<HashMap<String, &RawValue>>(json)
        && let Some(value) = fields.get(&part.replace("~1", "/").replace("~0", "~"))
    {
        go_on(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(body: &str, pointers: &[&str]) -> Option<String> {
        let Identity::Fields(pointers) = Identity::fields(pointers) else { unreachable!() };
        named(body.as_bytes(), &pointers)
    }

    #[test]
    fn an_event_is_named_by_its_fields_alone() {
        let check = |one: &str, other: &str, pointers: &[&str], is_same: bool| {
            let names = [one, other].map(|body| name(body, pointers));
            assert!(names.iter().all(Option::is_some), "{one} {other}");
            assert_eq!(names[0] == names[1], is_same, "{one} {other}");
        };
        check(r#"{"id":"1","try":0}"#, r#"{ "try": 1, "id": "1" }"#, &["/id"], true);
        check(r#"{"id":"1"}"#, r#"{"id":"2"}"#, &["/id"], false);
        check(r#"{"a":{"id":1},"b":0}"#, r#"{"a":{"id":1}}"#, &["/a/id"], true);
        check(r#"{"a/b":1,"x":0}"#, r#"{"a/b":1}"#, &["/a~1b"], true);
        let each: &[&str] = &["/*/id", "/*/at"];
        check(r#"[{"id":1,"at":2,"n":0}]"#, r#"[{"id":1,"at":2,"n":1}]"#, each, true);
        check(r#"[{"id":1},{"id":2}]"#, r#"[{"id":12}]"#, each, false);
        check(r#"[{"id":1,"at":2}]"#, r#"[{"id":2,"at":1}]"#, each, false);
        check(r#"[{"id":1}]"#, r#"[{"at":1}]"#, each, false);
        check("[[7],0]", "[[7],1]", &["/0/0"], true);
    }

    #[test]
    fn without_the_fields_there_is_no_name() {
        for body in ["", "{}", "[]", "1", "payload=1", r#"{"id":null}"#, r#"{"id":"#, "\u{0}"] {
            assert_eq!(name(body, &["/id"]), None, "{body}");
        }
        assert_eq!(name(r#"{"a":1}"#, &["/a/b/c"]), None);
    }
}
