//! `serve` over TLS: its certificate, how the certificate is exchanged, and what is wrong with a bad one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Version};

use crate::program::{Place, Served, read};
use crate::waiting::until;

/// A certificate for this machine, and its key, both in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_params| {})
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, key: key.serialize_pem() }
    }

    fn write(&self, place: &Place) {
        place.write("cert.pem", &self.certificate);
        place.write_private("key.pem", &self.key);
    }
}

const OPTIONS: [&str; 4] = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];

/// Starts a service over TLS, whose commands trust it.
fn served(pair: &Pair) -> (Place, Served) {
    let mut place = Place::new();
    pair.write(&place);
    place.write("ca.pem", &pair.certificate);
    place.set("WEBHOOKS_CA", "ca.pem");
    let served = place.serve(&OPTIONS);
    (place, served)
}

/// Returns a client that trusts this certificate alone.
fn client(pair: &Pair) -> Client {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let trusted = Certificate::from_pem(pair.certificate.as_bytes()).unwrap();
    Client::builder().tls_certs_only([trusted]).no_proxy().build().unwrap()
}

/// Returns the version of HTTP in which the service answered.
async fn ping(client: &Client, served: &Served) -> Result<Version, reqwest::Error> {
    let answer = client.get(format!("{}/api/v1/health/ping", served.url)).send().await?;
    assert_eq!(answer.status(), 204);
    Ok(answer.version())
}

#[test]
fn commands_trust_a_certificate_that_they_are_told_to_trust() {
    let (mut place, served) = served(&Pair::new());
    assert!(served.url.starts_with("https://127.0.0.1:"), "{}", served.url);
    place.run(&["app", "create", "Acme"]).ok();
    place.unset("WEBHOOKS_CA");
    place.run(&["app", "list"]).failed(3, &["no answer from https://", "--ca FILE trusts"]);
    place.run(&["app", "list", "--ca", "ca.pem"]).ok();
    let other_name = served.url.replace("127.0.0.1", "localhost");
    place
        .run(&["app", "list", "--ca", "ca.pem", "--server", &other_name])
        .failed(3, &["the certificate is for other names"]);
    place.run(&["app", "list", "--ca", "none.pem"]).failed(2, &["cannot read none.pem"]);
    place.run(&["app", "list", "--ca", "key.pem"]).failed(2, &["key.pem", "no certificate in PEM"]);
}

/// Such as `openssl req -x509` makes it by default.
#[test]
fn the_certificate_of_an_authority_is_no_certificate_of_a_server() {
    let unconstrained = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (place, _served) = served(&Pair::with(|params| params.is_ca = unconstrained));
    place.run(&["app", "list"]).failed(3, &["CaUsedAsEndEntity", "basicConstraints", "CA:FALSE"]);
}

/// A file of a project must not choose who may read the user's key.
#[test]
fn a_project_cannot_make_the_users_key_trust_its_authority() {
    let place = Place::new();
    place.write_private("config/webhooks/config.toml", "key = \"whkey_mine\"\n");
    place.write("webhooks.toml", "ca = \"ca.pem\"\n");
    place.run(&["app", "list"]).failed(4, &["would get the key of"]);
}

#[tokio::test]
async fn a_new_pair_is_used_at_sighup_and_open_connections_go_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let (place, served) = served(&old);
    let before = client(&old);
    assert_eq!(ping(&before, &served).await.unwrap(), Version::HTTP_2);
    new.write(&place);
    served.signal("HUP");
    until("the new pair", || read(&place.path("serve.log")).contains("was read anew"));
    ping(&client(&new), &served).await.unwrap();
    // It does not trust the new pair, so this is the connection of before.
    ping(&before, &served).await.unwrap();
    assert!(ping(&client(&old), &served).await.is_err());
}

#[tokio::test]
async fn a_bad_pair_changes_nothing_and_is_told() {
    let (pair, other) = (Pair::new(), Pair::new());
    let (place, served) = served(&pair);
    let expired = Pair::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    for (certificate, key, says) in [
        (&*pair.certificate, &*other.key, "do not fit together"),
        ("topsecret", &*pair.key, "cert.pem cannot be used"),
        (&*pair.certificate, "-----BEGIN PRIVATE KEY-----\ntopsecret", "key.pem cannot be used"),
        (&*expired.certificate, &*expired.key, "expired at 2020-01-01"),
    ] {
        place.write("cert.pem", certificate);
        place.write("key.pem", key);
        served.signal("HUP");
        until(says, || read(&place.path("serve.log")).contains(says));
        ping(&client(&pair), &served).await.unwrap();
    }
    let log = read(&place.path("serve.log"));
    assert!(!log.contains("topsecret") && log.contains("the certificate in use stays"), "{log}");
    served.signal("TERM");
    assert_eq!(served.wait().code(), Some(0));
}

