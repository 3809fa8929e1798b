//! Changes that are often made to a body on its way, and the bodies that it may have been before.

use std::fmt;

use crate::json_text::{
    Layout, Slashes, Spelling, is_json, laid_out, sorted, spelt, without_spaces,
};

/// The bytes of U+FEFF, which some editors put at the start of a text.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// The layouts of JSON that programs write.
const LAYOUTS: [Layout; 5] = [
    Layout::Compact,
    Layout::Spaced,
    Layout::Indented("  "),
    Layout::Indented("    "),
    Layout::Indented("\t"),
];

/// A change that something often makes to a body between its sender and its receiver, so that the signature
/// no longer fits.
///
/// `{}` tells with which body the signature fits, and what was done to it.
///
/// # Example
/// ```
/// use webhooks_receive::body_change::BodyChange;
///
/// let before: Vec<Vec<u8>> = BodyChange::JsonSpaced.undo(b"{\"a\": 1}").collect();
/// assert_eq!(before, [b"{\"a\":1}"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyChange {
    /// White space was added at the end.
    SpaceAdded,
    /// The line break at the end was cut off.
    LineBreakCut,
    /// Line feeds became CRLF.
    ReturnsAdded,
    /// CRLF became line feeds.
    ReturnsRemoved,
    /// A byte order mark was added at the start.
    MarkAdded,
    /// The byte order mark at the start was removed.
    MarkRemoved,
    /// White space was added between the tokens of JSON.
    JsonSpaced,
    /// White space between the tokens of JSON was removed or changed.
    JsonCompacted,
    /// The keys of JSON were sorted, and no longer are.
    JsonUnsorted,
    /// Slashes in JSON were escaped.
    SlashesEscaped,
    /// Escaped slashes in JSON were unescaped.
    SlashesUnescaped,
    /// Characters in JSON were escaped.
    CharactersEscaped,
    /// Escaped characters in JSON were unescaped.
    CharactersUnescaped,
    /// The JSON was put into a JSON text.
    Quoted,
    /// The body was encoded as in a URL.
    PercentEncoded,
    /// The body was decoded as in a URL.
    PercentDecoded,
    /// The JSON was read and written anew, by another program with other habits.
    JsonRewritten,
}

impl BodyChange {
    /// All changes, the cheapest to try and most frequent first.
    pub const ALL: [Self; 17] = [
        Self::SpaceAdded,
        Self::LineBreakCut,
        Self::ReturnsAdded,
        Self::ReturnsRemoved,
        Self::MarkAdded,
        Self::MarkRemoved,
        Self::JsonSpaced,
        Self::JsonCompacted,
        Self::JsonUnsorted,
        Self::SlashesEscaped,
        Self::SlashesUnescaped,
        Self::CharactersEscaped,
        Self::CharactersUnescaped,
        Self::Quoted,
        Self::PercentEncoded,
        Self::PercentDecoded,
        Self::JsonRewritten,
    ];

    /// Returns the bodies from which this change may have made a body: none that is equal to it. Each is made
    /// when it is asked for, since a body may be large.
    pub fn undo(self, body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        self.candidates(body).filter(move |before| before != body)
    }

    fn candidates(self, body: &[u8]) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
        let json = || str::from_utf8(body).ok().filter(|text| is_json(text));
        let spellings =
            |ways: &'static [(Spelling, Slashes)]| -> Box<dyn Iterator<Item = Vec<u8>>> {
                let spell = move |json| {
                    ways.iter().map(move |(spelling, slashes)| spelt(json, *spelling, *slashes))
                };
                Box::new(json().into_iter().flat_map(spell).map(String::into_bytes))
            };
        match self {
            Self::SpaceAdded => {
                let line =
                    body.strip_suffix(b"\n").map(|cut| cut.strip_suffix(b"\r").unwrap_or(cut));
                Box::new(line.into_iter().chain([body.trim_ascii_end()]).map(<[u8]>::to_vec))
            }
            Self::LineBreakCut => {
                Box::new([&b"\n"[..], b"\r\n"].into_iter().map(move |end| [body, end].concat()))
            }
            Self::ReturnsAdded => Box::new(std::iter::once_with(move || line_feeds(body))),
            Self::ReturnsRemoved => {
                Box::new(std::iter::once_with(move || replaced(&line_feeds(body), b'\n', b"\r\n")))
            }
            Self::MarkAdded => Box::new(body.strip_prefix(MARK).map(<[u8]>::to_vec).into_iter()),
            Self::MarkRemoved => Box::new(std::iter::once_with(move || [MARK, body].concat())),
            Self::JsonSpaced => Box::new(std::iter::once_with(move || without_spaces(body))),
            Self::JsonCompacted => {
                let layouts = LAYOUTS.into_iter().filter(|layout| *layout != Layout::Compact);
                Box::new(json().into_iter().flat_map(move |json| {
                    layouts.clone().map(move |layout| laid_out(json.as_bytes(), layout))
                }))
            }
            Self::JsonUnsorted => {
                let sorted = json().and_then(sorted).into_iter();
                Box::new(sorted.flat_map(|json| {
                    LAYOUTS.into_iter().map(move |layout| laid_out(json.as_bytes(), layout))
                }))
            }
            Self::SlashesEscaped => spellings(&[(Spelling::AsItIs, Slashes::Plain)]),
            Self::SlashesUnescaped => spellings(&[(Spelling::AsItIs, Slashes::Escaped)]),
            Self::CharactersEscaped => spellings(&[(Spelling::Plain, Slashes::AsTheyAre)]),
            Self::CharactersUnescaped => spellings(&[
                (Spelling::Escaped, Slashes::AsTheyAre),
                (Spelling::ForHtml, Slashes::AsTheyAre),
            ]),
            Self::Quoted => {
                let inside = serde_json::from_slice::<String>(body).ok();
                Box::new(inside.map(String::into_bytes).into_iter())
            }
            Self::PercentEncoded => Box::new(
                [false, true].into_iter().map(move |is_form| percent_decoded(body, is_form)),
            ),
            Self::PercentDecoded => {
                let encoded =
                    |body: &[u8]| form_urlencoded::byte_serialize(body).collect::<String>();
                let form = move || {
                    let pairs = form_urlencoded::parse(body);
                    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
                };
                let all =
                    std::iter::once_with(move || encoded(body)).chain(std::iter::once_with(form));
                let with_spaces = |text: String| [text.replace('+', "%20"), text];
                Box::new(all.flat_map(with_spaces).map(String::into_bytes))
            }
            Self::JsonRewritten => Box::new(json().into_iter().flat_map(rewritten)),
        }
    }
}

