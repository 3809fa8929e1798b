//! Sign, cut, verify, and flip a bit.
#![no_main]

#[path = "../../../crates/webhooks-sign/tests/shared/any_input.rs"]
#[allow(dead_code)]
mod any_input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u128, &[u8], Vec<usize>, usize)| {
    let (id, body, cuts, bit) = input;
    any_input::whole(&format!("msg_{id:x}"), body, &cuts, bit);
    any_input::provider(body);
});
