//! Descriptions of schemes, for finding out why a webhook was refused.

use core::fmt;

use super::{Part, Scheme, TimestampSource};
use crate::Algorithm;

impl Scheme {
    /// Returns a text that shows what is signed and where the signature stands.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::standard::STANDARD;
    ///
    /// assert_eq!(
    ///     STANDARD.describe().to_string(),
    ///     "webhook-signature: \"v1,<padded base64>\", hmac_sha256 of \
    ///      {webhook-id}.{webhook-timestamp}.{body}"
    /// );
    /// ```
    pub fn describe(&self) -> impl fmt::Display {
        Description(*self)
    }
}

struct Description(Scheme);

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(scheme) = self;
        let header = scheme.signature;
        if scheme.algorithm == Algorithm::Token {
            return write!(f, "{header}: the secret itself");
        }
        write!(f, "{header}: {}, {} of ", scheme.expected(), scheme.algorithm)?;
        for part in scheme.parts {
            match part {
                Part::Body => f.write_str("{body}"),
                Part::Form => f.write_str("{sorted fields of the form}"),
                Part::Id => write!(f, "{{{}}}", scheme.id.unwrap_or_default()),
                Part::Literal(text) => f.write_str(text),
                Part::Method => f.write_str("{method}"),
                Part::Timestamp => match scheme.timestamp {
                    Some(TimestampSource::Header(name, _)) => write!(f, "{{{name}}}"),
                    Some(TimestampSource::Field(name, _)) => write!(f, "{{{name}…}}"),
                    None => Ok(()),
                },
                Part::Token => f.write_str("{token}"),
                Part::Url => f.write_str("{url}"),
            }?;
        }
        Ok(())
    }
}