#[test]
fn a_slow_handshake_and_a_request_without_tls_hold_up_nobody() {
    let (place, served) = served(&Pair::new());
    let address = served.url.strip_prefix("https://").unwrap();
    let connect = |text: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text).unwrap();
        stream
    };
    // The first bytes of a handshake, and nothing more.
    let _slow: Vec<_> = (0..50).map(|_| connect(&[22, 3, 1, 2, 0, 1])).collect();
    let _silent: Vec<_> = (0..50).map(|_| connect(b"")).collect();
    let mut told = String::new();
    connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("speaks HTTPS"), "{told}");
    let plain = format!("http://{address}");
    place.run(&["app", "list", "--server", &plain]).failed(3, &["use https://"]);
    place.run(&["app", "list"]).ok();
}

#[test]
fn the_check_tells_what_is_wrong_with_a_pair() {
    let place = Place::new();
    let (pair, other) = (Pair::new(), Pair::new());
    let check = || place.run(&[&["serve", "--check"][..], &OPTIONS].concat());
    check().failed(2, &["cannot read cert.pem"]);
    pair.write(&place);
    check().ok();
    place.write("key.pem", &other.key);
    check().failed(2, &["cert.pem and key.pem do not fit together", "must be the first one"]);
    place.write_private("key.pem", &pair.certificate);
    check().failed(2, &["key.pem cannot be used", "no private key in PEM"]);
    place.write(
        "key.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    check().failed(2, &["encrypted with a password"]);
    place.write("cert.pem", &pair.key);
    check().failed(2, &["cert.pem cannot be used", "no certificate in PEM"]);
    let expired = Pair::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    expired.write(&place);
    check().failed(2, &["clients refuse cert.pem", "expired at 2020-01-01"]);
    let early = Pair::with(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    early.write(&place);
    check().failed(2, &["not valid before 4000-01-01"]);
    place.run(&["serve", "--check", "--tls-cert", "cert.pem"]).failed(2, &["no --tls-key"]);
    place.run(&["serve", "--check", "--tls-key", "key.pem"]).failed(2, &["no --tls-cert"]);
}

#[test]
fn a_certificate_without_the_host_of_the_public_url_is_warned_of() {
    let place = Place::new();
    Pair::new().write(&place);
    for (url, is_warned) in [("https://hooks.test/", true), ("https://127.0.0.1:8443", false)] {
        let ended = place.run(&[&["serve", "--check", "--public-url", url][..], &OPTIONS].concat());
        assert_eq!(ended.err.contains("no name in cert.pem is hooks.test"), is_warned, "{ended:?}");
        ended.ok();
        let settings = "tls-cert = \"cert.pem\"\ntls-key = \"key.pem\"";
        place.write("webhooks.toml", &format!("[serve]\npublic-url = \"{url}\"\n{settings}\n"));
        let ended = place.run(&["config", "check"]);
        assert_eq!(ended.err.contains("no name in cert.pem is hooks.test"), is_warned, "{ended:?}");
        ended.ok();
        let told = place.run(&["doctor"]).out;
        assert_eq!(told.contains("warning  certificate"), is_warned, "{told}");
        std::fs::remove_file(place.path("webhooks.toml")).unwrap();
    }
}

#[test]
fn the_configuration_is_checked_with_its_pair() {
    let place = Place::new();
    let pair = Pair::new();
    pair.write(&place);
    place.write("webhooks.toml", "[serve]\ntls-cert = \"cert.pem\"\ntls-key = \"key.pem\"\n");
    let ended = place.run(&["config", "check"]);
    assert!(
        ended.err.contains("the certificate of `serve` is valid until 4096-01-01"),
        "{ended:?}"
    );
    ended.ok();
    let told = place.run(&["doctor"]).out;
    assert!(told.contains("it fits its key, and is valid until 4096-01-01"), "{told}");
    place.write("key.pem", &Pair::new().key);
    place.run(&["config", "check"]).failed(2, &["do not fit together"]);
    let told = place.run(&["doctor"]).out;
    assert!(told.contains("FAILED   certificate"), "{told}");
}

/// A certificate that was forgotten must not end all deliveries at the next restart.
#[test]
fn a_service_starts_with_an_expired_certificate_and_warns() {
    let mut place = Place::new();
    let expired = Pair::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    expired.write(&place);
    let _served = place.serve(&OPTIONS);
    assert!(read(&place.path("serve.log")).contains("expired at 2020-01-01"));
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    let place = Place::new();
    let pair = Pair::new();
    place.write("cert.pem", &pair.certificate);
    place.write("key.pem", &pair.key);
    let ended = place.run(&[&["serve", "--check"][..], &OPTIONS].concat());
    assert!(ended.err.contains("chmod 600 key.pem"), "{ended:?}");
    ended.ok();
}
