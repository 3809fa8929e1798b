//! Signing and verifying allocate nothing, counted by an allocator.

use webhooks_sign::providers::{GITLAB_TOKEN, HUBSPOT_V3, STRIPE};
use webhooks_sign::standard::{self, STANDARD};
use webhooks_sign::{Envelope, Key, KeyRing, x_webhook};

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
}

#[test]
fn nothing_is_allocated() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = vec![7; 100_000];
    let count = allocations(|| {
        let key = Key::standard(secret).unwrap();
        let signature = standard::sign(&key, "msg_1", 17, &body).unwrap();
        let headers = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "17"),
            ("webhook-signature", signature.as_str()),
        ];
        let keys = KeyRing::from([key.clone(), key.clone()]);
        standard::verify(&keys, &headers, &body, 17).unwrap();
        assert!(standard::verify(&keys, &headers, b"", 17).is_err());
        let mut pending = STANDARD.verifier().begin(&keys, &headers, 17).unwrap();
        body.chunks(999).for_each(|chunk| pending.update(chunk));
        pending.finish().unwrap();
        x_webhook::sign(&key, &body).unwrap();
        let mut buffer = [0; 95];
        standard::sign_into([&key, &key], "msg_1", 17, &body, &mut buffer).unwrap();
        drop(Key::from_legacy_secret(key.algorithm(), "c2hvcnQ").unwrap());
    });
    assert_eq!(count, 0);

    let count = allocations(|| {
        for scheme in [STRIPE, HUBSPOT_V3, GITLAB_TOKEN] {
            let key = scheme.key("secret").unwrap();
            let url = "https://example.com/";
            let envelope =
                Envelope { timestamp: "17000", method: "POST", url, ..Envelope::default() };
            let signature = scheme.sign(&key, &envelope, &body);
            let value = signature.as_ref().map_or("secret", |signature| signature.as_str());
            let headers =
                [(scheme.signature_header(), value), ("x-hubspot-request-timestamp", "17000")];
            let verifier = scheme.verifier().method("POST").url(url);
            // Stripe's header lacks its time here: refusing allocates nothing either.
            let verified = verifier.verify(&KeyRing::from(key), &headers, &body, 17);
            assert_eq!(verified.is_ok(), scheme != STRIPE);
        }
    });
    assert_eq!(count, 0);
}
