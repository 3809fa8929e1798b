//! Texts and JSON from a file or from standard input.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// Reads a file; `-` is standard input.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() == "-" {
        let mut found = Vec::new();
        let read = std::io::stdin().read_to_end(&mut found);
        return read
            .map(|_len| found)
            .map_err(|error| Failure::file("read", "standard input", error));
    }
    fs::read(path).map_err(|error| Failure::file("read", path.display(), error))
}

/// Reads JSON of a file, with or without `@` before it; `-` is standard input.
pub(crate) fn json_file(path: &Path) -> Result<Value, Failure> {
    let path = path.to_str().and_then(|text| text.strip_prefix('@')).map_or(path, Path::new);
    let text = bytes(path)?;
    let json = serde_json::from_slice(&text);
    json.map_err(|error| Failure::usage(format!("{} is not JSON", path.display())).because(error))
}

/// Reads a payload: JSON, `@FILE` or `-`. It stays as it is written, byte for byte.
pub(crate) fn payload(text: &str) -> Result<Box<RawValue>, Failure> {
    let (bytes, place) = match text {
        "-" => (bytes(Path::new("-"))?, "standard input"),
        _ => match text.strip_prefix('@') {
            Some(path) => (bytes(Path::new(path))?, path),
            None => (text.as_bytes().to_vec(), "the payload"),
        },
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let failure = Failure::usage(format!("{place} is not JSON")).because(error);
        if Path::new(text).is_file() {
            failure.hint(format!("it is the name of a file: did you mean @{text}?"))
        } else {
            failure.hint("write JSON, @FILE for a file, or - for standard input")
        }
    })
}
