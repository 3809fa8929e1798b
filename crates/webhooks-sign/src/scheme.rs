//! The template that every scheme fills in: which headers, which grammar, which bytes are signed.

use crate::encoding::Encoding;
use crate::headers::{Headers, single};
use crate::mac::{Mac, Tag};
use crate::{Error, Tolerance};

/// How many signatures a header may list.
///
/// The limit bounds what a stranger's request can cost. Svix, the sender with the longest lists,
/// keeps ten old keys beside the live one.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The longest id in bytes. The limit is ours; Standard Webhooks gives none.
const MAX_ID_LEN: usize = 256;

/// A way to sign webhooks, as data.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    /// The header that carries the signatures.
    pub(crate) signature: &'static str,
    pub(crate) grammar: Grammar,
    pub(crate) encoding: Encoding,
    /// The header that carries the id, if one is signed.
    pub(crate) id: Option<&'static str>,
    /// The header that carries the timestamp in Unix seconds, if one is signed.
    pub(crate) timestamp: Option<&'static str>,
    /// What is signed ahead of the body.
    pub(crate) parts: &'static [Part],
}

/// How the signature header lists its signatures.
#[derive(Debug)]
pub(crate) enum Grammar {
    /// The value is one signature.
    One,
    /// Items separated by spaces, each with its version ahead; items of other versions are skipped.
    List { version: &'static str },
}

/// A part of the signed bytes.
#[derive(Debug)]
pub(crate) enum Part {
    Id,
    Literal(&'static str),
    Timestamp,
}

/// What the headers said, checked as far as it can be without hashing.
pub(crate) struct Envelope<'h> {
    pub(crate) id: Option<&'h str>,
    pub(crate) timestamp: Option<u64>,
    timestamp_text: &'h str,
    pub(crate) listed: Listed,
}

impl Scheme {
    /// Reads the headers, refusing whatever needs no hashing to refuse.
    pub(crate) fn open<'h>(
        &'static self,
        headers: &'h (impl Headers + ?Sized),
        tag_len: usize,
        now: u64,
        tolerance: Tolerance,
    ) -> Result<Envelope<'h>, Error> {
        let signature = single(headers, self.signature)?;
        let id = self.id.map(|name| single(headers, name)).transpose()?;
        let id = id.map(check_id).transpose()?;
        let timestamp_text = match self.timestamp {
            Some(name) => str::from_utf8(single(headers, name)?).unwrap_or_default(),
            None => "",
        };
        let timestamp = match self.timestamp {
            Some(_) => Some(parse_timestamp(timestamp_text)?),
            None => None,
        };
        if let Some(timestamp) = timestamp {
            tolerance.check(timestamp, now)?;
        }
        let listed = self.list(signature, tag_len)?;
        Ok(Envelope { id, timestamp, timestamp_text, listed })
    }

    fn list(&self, value: &[u8], tag_len: usize) -> Result<Listed, Error> {
        let mut listed = Listed::new();
        match self.grammar {
            Grammar::One => {
                let tag = self.encoding.decode(value, tag_len).ok_or(Error::InvalidHeader)?;
                listed.push(Some(tag))?;
            }
            Grammar::List { version } => {
                for item in value.split(|&byte| byte == b' ').filter(|item| !item.is_empty()) {
                    let encoded = item.strip_prefix(version.as_bytes());
                    listed.push(encoded.and_then(|text| self.encoding.decode(text, tag_len)))?;
                }
            }
        }
        // Nothing that could match: say so before the body is hashed.
        if listed.is_empty() { Err(Error::NoMatch) } else { Ok(listed) }
    }

    /// Hashes what is signed ahead of the body.
    pub(crate) fn start(&self, mac: &mut Mac, id: &str, timestamp: &str) {
        for part in self.parts {
            mac.update(match part {
                Part::Id => id.as_bytes(),
                Part::Literal(text) => text.as_bytes(),
                Part::Timestamp => timestamp.as_bytes(),
            });
        }
    }
}

impl Envelope<'_> {
    pub(crate) fn start(&self, scheme: &Scheme, mac: &mut Mac) {
        scheme.start(mac, self.id.unwrap_or_default(), self.timestamp_text);
    }
}

/// The signatures that a header lists and that could match.
pub(crate) struct Listed {
    tags: [Option<Tag>; MAX_SIGNATURES],
    items: usize,
}

impl Listed {
    fn new() -> Self {
        Self { tags: [None; MAX_SIGNATURES], items: 0 }
    }

    /// Counts an item and keeps its MAC, if it is well-formed and of the scheme's version.
    fn push(&mut self, tag: Option<Tag>) -> Result<(), Error> {
        *self.tags.get_mut(self.items).ok_or(Error::TooManySignatures)? = tag;
        self.items = self.items.saturating_add(1);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().flatten()
    }
}

/// Standard Webhooks 1.0, "Signature scheme": id and timestamp must not be user controlled, "or at
/// the very least not be allowed to include any `.`", or a part of one could pass for the other.
pub(crate) fn is_valid_id(id: &[u8]) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.')
}

fn check_id(id: &[u8]) -> Result<&str, Error> {
    let text = str::from_utf8(id).unwrap_or_default();
    if is_valid_id(text.as_bytes()) { Ok(text) } else { Err(Error::InvalidHeader) }
}

/// Reads canonical digits alone, without sign or leading zero: then the text as received and the
/// number written anew are the same signed bytes.
fn parse_timestamp(text: &str) -> Result<u64, Error> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical).ok_or(Error::InvalidTimestamp)
}
