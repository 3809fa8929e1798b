//! The grammar of every scheme's headers.
#![no_main]

#[path = "../../../crates/webhooks-sign/tests/shared/any_input.rs"]
#[allow(dead_code)]
mod any_input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &[u8], &[u8])| {
    let (id, timestamp, signature, body) = input;
    any_input::headers(id, timestamp, signature, body);
});
