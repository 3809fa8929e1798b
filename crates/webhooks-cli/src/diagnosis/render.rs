//! The diagnosis as text and as JSON. No secret and no signature is shown.

use serde_json::{Value, json};
use webhooks_core::Timestamp;
use webhooks_sign::scheme::{Scheme, TimestampSource};

use super::key_form::key_of;
use super::{Case, Diagnosis, Outcome};

/// The most bytes of a header's value that are shown.
const SHOWN: usize = 64;

/// Returns what a request has for a scheme.
pub(super) fn facts(case: Case<'_>, scheme: &Scheme) -> Vec<(&'static str, String)> {
    let headers = &case.head.headers;
    let is_signature = |name: &str| {
        name == scheme.signature_header() || scheme.more_signature_headers().contains(&name)
    };
    let header = |name: &'static str| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let found = match &values[..] {
            [] => "missing".to_owned(),
            [value] if is_signature(name) => format!("{} bytes", value.len()),
            [value] => shown(value.as_bytes()),
            several => format!("{} times", several.len()),
        };
        ("header", format!("{name}: {found}"))
    };
    let mut facts = vec![("scheme", format!("{}: {}", scheme.name(), scheme.describe()))];
    facts.extend(scheme.headers().map(header));
    if let Some(TimestampSource::Header(name, _)) = scheme.timestamp_source()
        && let Some(age) = headers.get(name).and_then(|value| age(value.to_str().ok()?, case.now))
    {
        facts.push(("time", age));
    }
    for (index, secret) in case.secrets.iter().enumerate() {
        let key = match key_of(scheme, secret) {
            Ok(key) => format!("{}, fingerprint {}", key.algorithm(), key.fingerprint()),
            Err(error) => error.to_string(),
        };
        facts.push(("secret", format!("{}: {key}", index + 1)));
    }
    facts.push(("body", body_fact(case)));
    facts
}

fn age(text: &str, now: u64) -> Option<String> {
    let time: u64 = text.parse().ok()?;
    // Other units are explained by the search.
    let time = if time > 100_000_000_000 { time / 1000 } else { time };
    let (older, newer) = (now.saturating_sub(time), time.saturating_sub(now));
    let text = if newer > 0 { format!("{newer} s ahead") } else { format!("{older} s old") };
    Some(format!("{}, {text}", Timestamp::from_unix_seconds(time)))
}

pub(super) fn body_fact(case: Case<'_>) -> String {
    let kind = match str::from_utf8(case.body) {
        _ if case.body.is_empty() => "empty",
        Err(_) => "not UTF-8",
        Ok(text) if serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() => "JSON",
        Ok(_) => "text",
    };
    format!("{} bytes, {kind}", case.body.len())
}

/// Returns the start of an untrusted text, escaped.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.get(..SHOWN).unwrap_or(value));
    format!("{text:?}")
}

impl Diagnosis {
    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.outcome, Outcome::Verified { .. })
    }

    /// Returns the reason why it does not verify; empty if it does.
    pub(crate) fn reason(&self) -> &str {
        match &self.outcome {
            Outcome::Verified { .. } => "",
            Outcome::Refused(finding) => &finding.text,
        }
    }

    /// Returns the result on one line.
    fn summary(&self) -> String {
        match &self.outcome {
            Outcome::Verified { .. } => "verified".to_owned(),
            Outcome::Refused(finding) => format!("does not verify: {}", finding.text),
        }
    }

    /// Returns the explanation, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![match &self.outcome {
            Outcome::Verified { id, timestamp, secret } => {
                let id = id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
                let time = timestamp.map(Timestamp::from_unix_seconds);
                let time = time.map(|time| format!(", signed at {time}")).unwrap_or_default();
                format!("verified by secret {secret}{id}{time}")
            }
            Outcome::Refused(_) => self.summary(),
        }];
        let mut line = |name: &str, text: &str| lines.push(format!("  {name:<8}  {text}"));
        for (name, text) in &self.facts {
            line(name, text);
        }
        let failed: Vec<_> = self.tried.iter().filter(|trial| !trial.fits).collect();
        if !failed.is_empty() {
            let texts: Vec<_> = failed.iter().map(|trial| trial.text.as_str()).collect();
            line("tried", &format!("{}: no", texts.join(" | ")));
        }
        for trial in self.tried.iter().filter(|trial| trial.fits) {
            line("tried", &format!("{}: YES", trial.text));
        }
        if let Outcome::Refused(finding) = &self.outcome
            && !finding.advice.is_empty()
        {
            line("so", &finding.advice);
        }
        lines
    }

    pub(crate) fn json(&self) -> Value {
        let tried: Vec<_> = (self.tried.iter())
            .map(|trial| json!({ "what": trial.text, "fits": trial.fits }))
            .collect();
        let facts: Vec<_> =
            self.facts.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
        let mut found = json!({
            "verified": self.is_verified(),
            "scheme": self.scheme,
            "facts": facts,
            "tried": tried,
        });
        let more = match &self.outcome {
            Outcome::Verified { id, timestamp, secret } => {
                json!({ "id": id, "timestamp": timestamp, "secret": secret })
            }
            Outcome::Refused(finding) => json!({
                "cause": finding.cause.name(),
                "reason": finding.text,
                "advice": finding.advice,
            }),
        };
        if let (Value::Object(found), Value::Object(more)) = (&mut found, more) {
            found.extend(more);
        }
        found
    }
}
