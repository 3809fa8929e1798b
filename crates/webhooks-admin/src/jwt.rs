//! Tokens that another service signed with a secret which both know.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use webhooks_core::Timestamp;
use zeroize::Zeroizing;

/// The shortest secret in bytes: that of the hash (RFC 7518 §3.2). One token is enough to try shorter ones on.
const MIN_SECRET: usize = 32;

/// The longest token in bytes.
const MAX_TOKEN: usize = 2_048;

/// The organization for which Svix's server makes tokens unless it is told another.
const ORGANIZATION: &str = "org_23rb8YdGqMT0qIzpgGwdXfHirMu";

/// The issuer that Svix's server writes into its tokens.
const ISSUER: &str = "svix-server";

/// The seconds by which the clock of the issuer may be ahead.
const LEEWAY: f64 = 60.0;

/// The `jwt_secret` of a self-hosted server of Svix, whose tokens are to be accepted during a migration.
///
/// Its holders can make tokens of an administrator, and no token can be revoked.
///
/// # Example
/// ```
/// use webhooks_admin::JwtSecret;
///
/// let secret = JwtSecret::new("an example of a secret that is long enough")?;
/// assert_eq!(format!("{secret:?}"), "JwtSecret(redacted)");
/// # Ok::<(), webhooks_admin::JwtSecretError>(())
/// ```
#[derive(Clone)]
pub struct JwtSecret {
    key: Zeroizing<Vec<u8>>,
    organization: String,
}

/// The error of a secret that is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the secret of tokens has less than {MIN_SECRET} bytes, which can be guessed; replace it by API keys"
)]
pub struct JwtSecretError;

/// The reason why a token is refused. It is one for all, since a stranger is to learn nothing from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the token is not accepted")]
pub struct JwtRefusal;

/// The one for whom a token was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a holder that a server ignores must not compile")]
pub enum JwtHolder {
    /// The service's owner. The text is the id of the organization.
    Owner(String),
    /// The people of one application. The text is the id that it has in the service of the issuer.
    Application(String),
}

/// The first part of a token.
#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that a verifier must understand (RFC 7515 §4.1.11). This one understands none.
    crit: Option<Value>,
}

/// The second part of a token. Times are seconds since 1970, maybe with a fraction (RFC 7519 §2).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    /// The organization of an application, in tokens for its people.
    org: Option<String>,
    exp: f64,
    nbf: Option<f64>,
    /// The servers for which it was made. Svix names none, so it was made for others (RFC 7519 §4.1.3).
    aud: Option<Value>,
}

impl JwtSecret {
    /// Returns the secret with this text, for tokens of Svix's default organization.
    ///
    /// # Errors
    /// [`JwtSecretError`] when it has less than 32 bytes.
    pub fn new(secret: &str) -> Result<Self, JwtSecretError> {
        if secret.len() < MIN_SECRET {
            return Err(JwtSecretError);
        }
        let key = Zeroizing::new(secret.as_bytes().to_vec());
        Ok(Self { key, organization: ORGANIZATION.to_owned() })
    }

    /// Accepts the tokens of another organization instead. Those of all others are refused.
    #[must_use]
    pub fn organization(self, id: impl Into<String>) -> Self {
        Self { organization: id.into(), ..self }
    }

    /// Checks a token, and returns its holder.
    ///
    /// # Errors
    /// [`JwtRefusal`] unless it is signed with this secret by HMAC-SHA256, by Svix's server, for the
    /// organization, and its time has come and is not over. A token without an end is refused.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<JwtHolder, JwtRefusal> {
        self.read(token, now).ok_or(JwtRefusal)
    }

    fn read(&self, token: &str, now: Timestamp) -> Option<JwtHolder> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(signed.as_bytes());
        // First of all, in constant time: nothing that the issuer did not write is read.
        mac.verify_slice(&signature).ok()?;
        let header: Header = parse(header)?;
        let claims: Claims = parse(claims)?;
        if header.alg != "HS256" || header.crit.is_some() || !claims.hold_at(now) {
            return None;
        }
        match &claims.org {
            Some(org) if *org == self.organization => Some(JwtHolder::Application(claims.sub)),
            None if claims.sub == self.organization => Some(JwtHolder::Owner(claims.sub)),
            _ => None,
        }
    }
}

fn parse<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl Claims {
    fn hold_at(&self, now: Timestamp) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "whole seconds of this age are exact")]
        let now = now.as_unix_seconds() as f64;
        let has_begun = self.nbf.is_none_or(|begin| begin <= now + LEEWAY);
        self.iss == ISSUER && self.aud.is_none() && has_begun && now < self.exp
    }
}

impl PartialEq for JwtSecret {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.key.ct_eq(&other.key)) && self.organization == other.organization
    }
}

