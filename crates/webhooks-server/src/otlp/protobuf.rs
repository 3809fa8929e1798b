//! The form of messages on the wire: Protocol Buffers, "Encoding".

/// The wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

/// A message under construction. As in every writer of proto3, a field with the default value is left out.
#[derive(Debug, Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    /// Adds bytes or a text.
    pub(super) fn bytes(&mut self, field: u64, value: &[u8]) {
        if !value.is_empty() {
            self.tag(field, LENGTH_DELIMITED);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// Adds a whole number that is not negative.
    pub(super) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            self.varint(value);
        }
    }

    /// Adds a member of a `oneof`, which is there also if it has the default value.
    pub(super) fn chosen_number(&mut self, field: u64, value: u64) {
        self.tag(field, VARINT);
        self.varint(value);
    }

    pub(super) fn fixed_64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, FIXED_64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Adds a message within this one, also if it is empty.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.tag(field, LENGTH_DELIMITED);
        self.varint(inner.0.len() as u64);
        self.0.extend_from_slice(&inner.0);
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Protocol Buffers, "Encoding".
    #[test]
    fn messages_have_the_form_of_the_specification() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 150));
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01";
        assert_eq!(message.0, expected);
        let mut message = Message::default();
        message.number(1, 0);
        message.bytes(2, b"");
        message.fixed_64(3, 0);
        assert!(message.0.is_empty());
        message.fixed_64(7, 1);
        message.chosen_number(3, 0);
        message.number(16, u64::MAX);
        let expected =
            b"\x39\x01\0\0\0\0\0\0\0\x18\0\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(message.0, expected);
    }
}
