//! The signatures that a header lists.

use crate::Error;
use crate::mac::Tag;
use crate::scheme::{Grammar, Scheme};

/// How many signatures a header may list.
///
/// The limit bounds what a stranger's request can cost. Svix, the sender with the longest lists,
/// keeps ten old keys beside the live one.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The well-formed signatures of a header, of the scheme's own version.
pub(crate) struct Listed {
    tags: [Tag; MAX_SIGNATURES],
    len: usize,
    /// How many signatures stand in the header, whatever their version and form.
    items: usize,
}

impl Listed {
    /// Reads the value of the signature header.
    ///
    /// One malformed item does not spoil the others: Standard Webhooks 1.0, "Signature scheme",
    /// has receivers try each.
    pub(crate) fn read(scheme: &Scheme, value: &[u8]) -> Result<Self, Error> {
        let mut listed = Self { tags: [Tag::EMPTY; MAX_SIGNATURES], len: 0, items: 0 };
        match scheme.grammar {
            Grammar::One { prefix } => {
                let text = value.strip_prefix(prefix.as_bytes()).ok_or(Error::InvalidHeader)?;
                listed.push(Some(scheme.decode(text).ok_or(Error::InvalidHeader)?))?;
            }
            Grammar::List { separator, version } => {
                listed.read_items(scheme, value, separator, version)?;
            }
            Grammar::Fields { separator, signature } => {
                if !items(value, separator).all(|field| field.contains(&b'=')) {
                    return Err(Error::InvalidHeader);
                }
                listed.read_items(scheme, value, separator, signature)?;
            }
        }
        // Nothing that could match: say so before the body is hashed.
        if listed.len == 0 { Err(Error::NoMatch) } else { Ok(listed) }
    }

    fn read_items(
        &mut self,
        scheme: &Scheme,
        value: &[u8],
        separator: u8,
        prefix: &str,
    ) -> Result<(), Error> {
        items(value, separator).try_for_each(|item| {
            let text = item.strip_prefix(prefix.as_bytes());
            self.push(text.and_then(|text| scheme.decode(text)))
        })
    }

    fn push(&mut self, tag: Option<Tag>) -> Result<(), Error> {
        self.items = self.items.saturating_add(1);
        if self.items > MAX_SIGNATURES {
            return Err(Error::TooManySignatures);
        }
        if let (Some(tag), Some(slot)) = (tag, self.tags.get_mut(self.len)) {
            *slot = tag;
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().take(self.len)
    }
}

fn items(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let items = value.split(move |byte| *byte == separator).map(<[u8]>::trim_ascii);
    items.filter(|item| !item.is_empty())
}

impl Scheme {
    fn decode(&self, text: &[u8]) -> Option<Tag> {
        self.algorithm.decode(self.encoding, text)
    }
}
