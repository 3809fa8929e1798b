//! The diagnosis of a webhook: whether its signature is right, and if not, why. Values in, an explanation out.

mod finding;
mod key_form;
mod render;
mod search;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use http::request::Parts;
use webhooks_receive::recognition;
use webhooks_receive::whole::Whole;
use webhooks_sign::scheme::{Content, Scheme};
use webhooks_sign::{Error, KeyError, KeyRing, Tolerance};

pub(crate) use self::key_form::key_of;

use self::finding::{Cause, Finding};
use self::search::Search;

/// A request, and the values by which its receiver verifies it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) body: &'a [u8],
    pub(crate) secrets: &'a [String],
    /// The scheme; without one, the headers show it.
    pub(crate) scheme: Option<&'a Scheme>,
    /// The URL that was registered with the sender.
    pub(crate) url: &'a str,
    /// The tolerance, if it is another than the scheme's.
    pub(crate) tolerance: Option<Tolerance>,
    /// The time in Unix seconds.
    pub(crate) now: u64,
}

/// The result of a diagnosis.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) tried: Vec<Trial>,
    pub(crate) outcome: Outcome,
}

/// One explanation that was tried.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) text: String,
    pub(crate) fits: bool,
}

/// Whether a webhook verifies.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It does, as it is.
    Verified {
        id: Option<String>,
        timestamp: Option<u64>,
        /// The number of the secret, from 1.
        secret: usize,
    },
    Refused(Finding),
}

impl Case<'_> {
    /// Verifies the request, and finds out why it does not verify.
    pub(crate) fn diagnose(self) -> Diagnosis {
        let schemes = match self.scheme {
            Some(scheme) => vec![scheme],
            None => self.schemes(),
        };
        let mut found: Option<Diagnosis> = None;
        for scheme in schemes {
            let diagnosis = self.examine(scheme);
            if diagnosis.is_verified() {
                return diagnosis;
            }
            // Several schemes share a header: the one that explains the signature is the sender's.
            let explains = |one: &Diagnosis| one.tried.iter().any(|trial| trial.fits);
            if found.as_ref().is_none_or(|before| explains(&diagnosis) && !explains(before)) {
                found = Some(diagnosis);
            }
        }
        found.unwrap_or_else(|| self.without_scheme())
    }

    /// Returns the schemes of which headers are there, those with the most first.
    fn schemes(self) -> Vec<&'static Scheme> {
        let headers = &self.head.headers;
        let whole = recognition::schemes_of(headers);
        let count =
            |scheme: &Scheme| scheme.headers().filter(|name| headers.contains_key(*name)).count();
        let mut found: Vec<_> = recognition::schemes()
            .filter(|scheme| scheme.content() != Content::Token && count(scheme) > 0)
            .collect();
        found.sort_by_key(|scheme| (Reverse(count(scheme)), !whole.contains(scheme)));
        found
    }

    fn examine(self, scheme: &Scheme) -> Diagnosis {
        let tolerance = self.tolerance.unwrap_or_else(|| scheme.tolerance());
        let whole = Whole { scheme, tolerance, head: self.head, url: self.url, now: self.now };
        let (mut first, mut unusable) = (None, None);
        for (index, secret) in self.secrets.iter().enumerate() {
            let key = match key_of(scheme, secret) {
                Ok(key) => key,
                Err(error) => {
                    unusable.get_or_insert((index, error));
                    continue;
                }
            };
            match whole.verify(&KeyRing::from(key), self.body) {
                Ok(verified) => {
                    let outcome = Outcome::Verified {
                        id: verified.id().map(str::to_owned),
                        timestamp: verified.timestamp(),
                        secret: index + 1,
                    };
                    return self.diagnosis(scheme, Vec::new(), outcome);
                }
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let mut search = Search::new(self, *scheme);
        let finding = search.explain(first.unwrap_or(Error::UnsuitableKey), unusable);
        self.diagnosis(scheme, search.tried, Outcome::Refused(finding))
    }

    fn diagnosis(self, scheme: &Scheme, tried: Vec<Trial>, outcome: Outcome) -> Diagnosis {
        let facts = render::facts(self, scheme);
        Diagnosis { scheme: Some(scheme.name()), facts, tried, outcome }
    }

    fn without_scheme(self) -> Diagnosis {
        let names: Vec<_> = self.head.headers.keys().map(http::HeaderName::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let finding = Finding::new(
            Cause::MissingHeader,
            "no header holds a signature of a known scheme",
            "has the sender a secret set, and does something on the way drop headers? --scheme names a scheme",
        );
        let facts = vec![("headers", names), ("body", render::body_fact(self))];
        Diagnosis { scheme: None, facts, tried: Vec::new(), outcome: Outcome::Refused(finding) }
    }
}

/// A secret that cannot be a key of the scheme: its place, and why.
type Unusable = Option<(usize, KeyError)>;