impl fmt::Display for BodyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it matches the body {}: {}", self.before(), self.deed())
    }
}

impl BodyChange {
    /// Returns what the body was like before: a text that follows "the body".
    pub fn before(self) -> &'static str {
        match self {
            Self::SpaceAdded => "without white space at the end",
            Self::LineBreakCut => "with a line break at the end",
            Self::ReturnsAdded => "with LF in place of CRLF",
            Self::ReturnsRemoved => "with CRLF in place of LF",
            Self::MarkAdded => "without its byte order mark",
            Self::MarkRemoved => "with a byte order mark",
            Self::JsonSpaced => "without spaces",
            Self::JsonCompacted => "with other spaces in the JSON",
            Self::JsonUnsorted => "with the keys of the JSON sorted",
            Self::SlashesEscaped => "with / in place of \\/",
            Self::SlashesUnescaped => "with \\/ in place of /",
            Self::CharactersEscaped => "with characters in place of \\uXXXX",
            Self::CharactersUnescaped => "with \\uXXXX in place of characters",
            Self::Quoted => "without the JSON text around it",
            Self::PercentEncoded => "with %XX decoded",
            Self::PercentDecoded => "with %XX in place of characters",
            Self::JsonRewritten => "with the JSON spelt otherwise in several ways",
        }
    }

    /// Returns what something does to the body.
    pub fn deed(self) -> &'static str {
        match self {
            Self::SpaceAdded => "something adds it",
            Self::LineBreakCut => "something cuts it off",
            Self::ReturnsAdded | Self::ReturnsRemoved => "something converts line breaks",
            Self::MarkAdded => "something adds one",
            Self::MarkRemoved => "something removes it",
            Self::JsonSpaced | Self::JsonCompacted => "something formats the JSON anew",
            Self::JsonUnsorted => "something changes their order",
            Self::SlashesEscaped | Self::CharactersEscaped => {
                "something reads the JSON and writes it with escapes"
            }
            Self::SlashesUnescaped | Self::CharactersUnescaped => {
                "something reads the JSON and writes it without escapes"
            }
            Self::Quoted => "something encodes the JSON twice",
            Self::PercentEncoded => "something encodes the body as a form",
            Self::PercentDecoded => "something decodes the body as a form",
            Self::JsonRewritten => "something reads the JSON and writes it anew",
        }
    }
}

/// Returns JSON as programs of other languages write it.
fn rewritten(json: &str) -> impl Iterator<Item = Vec<u8>> {
    let spellings = [Spelling::AsItIs, Spelling::Plain, Spelling::Escaped, Spelling::ForHtml];
    let slashes = [Slashes::AsTheyAre, Slashes::Plain, Slashes::Escaped];
    let texts = [Some(json.to_owned()), sorted(json)].into_iter().flatten();
    let texts = texts.flat_map(move |text| {
        let ways = spellings.into_iter().flat_map(move |one| slashes.map(|other| (one, other)));
        ways.map(move |(spelling, slashes)| spelt(&text, spelling, slashes))
    });
    texts.flat_map(|text| {
        let layouts = LAYOUTS.into_iter().chain([Layout::AsItIs]);
        layouts.flat_map(move |layout| {
            let laid = laid_out(text.as_bytes(), layout);
            [[&laid[..], b"\n"].concat(), laid]
        })
    })
}

fn line_feeds(body: &[u8]) -> Vec<u8> {
    let nexts = body.iter().skip(1).map(Some).chain([None]);
    let pairs = body.iter().zip(nexts);
    pairs.filter(|pair| *pair != (&b'\r', Some(&b'\n'))).map(|(byte, _)| *byte).collect()
}

fn replaced(body: &[u8], from: u8, to: &[u8]) -> Vec<u8> {
    let mut parts = body.split(|byte| *byte == from);
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        out.extend(to);
        out.extend(part);
    }
    out
}

/// Decodes each `%XX` that is one; in a form, `+` stands for a space.
fn percent_decoded(body: &[u8], is_form: bool) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(body.len()), body);
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| {
                *first == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            })
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(match byte {
            Some(byte) => byte,
            None if is_form && *first == b'+' => b' ',
            None => *first,
        });
        rest = if byte.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    out
}
