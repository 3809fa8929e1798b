//! Forms as Twilio signs them, of `vectors/providers.json`, and bodies by their hash in the URL.
#![cfg(feature = "sha1")]
#![expect(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use webhooks_sign::providers::{GITHUB, MAILGUN, TWILIO};
use webhooks_sign::{Envelope, Error, KeyRing, SignError, Verifier};

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

fn twilio(url: &str) -> Verifier<'_> {
    TWILIO.verifier().url(url)
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
            twilio(url).verify_form(&keys, &headers[..], fields, 0).map(drop)
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
    let verified = twilio("https://example.com/").verify_form(&keys, &headers, &mut fields, 0);
    let header = TWILIO.signature_header();
    assert_eq!(verified, Err(Error::MissingHeader { header }));
    assert_eq!(fields, [("b", ""), ("a", "")]);
}

/// Else whoever saw a request by GET could send its parameters as a body, which they are not.
#[test]
fn the_signature_of_a_url_fits_no_form_that_continues_it() {
    let key = TWILIO.key("12345").unwrap();
    let keys = KeyRing::from(key.clone());
    let url = "https://example.com/hook";
    for continued in ["?From=1", "/other", "?", "&a=1", "#a", "=", "\u{0}"] {
        let captured =
            TWILIO.sign_form(&key, &format!("{url}{continued}"), &mut []).unwrap().to_string();
        let headers = [(TWILIO.signature_header(), captured.as_str())];
        let whole = twilio(url).verify(&keys, &headers, continued.as_bytes(), 0).map(drop);
        assert_eq!(whole, Err(Error::OtherContent));
        for split in 0..continued.len() {
            let (name, value) = continued.split_at(continued.len() - split);
            let form = twilio(url).verify_form(&keys, &headers, &mut [(name, value)], 0);
            assert_eq!(form, Err(Error::NoMatch), "{name:?} {value:?}");
        }
    }
    let empty = TWILIO.sign_form(&key, url, &mut []).unwrap().to_string();
    let headers = [(TWILIO.signature_header(), empty.as_str())];
    assert!(twilio(url).verify_form(&keys, &headers, &mut [], 0).is_ok());
    let nameless = twilio(url).verify_form(&keys, &headers, &mut [("", "")], 0);
    assert_eq!(nameless, Err(Error::NoMatch));
}

#[test]
fn a_body_is_verified_by_its_hash_in_the_url() {
    let (bodies, _) = vectors();
    assert_eq!(bodies.len(), 1);
    for vector in &bodies {
        let (keys, headers) = (keys(vector), headers(vector));
        let (url, body) = (vector["url"].as_str().unwrap(), vector["body"].as_str().unwrap());
        let verify = |body: &str| {
            twilio(url).verify_hashed_body(&keys, &headers[..], body.as_bytes(), 0).map(drop)
        };
        assert_eq!(verify(body), Ok(()), "{vector}");
        assert_eq!(verify("{}"), Err(Error::NoMatch), "{vector}");
    }
}

/// The signature then covers the URL alone.
#[test]
fn a_url_without_the_hash_of_the_body_is_refused() {
    let key = TWILIO.key("12345").unwrap();
    let url = "https://example.com/?foo=1";
    let signature = TWILIO.sign_form(&key, url, &mut []).unwrap();
    let headers = [(TWILIO.signature_header(), signature.as_str())];
    let verified = twilio(url).verify_hashed_body(&KeyRing::from(key), &headers, b"{}", 0);
    assert_eq!(verified.map(drop).map_err(Error::name), Err("invalid_header"));
}

#[test]
fn content_is_verified_by_its_own_function_alone() {
    let key = |scheme: &webhooks_sign::scheme::Scheme| KeyRing::from(scheme.key("secret").unwrap());
    let (github, mailgun, form) = (key(&GITHUB), key(&MAILGUN), key(&TWILIO));
    let headers = [("x-hub-signature-256", "sha256=00")];
    let refused = Error::OtherContent;
    assert!(refused.is_misuse());

    let url = "https://example.com/";
    let begun = |verifier: Verifier<'_>, keys| verifier.begin(keys, &headers, 0).err();
    assert_eq!(begun(twilio(url), &form), Some(refused));
    assert_eq!(begun(MAILGUN.verifier(), &mailgun), Some(refused));
    assert_eq!(MAILGUN.verify(&mailgun, &headers, b"", 0).err(), Some(refused));
    let of_form = |verifier: Verifier<'_>, keys| verifier.verify_form(keys, &headers, &mut [], 0);
    assert_eq!(of_form(GITHUB.verifier(), &github).err(), Some(refused));
    assert_eq!(of_form(MAILGUN.verifier(), &mailgun).err(), Some(refused));
    let hashed = GITHUB.verifier().verify_hashed_body(&github, &headers, b"", 0);
    assert_eq!(hashed.err(), Some(refused));
    let token = |verifier: Verifier<'_>, keys| verifier.verify_token(keys, "1", "a", "00", 1);
    assert_eq!(token(GITHUB.verifier(), &github).err(), Some(refused));
    assert_eq!(token(twilio(url), &form).err(), Some(refused));

    let envelope = Envelope { timestamp: "1", url, ..Envelope::default() };
    for scheme in [TWILIO, MAILGUN] {
        let signed = scheme.sign(&scheme.key("secret").unwrap(), &envelope, b"");
        assert_eq!(signed.unwrap_err(), SignError::OtherContent);
    }
    let signed = GITHUB.sign_token(&GITHUB.key("secret").unwrap(), "1", "a");
    assert_eq!(signed.unwrap_err(), SignError::OtherContent);
}