impl Eq for JwtSecret {}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "an example of a secret that is long enough";
    const NOW: u64 = 1_800_000_000;

    fn secret() -> JwtSecret {
        JwtSecret::new(SECRET).unwrap()
    }

    fn signed(signed: &str, secret: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn token(header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        signed(&format!("{}.{}", part(header), part(claims)), SECRET)
    }

    fn header() -> Value {
        json!({ "alg": "HS256", "typ": "JWT" })
    }

    fn claims() -> Value {
        json!({ "iat": NOW - 9, "exp": NOW + 9, "nbf": NOW - 9, "iss": ISSUER, "sub": ORGANIZATION })
    }

    fn verify(token: &str) -> Result<JwtHolder, JwtRefusal> {
        secret().verify(token, Timestamp::from_unix_seconds(NOW))
    }

    /// Returns what comes of a token with other claims.
    fn with(changes: &Value) -> Result<JwtHolder, JwtRefusal> {
        let mut claims = claims();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        verify(&token(&header(), &claims))
    }

    /// The token was made with the modules hmac and base64 of Python.
    #[test]
    fn a_token_of_another_program_is_verified() {
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE2NTUxNDA2MzksImV4cCI6MTk3MDUwMDYzOSwibmJ\
            mIjoxNjU1MTQwNjM5LCJpc3MiOiJzdml4LXNlcnZlciIsInN1YiI6Im9yZ18yM3JiOFlkR3FNVDBxSXpwZ0d3ZFh\
            mSGlyTXUifQ.Pxz8_T8LrVOZ4YNspG7BeT8GChvx5b8d0Hjfq9Ov8MQ";
        assert_eq!(verify(token), Ok(JwtHolder::Owner(ORGANIZATION.to_owned())));
    }

    #[test]
    fn a_token_tells_whom_it_is_for() {
        let app = with(&json!({ "sub": "app_old", "org": ORGANIZATION }));
        assert_eq!(app, Ok(JwtHolder::Application("app_old".to_owned())));
        assert_eq!(with(&json!({})), Ok(JwtHolder::Owner(ORGANIZATION.to_owned())));
        assert_eq!(with(&json!({ "exp": 1_800_000_000.5 })), with(&json!({})), "a fraction");
        assert!(with(&json!({ "nbf": NOW + 59 })).is_ok(), "another clock");
        let other = secret().organization("org_other");
        let now = Timestamp::from_unix_seconds(NOW);
        let mut of_other = claims();
        of_other["sub"] = json!("org_other");
        assert!(other.verify(&token(&header(), &of_other), now).is_ok());
        assert!(other.verify(&token(&header(), &claims()), now).is_err());
    }

    #[test]
    fn a_token_for_another_or_of_another_time_is_refused() {
        for changes in [
            json!({ "exp": NOW }),
            json!({ "exp": null }),
            json!({ "exp": "never" }),
            json!({ "nbf": NOW + 61 }),
            json!({ "iss": "another" }),
            json!({ "iss": null }),
            json!({ "aud": "another" }),
            json!({ "sub": "org_00000000000SvixManagement00" }),
            json!({ "sub": "app_old" }),
            json!({ "sub": null }),
            json!({ "sub": "app_old", "org": "org_other" }),
        ] {
            assert_eq!(with(&changes), Err(JwtRefusal), "{changes}");
        }
    }

    #[test]
    fn the_secret_and_its_algorithm_alone_count() {
        for header in [
            json!({ "alg": "none" }),
            json!({ "alg": "HS512" }),
            json!({ "alg": "RS256" }),
            json!({ "alg": "hs256" }),
            json!({ "typ": "JWT" }),
            json!({ "alg": "HS256", "crit": ["exp"] }),
        ] {
            assert_eq!(verify(&token(&header, &claims())), Err(JwtRefusal), "{header}");
        }
        let good = token(&header(), &claims());
        assert!(verify(&good).is_ok());
        let (parts, _) = good.rsplit_once('.').unwrap();
        let other = signed(parts, "another secret that is just as long, too");
        let huge = signed(&format!("{parts}{}", "A".repeat(MAX_TOKEN)), SECRET);
        let padded = format!("{good}=");
        for bad in [&*other, parts, &format!("{parts}."), &huge, &padded, "", ".", "..", "...."] {
            assert_eq!(verify(bad), Err(JwtRefusal), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_changed_token_is_accepted(text in ".{0,300}", place in 0_usize..200) {
            prop_assert_eq!(verify(&text), Err(JwtRefusal));
            let mut changed = token(&header(), &claims()).into_bytes();
            let place = place % changed.len();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(verify(&String::from_utf8(changed).unwrap()), Err(JwtRefusal));
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_none_shows() {
        assert_eq!(JwtSecret::new(&"x".repeat(31)), Err(JwtSecretError));
        assert!(!format!("{:?}", secret()).contains(SECRET));
    }
}
