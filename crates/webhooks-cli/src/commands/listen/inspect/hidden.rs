//! The secrets that are not shown: some schemes send them in a header.

use std::borrow::Cow;

/// The shortest secret that is looked for inside of other texts.
const MIN_LEN: usize = 8;

const MARK: &[u8] = b"(hidden)";

/// Texts that are not shown.
#[derive(Default)]
pub(crate) struct Hidden(Vec<String>);

/// Shows none of them.
impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hidden").finish_non_exhaustive()
    }
}

impl Hidden {
    /// Hides secrets, with and without the prefix of Standard Webhooks.
    pub(crate) fn new(secrets: &[String]) -> Self {
        let mut hidden = Vec::new();
        for secret in secrets.iter().map(|secret| secret.trim()) {
            hidden.push(secret.to_owned());
            hidden.extend(secret.strip_prefix("whsec_").map(str::to_owned));
        }
        hidden.retain(|secret| !secret.is_empty());
        Self(hidden)
    }

    /// Returns a text with a mark in place of each secret. A short secret is hidden where it is the whole text.
    pub(super) fn hide<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut shown = Cow::Borrowed(text);
        for secret in self.0.iter().map(String::as_bytes) {
            if *shown == *secret {
                return Cow::Borrowed(MARK);
            }
            if secret.len() >= MIN_LEN
                && let Some(replaced) = replaced(&shown, secret)
            {
                shown = Cow::Owned(replaced);
            }
        }
        shown
    }

    /// Returns a text for people, with a mark in place of each secret.
    pub(super) fn hide_text(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(&self.hide(bytes)).into_owned()
    }
}

/// Returns a text with a mark in place of each `secret`, if it has one.
fn replaced(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let find = |from: usize| {
        let rest = text.get(from..)?;
        rest.windows(secret.len()).position(|part| part == secret).map(|at| from + at)
    };
    let mut next = Some(find(0)?);
    let (mut shown, mut from) = (Vec::with_capacity(text.len()), 0);
    while let Some(at) = next {
        shown.extend_from_slice(text.get(from..at).unwrap_or_default());
        shown.extend_from_slice(MARK);
        from = at + secret.len();
        next = find(from);
    }
    shown.extend_from_slice(text.get(from..).unwrap_or_default());
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        let hidden = Hidden::new(&["whsec_abcdefgh".to_owned(), "tok".to_owned()]);
        let check = |text: &str, shown: &str| assert_eq!(hidden.hide_text(text.as_bytes()), shown);
        check("tok", "(hidden)");
        check("token", "token");
        check("whsec_abcdefgh", "(hidden)");
        check("Bearer abcdefgh, whsec_abcdefgh.", "Bearer (hidden), (hidden).");
        check("abcdefg", "abcdefg");
        assert_eq!(format!("{hidden:?}"), "Hidden { .. }");
    }
}
