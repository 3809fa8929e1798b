//! A reader of what a collector of OpenTelemetry gets: `ExportTraceServiceRequest` in Protocol Buffers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A span, with its ids in hex and its attributes as texts.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) started_at: u64,
    pub(crate) ended_at: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) error: Option<String>,
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} is no message"),
        }
    }

    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(bytes) => panic!("{bytes:?} is no number"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn hex(&self, len: usize) -> String {
        let bytes = self.bytes();
        assert_eq!(bytes.len(), len, "the bytes of an id");
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Returns the fields of a message with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                Field::Number(u64::from_le_bytes(*number))
            }
            2 => {
                let len = usize::try_from(varint(&mut bytes)).unwrap();
                let (inner, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(inner)
            }
            other => panic!("the wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn attribute(bytes: &[u8]) -> (String, String) {
    let (mut name, mut text) = (String::new(), String::new());
    for (number, field) in fields(bytes) {
        match number {
            1 => name = field.text(),
            2 => {
                for (number, value) in fields(field.bytes()) {
                    text = match number {
                        1 => value.text(),
                        3 => value.number().to_string(),
                        other => panic!("a value of kind {other}"),
                    };
                }
            }
            other => panic!("the field {other} of an attribute"),
        }
    }
    (name, text)
}

fn span(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    for (number, field) in fields(bytes) {
        match number {
            1 => found.trace = field.hex(16),
            2 => found.id = field.hex(8),
            3 => found.state = field.text(),
            4 => found.parent = field.hex(8),
            5 => found.name = field.text(),
            6 => found.kind = field.number(),
            7 => found.started_at = field.number(),
            8 => found.ended_at = field.number(),
            9 => {
                let (name, value) = attribute(field.bytes());
                found.attributes.insert(name, value);
            }
            15 => {
                for (number, part) in fields(field.bytes()) {
                    match number {
                        2 => found.error = Some(part.text()),
                        3 => assert_eq!(part.number(), 2, "STATUS_CODE_ERROR"),
                        other => panic!("the field {other} of a status"),
                    }
                }
            }
            other => panic!("the field {other} of a span"),
        }
    }
    found
}

/// Returns the spans of a request to a collector, in their order.
pub(crate) fn spans_in(request: &[u8]) -> Vec<Found> {
    let inner = |bytes, wanted| {
        let all = fields(bytes).into_iter().filter(move |(number, _)| *number == wanted);
        all.map(|(_, field)| field.bytes())
    };
    let mut found = Vec::new();
    for resource_spans in inner(request, 1) {
        let resource = inner(resource_spans, 1).next().unwrap();
        let (name, service) = attribute(inner(resource, 1).next().unwrap());
        assert_eq!(name, "service.name");
        for scope_spans in inner(resource_spans, 2) {
            let spans = inner(scope_spans, 2).map(span);
            found.extend(spans.map(|found| Found { service: service.clone(), ..found }));
        }
    }
    found
}
