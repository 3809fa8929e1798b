//! The address policy: any text, read as a destination and checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webhooks_http::AddressPolicy;
use webhooks_registry::EndpointUrl;

fuzz_target!(|text: &str| {
    let Ok(url) = EndpointUrl::new(text) else { return };
    if AddressPolicy::public().check(&url).is_ok() {
        // Development allows everything that the public internet allows, and more.
        assert!(AddressPolicy::development().check(&url).is_ok());
        let host = url.as_url().host_str().unwrap_or_default();
        assert!(host.contains(['.', ':']), "{host}");
    }
});
