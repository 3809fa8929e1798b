//! Keys made of the caller's randomness, and the texts by which they are shared.

use proptest::collection::vec;
use proptest::prelude::*;
use webhooks_sign::providers::{GITHUB, STRIPE};
use webhooks_sign::{Algorithm, Key, KeyError, scheme::Encoding, x_webhook};

proptest! {
    #[test]
    fn a_written_secret_is_the_key_of_its_bytes(bytes in vec(any::<u8>(), 24..=64)) {
        let mut text = String::new();
        Key::write_secret(&bytes, &mut text).unwrap();
        let sign = |key: Key| x_webhook::sign(&key, b"body").unwrap().to_string();
        let expected = sign(Key::from_bytes(Algorithm::HmacSha256, &bytes).unwrap());
        prop_assert_eq!(sign(Key::standard(&text).unwrap()), expected);
    }
}

#[test]
fn what_would_be_no_secret_is_not_written() {
    let write = |bytes: &[u8]| {
        let mut text = String::new();
        let result = Key::write_secret(bytes, &mut text);
        assert!(result.is_ok() || text.is_empty());
        result
    };
    assert_eq!(write(b""), Err(KeyError::Empty));
    assert_eq!(write(&[7; 23]), Err(KeyError::Length { min: 24, max: 64 }));
    assert_eq!(write(&[7; 65]), Err(KeyError::Length { min: 24, max: 64 }));
    assert_eq!(
        write(b"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="),
        Err(KeyError::Asymmetric)
    );
}

/// A dashboard, a file or a shell adds something, and the text would be another key.
#[test]
fn a_secret_that_was_copied_badly_is_refused_with_what_to_mend() {
    let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let expected = "whsec_";
    assert!(Key::standard(secret).is_ok());
    for (text, reason) in [
        (format!("v1,{secret}"), KeyError::PrefixInside { expected }),
        (format!("WEBHOOK_SECRET={secret}"), KeyError::PrefixInside { expected }),
        (secret.replace("whsec_", "WHSEC_"), KeyError::PrefixSpelling { expected }),
        (secret.replace("whsec_", "whsec-"), KeyError::PrefixSpelling { expected }),
        (secret.replace("whsec_", "whpsk_"), KeyError::Prefix { expected }),
        (format!(" {secret}"), KeyError::Surrounded),
        (format!("{secret}\n"), KeyError::Surrounded),
        (format!("{secret}\r\n"), KeyError::Surrounded),
        (format!("\"{secret}\""), KeyError::Surrounded),
        (format!("'{secret}'"), KeyError::Surrounded),
        (format!("\u{feff}{secret}"), KeyError::Surrounded),
        (
            secret.trim_end_matches('w').to_owned(),
            KeyError::Encoding { expected: Encoding::Base64 },
        ),
    ] {
        let error = Key::standard(&text).unwrap_err();
        assert_eq!(error, reason, "{text:?}");
        assert!(!error.to_string().contains("MfKQ"), "{error}");
    }
    // Where the text is the key, as with most providers, the same marks are a mistake too.
    assert_eq!(
        STRIPE.key(&format!("v1,{secret}")).unwrap_err(),
        KeyError::PrefixInside { expected }
    );
    for text in ["secret\n", " secret", "\"secret\"", "\u{feff}secret"] {
        assert_eq!(GITHUB.key(text).unwrap_err(), KeyError::Surrounded, "{text:?}");
    }
}

/// Receivers that take the text for the key, where the base64 in it is, verify nothing.
#[test]
fn a_standard_secret_is_no_plain_one_unless_a_provider_says_so() {
    let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let plain = Key::from_legacy_bytes(Algorithm::HmacSha256, secret.as_bytes());
    assert_eq!(plain.unwrap_err(), KeyError::StandardSecret);
    assert!(STRIPE.key(secret).is_ok(), "Stripe's secrets are text");
    // As our senders sign with it.
    let same = [x_webhook::X_WEBHOOK.key(secret), Key::standard(secret)];
    let [one, other] = same.map(|key| x_webhook::sign(&key.unwrap(), b"{}").unwrap());
    assert_eq!(one.as_str(), other.as_str());
}

#[test]
fn secrets_of_supabase_and_polar_are_read_as_their_dashboards_show_them() {
    let sign = |key: Key| x_webhook::sign(&key, b"body").unwrap().to_string();
    let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let shown = format!("v1,{secret}");
    assert_eq!(sign(Key::supabase(&shown).unwrap()), sign(Key::standard(secret).unwrap()));
    let refused = |secret: &str| Key::supabase(secret).unwrap_err();
    assert_eq!(refused(""), KeyError::Empty);
    let expected = concat!("v1,", "whsec_");
    assert_eq!(refused(secret), KeyError::Prefix { expected });
    assert_eq!(refused(&format!("{shown}\n")), KeyError::Surrounded);
    assert_eq!(refused("v1,"), KeyError::Empty);
    let public = "v1,whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    assert_eq!(refused(public), KeyError::Asymmetric);
    assert_eq!(
        refused(&format!("{shown}|{shown}")),
        KeyError::Encoding { expected: Encoding::Base64 }
    );

    // Polar's guide has the text encoded in base64 for libraries that decode it.
    for (text, encoded) in [
        ("polar_whs_0123456789", "cG9sYXJfd2hzXzAxMjM0NTY3ODk="),
        (secret, "d2hzZWNfTWZLUTlyOEdLWXFyVHdqVVBEOElMUFpJbzJMYUxhU3c="),
    ] {
        let decoded = Key::from_legacy_secret(Algorithm::HmacSha256, encoded).unwrap();
        assert_eq!(sign(Key::polar(text).unwrap()), sign(decoded), "{text}");
    }
    assert_eq!(Key::polar("").unwrap_err(), KeyError::Empty);
}

/// RFC 8032 §7.1, test 1: the seed, the public key, and the signature of the empty message.
#[cfg(feature = "ed25519")]
#[test]
fn an_ed25519_key_of_a_seed_signs_and_is_written_as_the_rfc_says() {
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    let key = Key::ed25519_from_seed(&seed);
    let sign = |key: &Key| {
        let scheme = webhooks_sign::scheme::Scheme::custom("rfc8032", "signature");
        let scheme = scheme.algorithm(Algorithm::Ed25519).build().unwrap();
        scheme.sign(key, &webhooks_sign::Envelope::default(), b"").unwrap().to_string()
    };
    let expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
        5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    assert_eq!(sign(&key), expected);

    let (mut public, mut secret) = (String::new(), String::new());
    key.write_public(&mut public).unwrap();
    assert_eq!(public, concat!("whpk_", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
    Key::write_ed25519_secret(&seed, &mut secret).unwrap();
    assert_eq!(
        secret,
        concat!(
            "whsk_",
            "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg=="
        )
    );
    assert_eq!(sign(&Key::standard(&secret).unwrap()), expected);
    let hmac = Key::from_bytes(Algorithm::HmacSha256, &[7; 32]).unwrap();
    assert_eq!(hmac.write_public(&mut public), Err(KeyError::Algorithm));
}
