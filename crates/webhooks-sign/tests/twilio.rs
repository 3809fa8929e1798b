//! Twilio's vectors, of `vectors/providers.json`: forms, and bodies by their hash in the URL.
#![cfg(feature = "sha1")]
#![expect(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use webhooks_sign::providers::twilio::{self, TWILIO};
use webhooks_sign::{Error, KeyRing};

/// Returns the vectors with and without a hash in the URL.
fn vectors() -> (Vec<Value>, Vec<Value>) {
    let vectors: Value = serde_json::from_str(include_str!("vectors/providers.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_value(vectors["vectors"].clone()).unwrap();
    let ours = vectors.into_iter().filter(|vector| vector["provider"] == "twilio");
    ours.partition(|vector| vector["url"].as_str().unwrap().contains("bodySHA256"))
}

fn keys(vector: &Value) -> KeyRing<1> {
    KeyRing::from(TWILIO.key(vector["key"]["utf8"].as_str().unwrap()).unwrap())
}

fn headers(vector: &Value) -> Vec<(String, String)> {
    serde_json::from_value(vector["headers"].clone()).unwrap()
}

#[test]
fn a_form_is_verified_in_whatever_order_its_fields_come() {
    let (_, forms) = vectors();
    assert_eq!(forms.len(), 2);
    for vector in &forms {
        let (keys, headers) = (keys(vector), headers(vector));
        let url = vector["url"].as_str().unwrap();
        let form: Vec<(String, String)> = serde_json::from_value(vector["form"].clone()).unwrap();
        let sorted: Vec<(&str, &str)> = form.iter().map(|(k, v)| (&**k, &**v)).collect();
        let verify = |fields: &mut [(&str, &str)]| {
            twilio::verify_form(&keys, &headers[..], url, fields).map(drop)
        };
        let mut fields: Vec<_> = sorted.iter().copied().rev().collect();
        assert_eq!(verify(&mut fields), Ok(()), "{vector}");
        assert_eq!(fields, sorted);
        fields.push(sorted[0]);
        assert_eq!(verify(&mut fields), Ok(()), "a field that comes twice counts once");
        fields[0].1 = "changed";
        assert_eq!(verify(&mut fields), Err(Error::NoMatch), "{vector}");
    }
}

#[test]
fn a_request_without_its_header_costs_no_sorting() {
    let keys = KeyRing::from(TWILIO.key("12345").unwrap());
    let mut fields = [("b", ""), ("a", "")];
    let headers: [(&str, &str); 0] = [];
    let verified = twilio::verify_form(&keys, &headers, "https://example.com/", &mut fields);
    assert_eq!(verified, Err(Error::MissingHeader { header: "x-twilio-signature" }));
    assert_eq!(fields, [("b", ""), ("a", "")]);
}

#[test]
fn a_body_is_verified_by_its_hash_in_the_url() {
    let (bodies, _) = vectors();
    assert_eq!(bodies.len(), 1);
    for vector in &bodies {
        let (keys, headers) = (keys(vector), headers(vector));
        let (url, body) = (vector["url"].as_str().unwrap(), vector["body"].as_str().unwrap());
        let verify =
            |body: &str| twilio::verify_body(&keys, &headers[..], url, body.as_bytes()).map(drop);
        assert_eq!(verify(body), Ok(()), "{vector}");
        assert_eq!(verify("{}"), Err(Error::NoMatch), "{vector}");
    }
}

/// The signature then covers the URL alone.
#[test]
fn a_url_without_the_hash_of_the_body_is_refused() {
    let key = TWILIO.key("12345").unwrap();
    let url = "https://example.com/?foo=1";
    let envelope = webhooks_sign::Envelope { url, ..webhooks_sign::Envelope::default() };
    let signature = TWILIO.sign(&key, &envelope, b"").unwrap();
    let headers = [(TWILIO.signature_header(), signature.as_str())];
    let verified = twilio::verify_body(&KeyRing::from(key), &headers, url, b"{}");
    assert!(matches!(verified, Err(Error::InvalidHeader { .. })));
}
