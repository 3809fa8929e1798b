//! The URLs to which deliveries may go.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use url::Url;

/// The longest URL in bytes.
const MAX_LEN: usize = 2048;

/// An absolute `http` or `https` URL with a host, without credentials and fragment.
///
/// Cheap to clone. The addresses behind the host's name are not checked here, but by the transport when
/// it resolves the name.
///
/// # Example
/// ```
/// use webhooks_registry::EndpointUrl;
///
/// assert_eq!(EndpointUrl::new("https://example.com/hook?a=1")?.as_str(), "https://example.com/hook?a=1");
/// assert!(EndpointUrl::new("ftp://example.com").is_err());
/// # Ok::<(), webhooks_registry::EndpointUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl(Arc<Url>);

/// The reason why a text is not the URL of an endpoint. It shows no part that could hold a credential.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointUrlError {
    /// The URL carries a user name or password. Secrets don't belong into URLs: they get logged.
    #[error("the URL has credentials; remove what stands before '@'")]
    Credentials,
    /// The URL has a fragment, which is never sent.
    #[error("the URL has a fragment; remove '#' and what follows")]
    Fragment,
    /// The text is not an absolute URL, or has no host.
    #[error("not an absolute URL such as https://example.com/webhook")]
    Malformed {
        /// The parser's error.
        source: url::ParseError,
    },
    /// The scheme is neither `http` nor `https`.
    #[error("the URL's scheme is {scheme:?}; it must be https or http")]
    Scheme {
        /// The scheme found.
        scheme: String,
    },
    /// The URL is longer than 2,048 bytes, as it was given or in its canonical form, in which
    /// other characters than ASCII's are escaped.
    #[error("the URL has {len} bytes; at most {MAX_LEN} are allowed")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
    },
}

impl EndpointUrl {
    /// Returns the URL that this text stands for.
    ///
    /// # Errors
    /// [`EndpointUrlError`] when the text is too long, not absolute, of another scheme, without a
    /// host, or has credentials or a fragment.
    pub fn new(text: &str) -> Result<Self, EndpointUrlError> {
        if text.len() > MAX_LEN {
            return Err(EndpointUrlError::TooLong { len: text.len() });
        }
        let url = Url::parse(text).map_err(|source| EndpointUrlError::Malformed { source })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EndpointUrlError::Scheme { scheme: url.scheme().to_owned() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointUrlError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(EndpointUrlError::Fragment);
        }
        // Stores keep the canonical form, and must be able to read it back.
        if url.as_str().len() > MAX_LEN {
            return Err(EndpointUrlError::TooLong { len: url.as_str().len() });
        }
        Ok(Self(Arc::new(url)))
    }

    /// Borrows the text, in the canonical form of the URL standard.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Borrows the parsed URL.
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and queries often carry tokens; a log needs the place alone.
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "EndpointUrl({}://{host}/…)", self.0.scheme())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_urls_are_refused_with_the_reason() {
        let check = |text: &str, reason: &str| {
            assert_eq!(EndpointUrl::new(text).unwrap_err().to_string(), reason, "{text:?}");
        };
        for text in
            ["", "example.com/hook", "/hook", "https://", "https:///", "http://?a", "http://a b/"]
        {
            check(text, "not an absolute URL such as https://example.com/webhook");
        }
        check("ftp://example.com/", "the URL's scheme is \"ftp\"; it must be https or http");
        check("file:///etc/passwd", "the URL's scheme is \"file\"; it must be https or http");
        check(
            "javascript:alert(1)",
            "the URL's scheme is \"javascript\"; it must be https or http",
        );
        let credentials = "the URL has credentials; remove what stands before '@'";
        check("https://user:password@example.com/", credentials);
        check("https://user@example.com/", credentials);
        check("https://:password@example.com/", credentials);
        check("https://example.com/#part", "the URL has a fragment; remove '#' and what follows");
        let long = format!("https://example.com/{}", "x".repeat(2048));
        check(&long, "the URL has 2068 bytes; at most 2048 are allowed");
        let long = format!("https://example.com/{}", "é".repeat(700));
        check(&long, "the URL has 4220 bytes; at most 2048 are allowed");
    }

    #[test]
    fn debug_leaves_path_and_query_out() {
        let url = EndpointUrl::new("https://example.com/hook?token=hush").unwrap();
        assert_eq!(format!("{url:?}"), "EndpointUrl(https://example.com/…)");
    }

    proptest! {
        #[test]
        fn what_passes_passes_again_as_it_is_shown(
            text in "https?://(e\\.example|é|[::1])(:80)?/[ -~é\u{10000}]{0,1000}",
        ) {
            if let Ok(url) = EndpointUrl::new(&text) {
                prop_assert_eq!(EndpointUrl::new(url.as_str()), Ok(url));
            }
        }

        #[test]
        fn no_text_panics_and_what_passes_has_a_host(text in "(https?:)?[/\\\\]{0,3}.{0,40}") {
            if let Ok(url) = EndpointUrl::new(&text) {
                prop_assert!(url.as_url().host_str().is_some_and(|host| !host.is_empty()));
            }
        }
    }
}
