//! The search for the cause: each explanation is tried, from the most frequent on.

mod headers;
mod time;

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use webhooks_receive::body_change::BodyChange;
use webhooks_receive::whole::Whole;
use webhooks_sign::scheme::{Scheme, TimestampSource};
use webhooks_sign::{Error, Key, KeyRing, Tolerance};

use super::finding::{Cause, Finding};
use super::key_form::{KeyForm, hmacs, is_hmac, key_forms};
use super::{Case, Trial, Unusable};

/// The largest body, in bytes, for which changed bodies are tried.
const MAX_CHANGED: usize = 1024 * 1024;

/// The largest body, in bytes, for which changed bodies are tried with changed keys.
const MAX_CHANGED_TWICE: usize = 64 * 1024;

/// A search, and what was tried in it.
pub(super) struct Search<'a> {
    case: Case<'a>,
    scheme: Scheme,
    /// The keys that each secret may stand for.
    keys: Vec<(usize, KeyForm, Key)>,
    pub(super) tried: Vec<Trial>,
}

impl<'a> Search<'a> {
    pub(super) fn new(case: Case<'a>, scheme: Scheme) -> Self {
        let keys = keys(&scheme, case.secrets);
        Self { case, scheme, keys, tried: Vec::new() }
    }

    /// Returns the cause of an error.
    pub(super) fn explain(&mut self, error: Error, unusable: Unusable) -> Finding {
        let found = match error {
            Error::UnsuitableKey => self.without_key(unusable),
            Error::MissingHeader { header } => Some(self.missing(header)),
            Error::DuplicateHeader { header } => Some(self.duplicate(header)),
            Error::InvalidHeader { header, .. }
            | Error::NoneListed { header, .. }
            | Error::TooManySignatures { header } => self.malformed(header),
            Error::InvalidTimestamp { expected } => self.timestamp_form(expected),
            Error::TimestampTooOld { .. } | Error::TimestampTooNew { .. } => self.stale(error),
            Error::NoMatch => self.mismatch(),
            Error::MissingPart => Some(Finding::new(
                Cause::MissingUrl,
                "the scheme signs the URL that the sender was given, and it is not known",
                "give it with --url, as it is set at the sender",
            )),
            _ => None,
        };
        found.unwrap_or_else(|| self.unknown(error, unusable))
    }

    /// Returns whether a request would be authentic, whatever its time.
    fn fits(&self, scheme: &Scheme, key: &Key, head: &Parts, body: &[u8]) -> bool {
        let tolerance = Tolerance::DANGEROUS_UNLIMITED;
        let whole = Whole { scheme, tolerance, head, url: self.case.url, now: self.case.now };
        whole.verify(&KeyRing::from(key.clone()), body).is_ok()
    }

    /// Returns whether the request would be authentic with one of the keys as the scheme reads them.
    fn fits_plainly(&self, scheme: &Scheme, head: &Parts, body: &[u8]) -> bool {
        let plain = |form| matches!(form, KeyForm::AsIs | KeyForm::Cleaned);
        let mut keys = self.keys.iter().filter(|(_, form, _)| plain(*form));
        keys.any(|(_, _, key)| self.fits(scheme, key, head, body))
    }

    fn note(&mut self, text: impl Into<String>, fits: bool) -> bool {
        self.tried.push(Trial { text: text.into(), fits });
        fits
    }

    /// Returns the head with another value of a header.
    fn head_with(&self, name: &str, value: &[u8]) -> Option<Parts> {
        let mut head = self.case.head.clone();
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        head.headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        Some(head)
    }

