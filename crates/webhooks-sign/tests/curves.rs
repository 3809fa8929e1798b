//! Signatures by a curve: each costs some 40 HMACs of a short body, so that few may be listed.
#![cfg(all(feature = "ed25519", feature = "p256"))]

use webhooks_sign::{
    Algorithm, Error, Key, KeyRing, SignError,
    scheme::{Grammar, KeyFormat, Scheme},
    standard,
};

const NOW: u64 = 1_767_225_600;

#[test]
fn more_than_four_signatures_by_a_curve_are_refused_before_hashing() {
    // SendGrid's public key in `vectors/providers.json`, and that of RFC 8032 §7.1, test 1.
    let spki = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRq\
        e62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let grammar = Grammar::List { separator: b',', version: "v1=" };
    let scheme =
        |algorithm| Scheme::custom("acme", "acme-signature").grammar(grammar).algorithm(algorithm);
    let p256 = scheme(Algorithm::EcdsaP256).key_format(KeyFormat::Base64).build().unwrap();
    let ed25519 = scheme(Algorithm::Ed25519).key_format(KeyFormat::Hex).build().unwrap();
    for (scheme, secret) in [(p256, spki), (ed25519, public)] {
        let keys = KeyRing::from(scheme.key(secret).unwrap());
        let bad = format!("v1={}", "0".repeat(128));
        for (count, expected) in
            [(4, None), (5, Some(Error::TooManySignatures { header: "acme-signature" }))]
        {
            let list = vec![bad.as_str(); count].join(",");
            let begun = scheme.verifier().begin(&keys, &[("acme-signature", &list)], 0).err();
            assert_eq!(begun, expected, "{} {count}", scheme.algorithm());
        }
    }
}

/// Receivers look at four, so that a fifth would make them refuse all.
#[test]
fn no_more_ed25519_signatures_are_written_than_are_read() {
    // Svix's, in `vectors/standard_webhooks.json`.
    let secret = concat!(
        "whsk_",
        "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
    );
    let ed25519 = Key::standard(secret).unwrap();
    let sha256 = Key::from_bytes(Algorithm::HmacSha256, &[1; 32]).unwrap();
    let now = NOW.to_string();
    for (curves, hmacs, is_written) in
        [(4, 0, true), (5, 0, false), (4, 12, true), (4, 13, false), (0, 16, true)]
    {
        let keys = vec![&ed25519; curves].into_iter().chain(vec![&sha256; hmacs]);
        let mut value = String::new();
        let signed = standard::sign_all(keys, "msg_1", NOW, b"", &mut value);
        let expected = if is_written { Ok(()) } else { Err(SignError::UnsuitableKey) };
        assert_eq!(signed, expected, "{curves} {hmacs}");
        if is_written {
            let headers = [
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &now),
                ("webhook-signature", &value),
            ];
            let keys = KeyRing::from(if hmacs > 0 { sha256.clone() } else { ed25519.clone() });
            let verified = standard::verify(&keys, &headers, b"", NOW);
            assert!(verified.is_ok(), "{curves} {hmacs}");
        }
    }
}
