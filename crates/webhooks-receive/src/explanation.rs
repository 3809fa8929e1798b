//! The report about a refused request, for its operator: what was expected and what was found.

use std::error::Error as _;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use webhooks_sign::{
    Algorithm, Error,
    scheme::{Content, Scheme},
};

use crate::body_change::BodyChange;
use crate::keys::FoundKeys;
use crate::recognition::{has_part, is_signature, readers};
use crate::rejection::Rejection;
use crate::verification::Rules;

/// The largest body, in bytes, for which changed bodies are tried: far larger than most are.
const MAX_TRIED: usize = 64 * 1024;

/// The changes that are tried: a few, since each costs a hash of the body.
const TRIED: [BodyChange; 3] =
    [BodyChange::SpaceAdded, BodyChange::LineBreakCut, BodyChange::JsonSpaced];

/// How many bytes of the value of a header are shown.
const SHOWN: usize = 64;

/// The explanation why a request was refused, for its operator and never for its sender. The callback
/// of [`Receiver::on_rejection`](crate::Receiver::on_rejection) gets it.
///
/// `{}` is one line: the reason, and a hint if there is one. `{:#}` is for development: it adds the
/// scheme, the headers that the scheme reads, and hashes of the body and the keys, to compare with
/// those of the sender. Neither shows a secret, a signature or the body.
pub struct Explanation<'r> {
    pub(crate) rejection: &'r Rejection,
    pub(crate) rules: &'r Rules,
    pub(crate) head: Option<&'r Parts>,
    pub(crate) keys: Option<&'r FoundKeys>,
    pub(crate) body: Option<&'r Bytes>,
}

impl Explanation<'_> {
    /// Borrows the reason for the refusal.
    pub fn rejection(&self) -> &Rejection {
        self.rejection
    }

    /// Returns the name of the receiver's scheme.
    pub fn scheme(&self) -> &'static str {
        self.rules.scheme.name()
    }

    /// Returns the tenant whose keys were tried, if keys are looked up and some were found.
    pub fn tenant(&self) -> Option<&str> {
        self.keys?.tenant.as_deref()
    }

    /// Returns a probable cause, if the request shows more than the reason says.
    pub fn hint(&self) -> Option<String> {
        let (Rejection::Malformed { source } | Rejection::Unauthentic { source }) = self.rejection
        else {
            return None;
        };
        let head = self.head?;
        match source {
            Error::MissingHeader { .. } if self.rules.scheme.content() == Content::Token => {
                Some("the body is no JSON that holds the signature".to_owned())
            }
            Error::MissingHeader { .. } => Some(other_scheme(&head.headers, &self.rules.scheme)),
            // A token does not depend on the body, so the hints below do not apply.
            Error::NoMatch if self.rules.scheme.algorithm() == Algorithm::Token => None,
            Error::NoMatch if self.body.is_some_and(Bytes::is_empty) => {
                Some("the body is empty: something may have read it before the receiver".to_owned())
            }
            Error::NoMatch if head.headers.contains_key(CONTENT_ENCODING) => {
                let hint = "the body is compressed: put the receiver outside of whatever \
                            decompresses it, or inside, as the sender signs it";
                Some(hint.to_owned())
            }
            Error::NoMatch => self.changed_body(head),
            _ => None,
        }
    }

    /// Looks for changes that intermediaries often make to a body. An attacker must not be able to make
    /// this costly, hence [`MAX_TRIED`], or to find out by its time which tenants exist, hence no trial
    /// for tenants.
    fn changed_body(&self, head: &Parts) -> Option<String> {
        let (keys, body) = (self.keys?, self.body?);
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if let Some(declared) = declared.and_then(|value| value.parse::<usize>().ok())
            && declared != body.len()
        {
            let came = body.len();
            return Some(format!(
                "content-length is {declared} and {came} bytes came: something changed the body"
            ));
        }
        if let Some(change) = self.tried(head, keys, body) {
            return Some(change.to_string());
        }
        let hint = "the URL is signed too: it must be the one that the sender was given";
        self.rules.scheme.signs_url().then(|| hint.to_owned())
    }

    fn tried(&self, head: &Parts, keys: &FoundKeys, body: &Bytes) -> Option<BodyChange> {
        if body.len() > MAX_TRIED || keys.tenant.is_some() {
            return None;
        }
        let verifies = |body: Vec<u8>| self.rules.would_pass(head, keys, &body);
        TRIED.into_iter().find(|change| change.undo(body).any(verifies))
    }

    /// Logs the refusal, with details if the target is logged at the level of debugging.
    #[cfg(feature = "tracing")]
    pub(crate) fn log(&self) {
        const TARGET: &str = "webhooks_receive";
        let (scheme, tenant, reason) = (self.scheme(), self.tenant(), self.rejection.name());
        let is_detailed = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
        let text = if is_detailed { format!("{self:#}") } else { self.to_string() };
        if self.rejection.status().is_server_error() {
            tracing::error!(target: TARGET, scheme, tenant, reason, "{text}");
        } else {
            tracing::warn!(target: TARGET, scheme, tenant, reason, "{text}");
        }
    }

    /// Writes what was expected and what was found, line by line.
    fn fmt_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = &self.rules.scheme;
        write!(f, "\n  scheme  {}: {}", scheme.name(), scheme.describe())?;
        if let Some(head) = self.head {
            for name in scheme.headers() {
                fmt_header(f, scheme, name, &head.headers)?;
            }
            for (name, value) in &head.headers {
                if name == CONTENT_ENCODING || name == "content-type" || name == "content-length" {
                    write!(f, "\n  header  {name}: {}", shown(value.as_bytes()))?;
                }
            }
        }
        if let Some(body) = self.body {
            let hash = Bytes::copy_from_slice(&Sha256::digest(body));
            write!(f, "\n  body    {} bytes, SHA-256 {hash:x}", body.len())?;
        }
        if let Some(keys) = self.keys {
            for (index, key) in keys.ring.iter().enumerate() {
                write!(f, "\n  key     #{index}, fingerprint {}", key.fingerprint())?;
            }
        }
        let now = self.rules.clock.now();
        write!(f, "\n  clock   {} ({now})", now.as_unix_seconds())
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook refused with {}: {}", self.rejection.status().as_u16(), self.rejection)?;
        let mut source = self.rejection.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        if let Some(hint) = self.hint() {
            write!(f, " ({hint})")?;
        }
        if f.alternate() { self.fmt_details(f) } else { Ok(()) }
    }
}