    fn value(&self, name: &str) -> &'a [u8] {
        self.case.head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default()
    }

    /// Explains that no secret is a key of the scheme.
    fn without_key(&mut self, unusable: Unusable) -> Option<Finding> {
        let found = self.key_forms().or_else(|| self.other_schemes());
        if let Some(finding) = found.or_else(|| self.changed_twice()) {
            return Some(finding);
        }
        let (index, error) = unusable?;
        Some(Finding::new(
            Cause::UnusableKey,
            format!(
                "{} cannot be a key of the scheme {}: {error}",
                self.secret(index),
                self.scheme.name()
            ),
            "copy the secret again from the sender, or name another scheme with --scheme",
        ))
    }

    /// Names a secret, if there are several.
    fn secret(&self, index: usize) -> String {
        match self.case.secrets.len() {
            1 => "the secret".to_owned(),
            _ => format!("secret {}", index + 1),
        }
    }

    fn key_forms(&mut self) -> Option<Finding> {
        for (index, form, key) in self.keys.clone() {
            let fits = self.fits(&self.scheme, &key, self.case.head, self.case.body);
            if self.note(format!("{} {}", self.secret(index), form.describe()), fits) {
                return Some(Finding::new(
                    Cause::KeyForm(form),
                    format!("the signature fits {} {}", self.secret(index), form.describe()),
                    form.advice(),
                ));
            }
        }
        None
    }

    /// Explains a signature that fits nothing.
    fn mismatch(&mut self) -> Option<Finding> {
        if let Some(finding) = self.key_forms() {
            return Some(finding);
        }
        if self.case.body.is_empty() && self.declared_len() != Some(0) {
            return Some(Finding::new(
                Cause::BodyEmpty,
                "the body is empty",
                "something read the body before: verify its raw bytes before a parser takes them",
            ));
        }
        self.changed_bodies()
            .or_else(|| self.timestamp_units())
            .or_else(|| self.swapped_headers())
            .or_else(|| self.signed_parts())
            .or_else(|| self.algorithms())
            .or_else(|| self.other_schemes())
            .or_else(|| self.changed_twice())
    }

    fn changed_bodies(&mut self) -> Option<Finding> {
        let body = self.case.body;
        if body.len() > MAX_CHANGED {
            self.note(
                format!("changed bodies are not tried: it has more than {MAX_CHANGED} bytes"),
                false,
            );
            return None;
        }
        for change in BodyChange::ALL {
            let fits = |before: Vec<u8>| self.fits_plainly(&self.scheme, self.case.head, &before);
            let fits = change.undo(body).any(fits);
            if self.note(format!("body {}", change.before()), fits) {
                return Some(changed(change, ""));
            }
        }
        None
    }

    /// Tries changed bodies with the keys that senders use by mistake.
    fn changed_twice(&mut self) -> Option<Finding> {
        let (head, body) = (self.case.head, self.case.body);
        if body.len() > MAX_CHANGED_TWICE {
            return None;
        }
        for (_, form, key) in self.keys.clone() {
            for change in BodyChange::ALL {
                if change.undo(body).any(|before| self.fits(&self.scheme, &key, head, &before)) {
                    let also = format!(", and the secret {}: {}", form.describe(), form.advice());
                    self.note("a changed body with another form of the secret", true);
                    return Some(changed(change, &also));
                }
            }
        }
        self.note("changed bodies with other forms of the secret", false);
        None
    }

    /// Tries other contents than the scheme signs, in the same header.
    fn signed_parts(&mut self) -> Option<Finding> {
        let time = match self.scheme.timestamp_source() {
            Some(TimestampSource::Header(name, _)) => self.value(name),
            Some(TimestampSource::Field(name, _)) => {
                field(self.value(self.scheme.signature_header()), name)
            }
            _ => b"",
        };
        let id = self.scheme.id_header().map(|name| self.value(name)).unwrap_or_default();
        let (body, dot) = (self.case.body, &b"."[..]);
        let mut contents: Vec<(&str, Vec<&[u8]>, Cause)> = Vec::new();
        if !id.is_empty() {
            let swapped = vec![time, dot, id, dot, body];
            contents.push(("timestamp.id.body", swapped, Cause::IdAndTimestampSwapped));
            contents.push(("id.body", vec![id, dot, body], Cause::SignedParts));
        }
        if !time.is_empty() {
            contents.push(("timestamp.body", vec![time, dot, body], Cause::SignedParts));
            contents.push(("the body alone", vec![body], Cause::SignedParts));
        }
        let alone = self.scheme.customized().body_alone().build().ok()?;
        for (text, parts, cause) in contents {
            let fits = self.fits_plainly(&alone, self.case.head, &parts.concat());
            if self.note(format!("signed: {text}"), fits) {
                let described = self.scheme.describe();
                return Some(Finding::new(
                    cause,
                    format!("the signature is of {text}"),
                    format!("the scheme has {described}"),
                ));
            }
        }
        None
    }

    fn algorithms(&mut self) -> Option<Finding> {
        let own = self.scheme.algorithm();
        for other in hmacs().into_iter().filter(|other| is_hmac(own) && *other != own) {
            let scheme = self.scheme.customized().algorithm(other).dangerous_joined_parts();
            let Ok(scheme) = scheme.build() else { continue };
            let fits = keys(&scheme, self.case.secrets)
                .iter()
                .any(|(_, _, key)| self.fits(&scheme, key, self.case.head, self.case.body));
            if self.note(format!("algorithm {other}"), fits) {
                return Some(Finding::new(
                    Cause::Algorithm,
                    format!("it is signed with {other}, not {own}"),
                    "sender and receiver must use the same algorithm",
                ));
            }
        }
        None
    }

    fn declared_len(&self) -> Option<usize> {
        str::from_utf8(self.value("content-length")).ok()?.parse().ok()
    }

    /// Says what was found out in spite of no explanation.
    fn unknown(&self, error: Error, unusable: Unusable) -> Finding {
        let is_malformed = matches!(
            error,
            Error::InvalidHeader { .. }
                | Error::NoneListed { .. }
                | Error::TooManySignatures { .. }
        );
        if is_malformed {
            let advice = format!("the scheme has {}", self.scheme.describe());
            return Finding::new(Cause::HeaderForm, error.to_string(), advice);
        }
        let (body, headers) = (self.case.body, &self.case.head.headers);
        let lossy = "\u{fffd}".as_bytes();
        let advice = match self.declared_len() {
            Some(declared) if declared != body.len() => format!(
                "content-length is {declared}, and the body has {} bytes: something changed it",
                body.len()
            ),
            _ if headers.contains_key("content-encoding") => {
                "the body is compressed: verify the bytes that the sender signed, before or after decompression".to_owned()
            }
            _ if body.windows(lossy.len()).any(|window| window == lossy) => {
                "the body has U+FFFD: something read bytes that are not UTF-8 as text".to_owned()
            }
            _ if self.scheme.signs_url() => {
                "the URL is signed too: --url must be the one that the sender was given".to_owned()
            }
            _ => "compare the secret on both sides by its fingerprint, and store the raw body where it arrives".to_owned(),
        };
        let also = unusable.map(|(index, error)| format!("; {}: {error}", self.secret(index)));
        let text = "another secret signed it, or the body was changed in a way that was not tried";
        Finding::new(Cause::Unknown, format!("{text}{}", also.unwrap_or_default()), advice)
    }
}

fn keys(scheme: &Scheme, secrets: &[String]) -> Vec<(usize, KeyForm, Key)> {
    let forms = secrets.iter().enumerate().flat_map(|(index, secret)| {
        key_forms(scheme, secret).into_iter().map(move |(form, key)| (index, form, key))
    });
    forms.collect()
}

fn changed(change: BodyChange, also: &str) -> Finding {
    Finding::new(
        Cause::BodyChanged(change),
        format!(
            "the body was changed after signing: the signature fits the body {}{also}",
            change.before()
        ),
        format!(
            "{}: verify the raw bytes before anything parses them (axum: Bytes before Json; express: express.raw())",
            change.deed()
        ),
    )
}

/// Returns the value of a field such as `t=`.
fn field<'v>(value: &'v [u8], name: &str) -> &'v [u8] {
    let mut fields = value.split(|byte| matches!(byte, b',' | b';' | b' '));
    fields.find_map(|field| field.strip_prefix(name.as_bytes())).unwrap_or_default()
}
