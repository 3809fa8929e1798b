//! The path under which a service answers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest base path in bytes.
const MAX_LEN: usize = 256;

/// The path under which a service answers, such as `/hooks`; the root by default.
///
/// # Example
/// ```
/// use webhooks_server::BasePath;
///
/// let path: BasePath = "/hooks/".parse()?;
/// assert_eq!(path.as_str(), "/hooks");
/// assert_eq!("/".parse::<BasePath>()?, BasePath::default());
/// assert!("hooks".parse::<BasePath>().is_err());
/// # Ok::<(), webhooks_server::BasePathError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

/// The error of a text that is no base path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a base path is / or has parts of letters, digits and -._~ after a / each, such as /hooks")]
pub struct BasePathError;

impl BasePath {
    /// Borrows the text that goes before each path: empty for the root, and without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for BasePath {
    type Err = BasePathError;

    fn from_str(text: &str) -> Result<Self, BasePathError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::default());
        }
        // Other characters can be written in more than one way, or mean something to a router.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_plain);
        let parts = text.strip_prefix('/').ok_or(BasePathError)?;
        let is_path = text.len() <= MAX_LEN && parts.split('/').all(is_part);
        if is_path { Ok(Self(text.to_owned())) } else { Err(BasePathError) }
    }
}

/// Writes the path; `/` for the root.
impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_a_router_or_a_proxy_would_read_in_another_way_are_refused() {
        for text in
            ["hooks", "//", "/a//b", "/a/../b", "/.", "/a b", "/{a}", "/a%20b", "/é", "/a?b"]
        {
            assert_eq!(text.parse::<BasePath>(), Err(BasePathError), "{text}");
        }
        assert!(format!("/{}", "a".repeat(MAX_LEN)).parse::<BasePath>().is_err());
    }

    #[test]
    fn the_text_is_that_before_each_path() {
        for (text, expected) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-c._~9/", "/a/b-c._~9")] {
            assert_eq!(text.parse::<BasePath>().unwrap().as_str(), expected);
        }
    }
}
