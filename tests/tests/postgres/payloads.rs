//! Payloads that callers in SQL may publish: the same that the library accepts.

use webhooks_core::Payload;

use super::*;

/// Goal: the function accepts and refuses the same payloads as the library. Method: texts at each
/// border, and random ones.
#[tokio::test]
async fn the_function_takes_the_payloads_that_the_library_takes() {
    let url = Cluster::shared().database().await;
    let _store = open(&url).await;
    let mut connection = connect(&url).await;
    sqlx::raw_sql("SET standard_conforming_strings = off").execute(&mut connection).await.unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let texts = [at_borders(), numbers_at_the_border(&mut random), pairs(&mut random)].concat();
    for (n, text) in texts.iter().enumerate() {
        let publish = "SELECT webhooks.publish('a', $1::text::json, id => $2)";
        let publish = sqlx::query(publish).bind(text).bind(format!("event-{n}"));
        let published = publish.execute(&mut connection).await;
        let taken = Payload::from_json(text.clone());
        assert_eq!(published.is_ok(), taken.is_ok(), "{text}: {published:?} {taken:?}");
    }
}

/// Returns texts at each border, on both sides of it.
fn at_borders() -> Vec<String> {
    let nested = |open: &str, levels, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    let mut texts: Vec<String> = [
        r#""\ud800""#,
        r#""\uDC00x""#,
        r#"{"\ud83d\ude00": "\ud83d\ude00"}"#,
        r#""\\ud800""#,
        r#""\\\ud800""#,
        r#""\ud83d\\ude00""#,
        r#""\ud83d \ude00""#,
        r#""\ud83d\ud83d\ude00""#,
        r#""\u0000""#,
        "1e308",
        "1e309",
        "-1E+309",
        "1e999",
        "0e999",
        "0.000e400",
        "0.001e311",
        "0.001e312",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e-999",
        "12e-400",
        "1e99999999999999999999",
        "[1e999]",
        r#""1e999""#,
        r#"{"1e999": 1}"#,
        "[1, 2e400]",
        "17976931348623157999e289",
        "1797693134862315799e290",
        "[-0.17976931348623158079e309]",
        "1.7976931348623158e308",
        "1.8446744073709551616e308",
        "0e99999999999999999999",
        "1e-99999999999999999999",
        r#"{"$serde_json::private::RawValue": "1"}"#,
        r#"[{"a": 1, "\u0024serde_jso\u006E::private::RawValue" : "1"}]"#,
        r#"{"$serde_json::privat\u0065::RawValue":1}"#,
        r#"{"$serde_json::private::Number": "1"}"#,
        r#"{"a": "$serde_json::private::Number", "$serde_json::private": {}}"#,
        r#"{"a\"$serde_json::private::RawValue": "1"}"#,
    ]
    .map(str::to_owned)
    .into();
    for levels in [1, 125, 126, 127, 200] {
        texts.push(nested("[", levels, "", "]"));
        texts.push(nested(r#"{"[\"[": "#, levels, "1", "}"));
        texts.push(nested(r#"[{"a":"#, levels / 2, "[]", "}]"));
    }
    for digits in [308, 309, 310, 400] {
        texts.extend(["1", "9"].map(|digit| digit.repeat(digits)));
        texts.push(format!("{}e-100", "9".repeat(digits)));
        texts.push(format!("0.{}1e{digits}", "0".repeat(digits)));
    }
    for (digits, zeros) in
        [(300, 99), (250, 90), (250, 58), (250, 59), (307, 1), (308, 0), (308, 1)]
    {
        texts.push(format!("{}e{zeros}", "9".repeat(digits)));
        texts.push(format!("[0.{}e-{}, 1.{0}e+{zeros}]", "1".repeat(digits), "9".repeat(digits)));
    }
    texts.push(format!("[{}]", vec!["[1]"; 500].join(",")));
    texts
}

/// Returns numbers as close to the largest as `serde_json` checks, and closer.
fn numbers_at_the_border(random: &mut fastrand::Rng) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..300 {
        let digits = format!("1797693134862315{}{:05}", random.u32(6..10), random.u32(..100_000));
        let (len, point) = (random.usize(14..=digits.len()), random.usize(1..14));
        let digits: String = digits.chars().take(len).collect();
        let (whole, rest) = digits.split_at(point);
        texts.push(format!("[{whole}.{rest}e{}]", 309 - point));
        texts.push(format!("{digits}E+{}", 309 - len));
        texts.push(format!("{digits}{}", "0".repeat(309 - len)));
    }
    texts
}

/// Returns texts with surrogates, whole pairs and halves.
fn pairs(random: &mut fastrand::Rng) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..200 {
        let piece = |random: &mut fastrand::Rng| {
            *random
                .choice(&["\\ud83d", "\\ude00", "\\\\", "\\u", "d800", "a", "\\\"", "1e999"])
                .unwrap()
        };
        let text: String = (0..random.usize(..8)).map(|_| piece(random)).collect();
        texts.push(format!(r#"["{text}"]"#));
    }
    texts
}
