//! Tokens as Svix's self-hosted server makes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use webhooks_admin::JwtSecret;
use webhooks_core::Timestamp;
use webhooks_server::ServiceSettings;

use crate::running::Running;

const SECRET: &str = "the jwt_secret of the server that was there before";
const OTHER: &str = "another secret that is long enough, but is not it";
const ORGANIZATION: &str = "org_23rb8YdGqMT0qIzpgGwdXfHirMu";

/// The id of an application in the server that was there before: longer than ours.
const OLD_ID: &str = "app_2Gk0J2eTzI4qYQxqvn4T0Yc1bqs";

async fn start(secret: Option<&str>) -> Running {
    let mut settings = ServiceSettings::default();
    settings.jwt_secret = secret.map(|secret| JwtSecret::new(secret).unwrap());
    settings.max_refused_keys = u32::MAX;
    Running::start_with_settings(settings).await
}

/// Returns a token with the claims of an administrator and these changes.
fn token(header: &Value, changes: &Value, secret: &str) -> String {
    let now = Timestamp::now().as_unix_seconds();
    let mut claims = json!({
        "iat": now, "nbf": now, "exp": now + 600, "iss": "svix-server", "sub": ORGANIZATION,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", part(header), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn good(changes: &Value) -> String {
    token(&json!({ "alg": "HS256", "typ": "JWT" }), changes, SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_owner_is_that_of_an_administrator() {
    let running = start(Some(SECRET)).await;
    let token = good(&json!({}));
    let new = json!({ "name": "shop", "uid": "shop" }).to_string();
    let (status, made) = running.ask_as(Some(&token), "POST", "/api/v1/app", Some(&new)).await;
    assert_eq!(status, 201, "{made}");
    let (status, log) = running.ask_as(Some(&token), "GET", "/api/v1/audit-log", None).await;
    assert_eq!(status, 200, "{log}");
    let actor = json!(format!("jwt:{ORGANIZATION}"));
    let mut rows = log["data"].as_array().unwrap().iter();
    assert!(rows.any(|row| row["who"] == actor), "{log}");
    assert!(!log.to_string().contains(&token), "no token in the log");
    let (_, who) = running.ask_as(Some(&token), "GET", "/api/v1/auth/whoami", None).await;
    assert_eq!(who["role"], "admin");
    let (status, _) = running.ask_as(Some(&token), "POST", "/api/v1/auth/logout", None).await;
    assert_eq!(status, 400, "it is no session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_application_is_that_of_its_people() {
    let running = start(Some(SECRET)).await;
    // The id of the old server is the uid of the new application.
    let app = running.add_app(OLD_ID).await;
    let other = running.add_app("other").await;
    let token = good(&json!({ "sub": OLD_ID, "org": ORGANIZATION }));
    let ask = async |method: &str, path: &str, body: Option<&str>| {
        running.ask_as(Some(&token), method, path, body).await
    };
    let new = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" }).to_string();
    for name in [OLD_ID, &app] {
        let endpoints = format!("/api/v1/app/{name}/endpoint");
        let (status, told) = ask("POST", &endpoints, Some(&new)).await;
        assert!(status == 201 || (name == app && status == 409), "{told}");
        assert_eq!(ask("GET", &format!("{endpoints}/crm/secret"), None).await.0, 200);
    }
    let message = json!({ "eventType": "paid", "payload": {} }).to_string();
    assert_eq!(ask("POST", &format!("/api/v1/app/{app}/msg"), Some(&message)).await.0, 403);
    assert_eq!(ask("GET", "/api/v1/app", None).await.0, 403);
    assert_eq!(ask("GET", &format!("/api/v1/app/{other}/endpoint"), None).await.0, 404);
    let (_, log) = running.get("/api/v1/audit-log").await;
    assert!(log.to_string().contains(&format!("jwt:{OLD_ID}")), "{log}");
    assert_eq!(running.ask("DELETE", &format!("/api/v1/app/{app}"), Value::Null).await.0, 204);
    assert_eq!(ask("GET", "/api/v1/auth/whoami", None).await.0, 401);
}

/// Goal: a token that is not right in every way gets the answer of a key that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn any_other_token_is_refused_and_learns_nothing() {
    let running = start(Some(SECRET)).await;
    running.add_app("shop").await;
    let now = Timestamp::now().as_unix_seconds();
    let hs256 = json!({ "alg": "HS256", "typ": "JWT" });
    let parts = good(&json!({}));
    let (unsigned, signature) = parts.rsplit_once('.').unwrap();
    let tokens = [
        token(&json!({ "alg": "none" }), &json!({}), SECRET),
        token(&json!({ "alg": "HS512" }), &json!({}), SECRET),
        token(&json!({ "alg": "RS256" }), &json!({}), SECRET),
        token(&hs256, &json!({}), OTHER),
        good(&json!({ "exp": now - 1 })),
        good(&json!({ "exp": null })),
        good(&json!({ "nbf": now + 600 })),
        good(&json!({ "iss": "another" })),
        good(&json!({ "sub": "org_00000000000SvixManagement00" })),
        good(&json!({ "sub": "app_unknown", "org": ORGANIZATION })),
        good(&json!({ "sub": "shop", "org": "org_other" })),
        good(&json!({ "padding": "x".repeat(4_000) })),
        format!("{unsigned}."),
        format!("{}.{signature}", unsigned.replace('.', "A.")),
    ];
    for token in &tokens {
        let (status, told) = running.ask_as(Some(token), "GET", "/api/v1/app", None).await;
        assert_eq!(status, 401, "{token}: {told}");
        let detail = told["detail"].as_str().unwrap();
        let is_of_key = detail == "The API key is not known."
            || detail.starts_with("Not accepted: this is not an API key");
        assert!(is_of_key, "{token}: {detail}");
    }
    let (status, _) = running.ask_as(Some(&parts), "GET", "/api/v1/app", None).await;
    assert_eq!(status, 200, "the one that is right");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_accepted_unless_its_secret_was_given() {
    let running = start(None).await;
    let token = good(&json!({}));
    assert_eq!(running.ask_as(Some(&token), "GET", "/api/v1/app", None).await.0, 401);
}
