//! Schemes of one's own whose signed bytes can be read in one way alone.
#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use webhooks_sign::{
    Algorithm, Envelope, Key, KeyRing, Tolerance,
    scheme::{Part, Scheme, SchemeBuilder, SchemeError, TimestampFormat, TimestampSource},
};

fn scheme(parts: &'static [Part], format: TimestampFormat) -> SchemeBuilder {
    let scheme = Scheme::custom("acme", "acme-signature").parts(parts);
    let scheme = if parts.contains(&Part::Id) { scheme.id("acme-id") } else { scheme };
    if parts.contains(&Part::Timestamp) {
        let source = TimestampSource::Header("acme-time", format);
        scheme.timestamp(source).tolerance(Tolerance::DANGEROUS_UNLIMITED)
    } else {
        scheme
    }
}

/// The texts of the parts in their order, the body's among them; literals have none.
type Split = Vec<(Part, Vec<u8>)>;

/// Returns every way to cut the bytes into these parts.
fn splits(parts: &[Part], bytes: &[u8]) -> Vec<Split> {
    let Some((part, rest)) = parts.split_first() else {
        return if bytes.is_empty() { vec![Vec::new()] } else { Vec::new() };
    };
    if let Part::Literal(text) = part {
        return bytes.strip_prefix(text.as_bytes()).map_or_else(Vec::new, |b| splits(rest, b));
    }
    let cuts = if rest.is_empty() { bytes.len()..=bytes.len() } else { 0..=bytes.len() };
    cuts.flat_map(|cut| {
        let (text, behind) = bytes.split_at(cut);
        splits(rest, behind).into_iter().map(move |mut split| {
            split.insert(0, (*part, text.to_vec()));
            split
        })
    })
    .collect()
}

/// Returns the ways to cut the signed bytes that verify.
fn verified(scheme: &Scheme, parts: &[Part], texts: &[(Part, &str)]) -> Vec<Split> {
    let text = |part| {
        texts.iter().find(|(found, _)| *found == part).map(|(_, text)| *text).unwrap_or_default()
    };
    let (id, timestamp) = (text(Part::Id), text(Part::Timestamp));
    let (method, url) = (text(Part::Method), text(Part::Url));
    let key = Key::from_bytes(Algorithm::HmacSha256, &[7; 32]).unwrap();
    let body = text(Part::Body).as_bytes();
    let envelope = Envelope { id, timestamp, method, url };
    let signature = scheme.sign(&key, &envelope, body).unwrap().to_string();
    let bytes: Vec<u8> = parts
        .iter()
        .flat_map(|part| match part {
            Part::Literal(literal) => literal.as_bytes(),
            part => text(*part).as_bytes(),
        })
        .copied()
        .collect();
    let keys = KeyRing::from(key);
    let mut splits = splits(parts, &bytes);
    splits.retain(|split| {
        let of = |part| split.iter().find(|(found, _)| *found == part);
        let text = |part| of(part).map(|(_, text)| text.as_slice()).unwrap_or_default();
        let (Ok(method), Ok(url)) =
            (str::from_utf8(text(Part::Method)), str::from_utf8(text(Part::Url)))
        else {
            return false;
        };
        let headers = [
            ("acme-signature", signature.as_bytes()),
            ("acme-id", text(Part::Id)),
            ("acme-time", text(Part::Timestamp)),
        ];
        // No server lets through what is no method, and nobody gives a URL with such characters.
        let is_method = method.bytes().all(|b| b.is_ascii_alphanumeric() || b"!|.-".contains(&b));
        let is_url = !url.bytes().any(|b| b" |\n".contains(&b));
        let verifier = scheme.verifier().method(method).url(url);
        is_method && is_url && verifier.verify(&keys, &headers, text(Part::Body), 0).is_ok()
    });
    splits
}

const LITERALS: [&str; 6] = [".", "|", "\n", "a", ":", ""];
const VARIABLES: [Part; 4] = [Part::Id, Part::Timestamp, Part::Method, Part::Url];

