//! Rows in the text format of `COPY` (PostgreSQL, "COPY", Text Format).

/// A value as PostgreSQL reads it; `None` is NULL.
pub(super) type Field = Option<String>;

/// The rows of a `COPY`.
#[derive(Debug, Default)]
pub(super) struct CopyText {
    bytes: Vec<u8>,
}

impl CopyText {
    /// Adds a row.
    pub(super) fn add<'f>(&mut self, fields: impl IntoIterator<Item = &'f Field>) {
        for (place, field) in fields.into_iter().enumerate() {
            if place > 0 {
                self.bytes.push(b'\t');
            }
            match field {
                None => self.bytes.extend_from_slice(br"\N"),
                Some(text) => text.bytes().for_each(|byte| self.add_byte(byte)),
            }
        }
        self.bytes.push(b'\n');
    }

    fn add_byte(&mut self, byte: u8) {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => return self.bytes.push(other),
        };
        self.bytes.extend_from_slice(&[b'\\', escaped]);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns an array of texts (PostgreSQL, "Array Input and Output Syntax").
pub(super) fn array<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted =
        |text: &T| format!("\"{}\"", text.as_ref().replace('\\', r"\\").replace('"', "\\\""));
    format!("{{{}}}", texts.iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// Returns bytes as a `bytea` (PostgreSQL, "bytea Hex Format").
pub(super) fn bytea(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(bytes.len() * 2 + 2);
    text.push_str(r"\x");
    for byte in bytes {
        // Writing into a String cannot fail.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_end_a_field_are_escaped() {
        let mut rows = CopyText::default();
        rows.add(&[
            Some("a\tb\\c\r\n".to_owned()),
            None,
            Some(String::new()),
            Some(r"\N".to_owned()),
        ]);
        assert_eq!(rows.into_bytes(), b"a\\tb\\\\c\\r\\n\t\\N\t\t\\\\N\n");
    }

    #[test]
    fn arrays_and_bytes_have_the_form_that_postgresql_reads() {
        assert_eq!(array(&["a", "b\"c", "d\\", ""]), r#"{"a","b\"c","d\\",""}"#);
        assert_eq!(array::<&str>(&[]), "{}");
        assert_eq!(bytea(&[0, 0xAB]), r"\x00ab");
    }
}
