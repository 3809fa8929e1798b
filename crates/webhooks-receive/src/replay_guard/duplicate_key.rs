//! The key that all attempts of one event share: a signed id, fields of the body, or its hash.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::webhook::Webhook;

/// The part of a webhook by which its duplicates are found.
#[derive(Clone)]
pub(super) enum DuplicateKey {
    SignedId,
    /// JSON pointers (RFC 6901), with `*` for each item of an array.
    Fields(Arc<[Box<str>]>),
    BodyHash,
}

impl DuplicateKey {
    pub(super) fn fields(pointers: &[&str]) -> Self {
        Self::Fields(pointers.iter().copied().map(Box::from).collect())
    }

    /// Returns the key of a webhook; `None` if it has no signed id and no body.
    pub(super) fn of<'w>(&self, webhook: &'w Webhook) -> Option<Cow<'w, str>> {
        let of_fields = match self {
            Self::SignedId => return webhook.id().map(Cow::Borrowed),
            Self::Fields(pointers) => hash_of_fields(webhook.body(), pointers),
            Self::BodyHash => None,
        };
        // A body that lacks one of the fields, such as the test of a new webhook, is hashed as a whole.
        of_fields.or_else(|| hash_of(webhook)).map(Cow::Owned)
    }
}

/// Returns a hash of the signed part of a body. That of a form does not depend on how it is encoded.
fn hash_of(webhook: &Webhook) -> Option<String> {
    let (body, mut hash) = (webhook.body(), Sha256::new());
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    let Some(form) = webhook.form() else {
        return (!body.is_empty()).then(|| hex("sha256", Sha256::digest(body).as_slice()));
    };
    let query = form.query.as_deref().unwrap_or_default();
    if body.is_empty() && query.is_empty() {
        return None;
    }
    part(query.as_bytes());
    if form.is_body {
        let mut fields: Vec<_> = form_urlencoded::parse(body).collect();
        fields.sort_unstable();
        fields.dedup();
        for (name, value) in &fields {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    } else {
        part(body);
    }
    Some(hex("form", hash.finalize().as_slice()))
}

/// Returns a hash of these fields, if all of them are there.
fn hash_of_fields(body: &[u8], pointers: &[Box<str>]) -> Option<String> {
    let json = str::from_utf8(body).ok()?;
    let mut hash = Sha256::new();
    for (pointer, number) in pointers.iter().zip(0_u64..) {
        each_value(json, pointer.strip_prefix('/')?, &mut |value| {
            // The number of the field and the length of the value are hashed too, so that no two lists
            // of values are the same bytes.
            hash.update(number.to_be_bytes());
            hash.update(value.len().to_be_bytes());
            hash.update(value);
        })?;
    }
    Some(hex("fields", hash.finalize().as_slice()))
}

fn hex(kind: &str, hash: &[u8]) -> String {
    format!("{kind}:{:x}", Bytes::copy_from_slice(hash))
}

/// Calls `show` with each value at a pointer, whose first `/` was removed; returns `None` if one is
/// missing or null. It parses the text once per part of the pointer, and copies only its keys.
fn each_value<'j>(json: &'j str, pointer: &str, show: &mut impl FnMut(&'j str)) -> Option<()> {
    let (part, rest) = match pointer.split_once('/') {
        Some((part, rest)) => (part, Some(rest)),
        None => (pointer, None),
    };
    let mut go_on = |value: &'j RawValue| match (rest, value.get()) {
        (_, "null") => None,
        (Some(rest), value) => each_value(value, rest, show),
        (None, value) => {
            show(value);
            Some(())
        }
    };
    if json.trim_ascii_start().starts_with('[') {
        let items = serde_json::from_str::<Vec<&RawValue>>(json).ok()?;
        if part == "*" {
            items.first()?;
            items.into_iter().try_for_each(go_on)
        } else {
            go_on(items.get(part.parse::<usize>().ok()?)?)
        }
    } else {
        let fields = serde_json::from_str::<HashMap<String, &RawValue>>(json).ok()?;
        go_on(fields.get(&part.replace("~1", "/").replace("~0", "~"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(body: &str, pointers: &[&str]) -> Option<String> {
        let DuplicateKey::Fields(pointers) = DuplicateKey::fields(pointers) else { unreachable!() };
        hash_of_fields(body.as_bytes(), &pointers)
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
        check(r#"[{"id":1},{"id":2}]"#, r#"[{"id":12}]"#, &["/*/id"], false);
        check(r#"[{"id":1,"at":2}]"#, r#"[{"id":2,"at":1}]"#, each, false);
        check(r#"[{"id":1}]"#, r#"[{"id":2}]"#, &["/0/id"], false);
        check("[[7],0]", "[[7],1]", &["/0/0"], true);
    }

    #[test]
    fn without_the_fields_there_is_no_name() {
        for body in ["", "{}", "[]", "1", "payload=1", r#"{"id":null}"#, r#"{"id":"#, "\u{0}"] {
            assert_eq!(name(body, &["/id"]), None, "{body}");
        }
        assert_eq!(name(r#"{"a":1}"#, &["/a/b/c"]), None);
        // One of two may be what all events have.
        assert_eq!(name(r#"{"type":"ping"}"#, &["/id", "/type"]), None);
        assert_eq!(name(r#"[{"id":1},{"n":2}]"#, &["/*/id"]), None);
    }
}