/// Returns parts in twos of a variable and a literal, behind the body the other way round, each
/// variable once.
fn any_parts() -> impl Strategy<Value = Vec<Part>> {
    let pair = (select(&VARIABLES[..]), select(&LITERALS[..]).prop_map(Part::Literal));
    (vec(pair, 0..4), 0..4_usize).prop_map(|(mut pairs, at)| {
        let mut seen = Vec::new();
        pairs.retain(|(part, _)| {
            let is_new = !seen.contains(part);
            seen.push(*part);
            is_new
        });
        let (ahead, behind) = pairs.split_at(at.min(pairs.len()));
        let ahead = ahead.iter().flat_map(|(part, literal)| [*part, *literal]);
        let behind = behind.iter().flat_map(|(part, literal)| [*literal, *part]);
        ahead.chain([Part::Body]).chain(behind).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_other_split_of_the_same_bytes_verifies(
        parts in any_parts(),
        is_rfc3339: bool,
        id in "[a0|:-]{1,3}",
        number in "[1-9][0-9]{0,2}",
        fraction in "(\\.[05]{1,2})?(Z|\\+01:00)",
        method in "[A-C|.]{1,2}",
        url in "[a0/:?.]{1,3}",
        body in "[a0.|:\nZ]{0,5}",
    ) {
        let date = format!("2026-01-01T00:00:00{fraction}");
        let (format, timestamp) = if is_rfc3339 {
            (TimestampFormat::Rfc3339, &date)
        } else {
            (TimestampFormat::Seconds, &number)
        };
        let parts: &'static [Part] = parts.leak();
        if let Ok(scheme) = scheme(parts, format).build() {
            let texts = [
                (Part::Id, id.as_str()),
                (Part::Timestamp, timestamp),
                (Part::Method, &method),
                (Part::Url, &url),
                (Part::Body, &body),
            ];
            let splits = verified(&scheme, parts, &texts);
            prop_assert_eq!(splits.len(), 1, "{:?} {:?}", parts, splits);
        }
    }
}

#[test]
fn parts_that_run_into_each_other_are_refused() {
    use Part::{Body, Id, Literal, Method, Timestamp, Url};
    let check = |parts: &'static [Part], expected: bool| {
        let scheme = scheme(parts, TimestampFormat::Seconds);
        let expected = if expected { None } else { Some(SchemeError::Joined) };
        assert_eq!(scheme.build().err(), expected, "{parts:?}");
        assert!(scheme.dangerous_joined_parts().build().is_ok(), "{parts:?}");
    };
    check(&[Body], true);
    check(&[Id, Literal("."), Timestamp, Literal("."), Body], true);
    check(&[Literal("v0:"), Timestamp, Literal(":"), Body], true);
    check(&[Method, Literal("\n"), Url, Literal("\n"), Body, Literal("\n"), Timestamp], true);
    check(&[Id, Body], false);
    check(&[Id, Literal("-"), Body], false);
    check(&[Id, Literal(""), Body], false);
    check(&[Id, Literal(""), Literal("."), Body], false);
    check(&[Url, Body], false);
    check(&[Url, Literal("."), Body], false);
    check(&[Url, Literal("|"), Body], true);
    check(&[Timestamp, Body], false);
    check(&[Timestamp, Literal("0"), Body], false);
    check(&[Id, Timestamp, Literal("."), Body], false);
    check(&[Method, Url, Literal("\n"), Body], false);
    check(&[Body, Timestamp], false);
    check(&[Body, Literal("."), Timestamp], true);
    check(&[Body, Literal("."), Id], true);
    check(&[Body, Literal(".x"), Id], false);
    // A time of RFC 3339 ends by itself, on either side.
    for parts in [&[Timestamp, Body][..], &[Body, Timestamp]] {
        let scheme = scheme(parts, TimestampFormat::Rfc3339);
        assert!(scheme.build().is_ok(), "{parts:?}");
    }
}

/// The example of the review: a captured form gets another id with the start of its body.
#[test]
fn a_joined_id_can_be_changed() {
    let parts = &[Part::Id, Part::Body];
    let scheme = scheme(parts, TimestampFormat::Seconds);
    let scheme = scheme.dangerous_joined_parts().build().unwrap();
    let texts = [(Part::Id, "evt1"), (Part::Body, "amount=5&to=x")];
    let splits = verified(&scheme, parts, &texts);
    let other = [(Part::Id, b"evt".to_vec()), (Part::Body, b"1amount=5&to=x".to_vec())];
    assert!(splits.contains(&other.to_vec()), "{splits:?}");
}

#[test]
fn each_header_has_a_name_and_carries_one_thing() {
    let parts = &[Part::Id, Part::Literal("."), Part::Timestamp, Part::Literal("."), Part::Body];
    let check = |signature, id, time, expected: bool| {
        let source = TimestampSource::Header(time, TimestampFormat::Seconds);
        let scheme = Scheme::custom("acme", signature).id(id).timestamp(source).parts(parts);
        let expected = if expected { None } else { Some(SchemeError::Header) };
        assert_eq!(scheme.build().err(), expected, "{signature} {id} {time}");
    };
    check("Acme-Signature", "Acme-Id", "Acme-Time", true);
    for invalid in ["", "Acme Id", "Acme-Id:", "Acmé", "Acme\n"] {
        check(invalid, "Acme-Id", "Acme-Time", false);
        check("Acme-Signature", invalid, "Acme-Time", false);
        check("Acme-Signature", "Acme-Id", invalid, false);
    }
    check("Acme-Signature", "acme-signature", "Acme-Time", false);
    check("Acme-Signature", "Acme-Id", "acme-id", false);
    check("Acme-Signature", "Acme-Id", "ACME-SIGNATURE", false);
}