impl fmt::Debug for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explanation").field("rejection", &self.rejection).finish_non_exhaustive()
    }
}

/// Returns the hint for a request without the expected signature: it may be signed by another scheme.
fn other_scheme(headers: &HeaderMap, expected: &Scheme) -> String {
    let readers = |name: &str| -> Vec<&str> { readers(headers, name).map(Scheme::name).collect() };
    let other = headers.keys().map(http::HeaderName::as_str).find_map(|name| {
        let readers = readers(name);
        (!is_signature(expected, name) && !readers.is_empty()).then_some((name, readers))
    });
    match other {
        Some((name, readers)) => {
            format!(
                "the request has {name:?}, which is read by the scheme {}",
                readers.join(" or ")
            )
        }
        None if !headers.contains_key(expected.signature_header()) => {
            "the request is not signed: has the sender no secret set?".to_owned()
        }
        None => "the request has the signature: something on the way drops headers".to_owned(),
    }
}

/// Writes a header. The value of a signature is not shown: if it is a token, it is the secret.
fn fmt_header(
    f: &mut fmt::Formatter<'_>,
    scheme: &Scheme,
    name: &str,
    headers: &HeaderMap,
) -> fmt::Result {
    write!(f, "\n  header  {name}: ")?;
    let values: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    match &*values {
        [] => f.write_str("missing"),
        [value] if !is_signature(scheme, name) => f.write_str(&shown(value)),
        [value] if scheme.algorithm() == Algorithm::Token => write!(f, "{} bytes", value.len()),
        // The prefix shows the version and the format.
        [value] => {
            write!(f, "{} bytes", value.len())?;
            let prefix = scheme.signature_prefix();
            match (prefix, has_part(value, prefix)) {
                ("", _) => Ok(()),
                (prefix, true) => write!(f, ", among them {prefix:?}"),
                (prefix, false) => write!(f, " without {prefix:?}"),
            }
        }
        values => write!(f, "{} times", values.len()),
    }
}

/// Returns the start of an untrusted text, escaped.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.get(..SHOWN).unwrap_or(value));
    format!("{text:?}")
}
