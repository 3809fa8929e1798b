//! Secrets as people paste them.
#![no_main]

#[path = "../../../crates/webhooks-sign/tests/shared/any_input.rs"]
#[allow(dead_code)]
mod any_input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| any_input::secret(input.0, input.1));
