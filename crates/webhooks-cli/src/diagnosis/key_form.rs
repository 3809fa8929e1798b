//! The forms in which a secret becomes a key: the one of the scheme, and those that senders use by mistake.

use webhooks_sign::scheme::{KeyFormat, Scheme};
use webhooks_sign::{Algorithm, Key, KeyError};

/// The start of a secret of Standard Webhooks.
const PREFIX: &str = "whsec_";

/// The form in which a secret became a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// That of the scheme.
    AsIs,
    /// That of the scheme, without the text around the secret.
    Cleaned,
    /// Its text is the key.
    Text,
    /// Its text behind the prefix is the key.
    TextBehindPrefix,
    /// It is base64 of the key.
    Base64,
    /// It is hexadecimal of the key.
    Hex,
    /// Its text and a line break are the key.
    LineBreak,
}

impl KeyForm {
    /// Returns how the secret is used: a text that follows "the secret".
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::AsIs => "as the scheme reads it",
            Self::Cleaned => "without the white space, quotes or text around it",
            Self::Text => "as text, not decoded",
            Self::TextBehindPrefix => "as the text behind whsec_, not decoded",
            Self::Base64 => "decoded from base64",
            Self::Hex => "decoded from hexadecimal",
            Self::LineBreak => "as text with a line break at its end",
        }
    }

    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::AsIs => "",
            Self::Cleaned => "remove what surrounds the secret: it was pasted or stored with it",
            Self::Text | Self::TextBehindPrefix => {
                "the sender uses the secret's text as the key: the sender or the receiver must be changed, so that both decode it or neither does"
            }
            Self::Base64 | Self::Hex => {
                "the sender decodes the secret first: the sender or the receiver must be changed, so that both decode it or neither does"
            }
            Self::LineBreak => {
                "the sender reads its secret with the line break at the end: trim it there"
            }
        }
    }
}

/// Returns the key of a secret in the form of the scheme, or in that of its providers.
pub(crate) fn key_of(scheme: &Scheme, secret: &str) -> Result<Key, KeyError> {
    if !matches!(scheme.name(), "standard" | "svix") {
        return scheme.key(secret);
    }
    if secret.starts_with("v1,") {
        return Key::supabase(secret);
    }
    if secret.starts_with("polar_whs_") { Key::polar(secret) } else { Key::standard(secret) }
}

/// Returns the keys that a secret may stand for, each once: that of the scheme first.
pub(crate) fn key_forms(scheme: &Scheme, secret: &str) -> Vec<(KeyForm, Key)> {
    let clean = cleaned(secret);
    let bare = clean.strip_prefix(PREFIX).unwrap_or(clean);
    let read_as = |format, text: &str| {
        let scheme = scheme.customized().body_alone().key_format(format).build().ok()?;
        scheme.key(text).ok()
    };
    let mut found = vec![
        (KeyForm::AsIs, key_of(scheme, secret).ok()),
        (KeyForm::Cleaned, key_of(scheme, clean).ok()),
    ];
    if is_hmac(scheme.algorithm()) {
        let base64 = bare.replace('-', "+").replace('_', "/");
        let line = format!("{clean}\n");
        found.extend([
            (KeyForm::Text, read_as(KeyFormat::Text, clean)),
            (KeyForm::TextBehindPrefix, read_as(KeyFormat::Text, bare)),
            (KeyForm::Base64, Key::from_legacy_secret(scheme.algorithm(), &base64).ok()),
            (KeyForm::Hex, read_as(KeyFormat::Hex, bare)),
            (KeyForm::LineBreak, Key::from_legacy_bytes(scheme.algorithm(), line.as_bytes()).ok()),
        ]);
    }
    let mut keys: Vec<(KeyForm, Key)> = Vec::new();
    for (form, key) in found {
        let Some(key) = key else { continue };
        if keys.iter().all(|(_, other)| other.fingerprint() != key.fingerprint()) {
            keys.push((form, key));
        }
    }
    keys
}

/// Returns the algorithms that a sender may have taken in place of another.
pub(crate) fn hmacs() -> [Algorithm; 3] {
    [Algorithm::HmacSha256, Algorithm::HmacSha512, Algorithm::HmacSha1]
}

pub(crate) fn is_hmac(algorithm: Algorithm) -> bool {
    hmacs().contains(&algorithm)
}

/// Returns a secret without what is often copied with it: white space, quotes, a byte order mark, the name of
/// a variable, and the text before `whsec_`.
fn cleaned(secret: &str) -> &str {
    let is_around = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '"' | '\'' | '`' | '\u{feff}')
    };
    let clean = secret.trim_matches(is_around);
    let inside = clean.find(PREFIX).and_then(|at| clean.get(at..));
    inside.unwrap_or(clean).trim_matches(is_around)
}
