//! Webhooks whose scheme does not sign the body byte for byte: verified once the whole body is there.
//!
//! Some schemes sign the fields of a form, others a token. webhooks-sign verifies both; this file finds
//! them in a request. Tools verify requests in memory by all schemes here.

use std::borrow::Cow;

use http::Method;
use http::request::Parts;
use serde::Deserialize;
use webhooks_sign::{
    Error, KeyRing, Tolerance, Verified, Verifier,
    scheme::{Content, Scheme},
};

use crate::content_type;

/// The maximum number of fields of a form: twenty times as many as the longest known forms have. In
/// memory, a field takes fifty times the size of its shortest text.
const MAX_FIELDS: usize = 1000;

/// Returns whether the webhooks of a scheme are verified here, and not while they stream in.
pub(crate) fn is_needed(scheme: &Scheme) -> bool {
    scheme.content() != Content::Body
}

/// A request whose body is in memory, with the additions of its receiver: for tools that verify a request which
/// was stored. A server uses a [`Receiver`](crate::Receiver), which limits the body.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "tools make it")]
pub struct Whole<'a> {
    /// The scheme by which it is verified.
    pub scheme: &'a Scheme,
    /// The tolerance for its timestamp.
    pub tolerance: Tolerance,
    /// Its method, URL and headers.
    pub head: &'a Parts,
    /// The URL that was registered with the sender.
    pub url: &'a str,
    /// The time in Unix seconds.
    pub now: u64,
}

impl<'a> Whole<'a> {
    /// Checks, before the body is read, all that does not depend on it: the header with the signature of
    /// a form, and whether the keys and the URL suit the scheme.
    pub(crate) fn check_head<const N: usize>(&self, keys: &KeyRing<N>) -> Result<(), Error> {
        let verifier = self.verifier(self.url);
        let (checked, is_in_head) = match self.scheme.content() {
            Content::Form => {
                (verifier.verify_form(keys, &self.head.headers, &mut [], self.now), true)
            }
            Content::Token => (verifier.verify_token(keys, "", "", "", self.now), false),
            _ => return Err(Error::OtherContent),
        };
        // The trial has no fields, so an honest request fails with `NoMatch`: that error counts for
        // nothing here. A token is in the body, so of its errors only misuse counts.
        match checked {
            Err(error) if error.is_misuse() => Err(error),
            Err(error) if is_in_head && error != Error::NoMatch => Err(error),
            _ => Ok(()),
        }
    }

    /// Verifies the request with its body. If the scheme signs a token, the id of the returned value is
    /// the token.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
    pub fn verify<'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        body: &'b [u8],
    ) -> Result<Verified<'b, ()>, Error>
    where
        'a: 'b,
    {
        let head = self.head;
        match self.scheme.content() {
            Content::Body => {
                let verifier = self.verifier(self.url);
                let verified = verifier.verify(keys, &head.headers, body, self.now)?;
                Ok(verified.without_body())
            }
            Content::Form => self.verify_form(keys, body),
            Content::Token => self.verify_token(keys, body),
            _ => Err(Error::OtherContent),
        }
    }

    fn verifier<'s>(&'s self, url: &'s str) -> Verifier<'s> {
        let method = self.head.method.as_str();
        self.scheme.verifier().tolerance(self.tolerance).method(method).url(url)
    }

    /// Verifies a form by its fields, a GET request without a body by the fields in its URL, and any
    /// other request by the hash of the body in its URL.
    fn verify_form<const N: usize>(
        &self,
        keys: &KeyRing<N>,
        body: &[u8],
    ) -> Result<Verified<'static, ()>, Error> {
        let Self { head, now, .. } = *self;
        if content_type::is(&head.headers, content_type::FORM) {
            let fields: Vec<(Cow<'_, str>, Cow<'_, str>)> =
                form_urlencoded::parse(body).take(MAX_FIELDS + 1).collect();
            if fields.len() > MAX_FIELDS {
                return Err(Error::NoMatch);
            }
            let mut fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (&**k, &**v)).collect();
            return self.with_each_url(self.url, |verifier| {
                verifier.verify_form(keys, &head.headers, &mut fields, now)
            });
        }
        let url = self.requested_url().ok_or(Error::NoMatch)?;
        self.with_each_url(&url, |verifier| {
            if head.method == Method::GET && body.is_empty() {
                return verifier.verify_form(keys, &head.headers, &mut [], now);
            }
            let verified = verifier.verify_hashed_body(keys, &head.headers, body, now)?;
            Ok(verified.without_body())
        })
    }

    /// Verifies with a URL and, if that fails, with its other spelling.
    fn with_each_url(
        &self,
        url: &str,
        mut verify: impl FnMut(Verifier<'_>) -> Result<Verified<'static, ()>, Error>,
    ) -> Result<Verified<'static, ()>, Error> {
        match (verify(self.verifier(url)), other_spelling(url)) {
            (Err(Error::NoMatch), Some(other)) => verify(self.verifier(&other)),
            (verified, _) => verified,
        }
    }

    /// Returns the registered URL with the query of the request: senders append parameters to the
    /// registered ones. `None` if the query does not begin with the registered parameters, because the
    /// URL is then another one.
    fn requested_url(&self) -> Option<String> {
        let (base, own) = self.url.split_once('?').unwrap_or((self.url, ""));
        let query = self.head.uri.query().unwrap_or_default();
        let more = query.strip_prefix(own)?;
        let is_whole = own.is_empty() || more.is_empty() || more.starts_with('&');
        is_whole.then(|| if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") })
    }

    /// Verifies the object `signature` of a JSON body, as Mailgun sends it.
    fn verify_token<'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        body: &'b [u8],
    ) -> Result<Verified<'b, ()>, Error> {
        let missing = Error::MissingHeader { header: "signature" };
        let Event { signature } = serde_json::from_slice(body).or(Err(missing))?;
        let SignedToken { timestamp, token, signature, parent } = signature;
        let timestamp = timestamp.to_text();
        let verify = |signature| {
            let verifier = self.verifier(self.url);
            verifier.verify_token(keys, &timestamp, token, signature, self.now)
        };
        match (verify(signature), parent) {
            (Err(Error::NoMatch | Error::NoneListed { .. }), Some(parent)) => verify(parent),
            (verified, _) => verified,
        }
    }
}

/// Returns a URL with its default port added, or removed if it has one. Twilio's libraries try both,
/// since Twilio sometimes signs the URL with the port. A URL with another port has one spelling.
fn other_spelling(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    if let Some(bare) = authority.strip_suffix(port) {
        return Some(format!("{scheme}://{bare}{tail}"));
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A colon inside the brackets of an IPv6 address does not precede a port.
    let has_port = host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':');
    (!has_port).then(|| format!("{scheme}://{authority}{port}{tail}"))
}

#[derive(Deserialize)]
struct Event<'b> {
    #[serde(borrow)]
    signature: SignedToken<'b>,
}

/// The texts have no escapes, since they are digits and hexadecimal, so they can be borrowed.
#[derive(Deserialize)]
struct SignedToken<'b> {
    #[serde(borrow)]
    timestamp: Seconds<'b>,
    token: &'b str,
    signature: &'b str,
    /// The signature with the key of the account, for events of a subaccount, which has its own key.
    #[serde(rename = "parent-signature")]
    parent: Option<&'b str>,
}

/// A time, which is a text in Mailgun's examples and a number in older ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds<'b> {
    Number(u64),
    Text(&'b str),
}

impl Seconds<'_> {
    fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(seconds) => Cow::Owned(seconds.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests;
