//! The headers by which a sender signs a body.

use webhooks_core::Timestamp;
use webhooks_sign::scheme::{Content, Scheme, TimestampFormat, TimestampSource};
use webhooks_sign::standard::{STANDARD_ASYMMETRIC, SVIX_ASYMMETRIC};
use webhooks_sign::{Algorithm, Envelope, Key, SignError};

use crate::failure::{Exit, Failure};

/// Returns the scheme that signs with a key: for keys of ed25519 it is the other one of the same headers.
fn of_key(scheme: &'static Scheme, key: &Key) -> &'static Scheme {
    match (scheme.name(), key.algorithm()) {
        ("standard", Algorithm::Ed25519) => const { &STANDARD_ASYMMETRIC },
        ("svix", Algorithm::Ed25519) => const { &SVIX_ASYMMETRIC },
        _ => scheme,
    }
}

/// Returns a time as a scheme writes it; empty if it signs none.
pub(crate) fn time_for(scheme: &Scheme, time: Timestamp) -> String {
    let Some(TimestampSource::Field(_, format) | TimestampSource::Header(_, format)) =
        scheme.timestamp_source()
    else {
        return String::new();
    };
    match format {
        TimestampFormat::Milliseconds => (time.as_unix_microseconds() / 1000).to_string(),
        TimestampFormat::Rfc3339 => time.to_string(),
        _ => time.as_unix_seconds().to_string(),
    }
}

/// Signs a body, and returns the headers that the sender adds.
pub(crate) fn sign(
    scheme: &'static Scheme,
    secret: &str,
    key: &Key,
    envelope: &Envelope<'_>,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, Failure> {
    let header = scheme.signature_header();
    if scheme.algorithm() == Algorithm::Token {
        return Ok(vec![(header, secret.to_owned())]);
    }
    let scheme = of_key(scheme, key);
    let value = match scheme.content() {
        Content::Form => {
            let fields: Vec<_> = form(body);
            let mut fields: Vec<_> =
                fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            let signature = scheme.sign_form(key, envelope.url, &mut fields);
            signature.map(|signature| signature.as_str().to_owned())
        }
        Content::Token => {
            return Err(Failure::usage(format!(
                "{} has its signature in the body, not in a header",
                scheme.name()
            )));
        }
        _ => {
            let mut value = String::new();
            scheme.sign_all([key], envelope, body, &mut value).map(|()| value)
        }
    };
    let value = value.map_err(|error| refused(scheme, error))?;
    let id = scheme.id_header().map(|name| (name, envelope.id.to_owned()));
    let time = match scheme.timestamp_source() {
        Some(TimestampSource::Header(name, _)) => Some((name, envelope.timestamp.to_owned())),
        _ => None,
    };
    Ok(id.into_iter().chain(time).chain([(header, value)]).collect())
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(body);
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn refused(scheme: &Scheme, error: SignError) -> Failure {
    let failure =
        Failure::new(Exit::Refused, format!("cannot sign by the scheme {}", scheme.name()));
    let hint = match error {
        SignError::InvalidId => "--id takes 1 to 256 visible ASCII characters without '.'",
        SignError::InvalidTimestamp => "--timestamp takes a time such as 2026-11-30T09:00:00Z",
        SignError::MissingPart => "give --url, as it is set at the sender",
        SignError::UnsuitableKey => {
            "the key can only verify: this provider alone has the one that signs"
        }
        _ => return failure.because(error),
    };
    failure.because(error).hint(hint)
}
