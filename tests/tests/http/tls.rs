//! The certificates that the transport trusts, and those that it presents.

use std::sync::Arc;

use http::{Response, Version};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use webhooks_dispatch::transport::{ErrorClass, Transport as _};
use webhooks_http::Roots;
use webhooks_registry::{
    EndpointUrl,
    auth::{ClientCredentials, EndpointTls},
};
use webhooks_tests::Receiver;

use crate::{builder, endpoint, request, request_to, told};

/// A test's own authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| ())
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }
}

impl Issued {
    /// Returns a server with this certificate; if there is an authority, the server asks for
    /// clients' certificates by it.
    pub(crate) fn acceptor(self, clients: Option<&Authority>, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let chain = vec![self.certificate.der().clone()];
        let mut config = config.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Starts a server for `localhost`, and returns it with a URL and its authority.
async fn server(alpn: &[&[u8]]) -> (Receiver, String, Authority) {
    let authority = Authority::new();
    let receiver = Receiver::start_tls(authority.issue("localhost").acceptor(None, alpn)).await;
    let url = format!("https://localhost:{}/hook", receiver.port());
    (receiver, url, authority)
}

#[tokio::test]
async fn http_2_is_spoken_where_tls_negotiates_it_and_http_1_elsewhere() {
    let protocols: [(&[&[u8]], Version); 2] =
        [(&[b"h2", b"http/1.1"], Version::HTTP_2), (&[b"http/1.1"], Version::HTTP_11)];
    for (alpn, version) in protocols {
        let (receiver, url, authority) = server(alpn).await;
        let transport = builder().extra_root(authority.root()).build().unwrap();
        assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
        assert_eq!(receiver.received()[0].version, version);
    }
}

#[tokio::test]
async fn what_does_not_prove_who_it_is_gets_nothing() {
    let authority = Authority::new();
    let ca = || builder().extra_root(authority.root()).build().unwrap();
    let strangers = builder().build().unwrap();
    let bundled = builder().roots(Roots::Bundled).build().unwrap();
    let other = builder().roots(Roots::None).extra_root(Authority::new().root()).build().unwrap();
    let expired = authority.issue_with("localhost", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    for (what, certificate, transport) in [
        ("unknown authority", authority.issue("localhost"), strangers),
        ("unknown to Mozilla", authority.issue("localhost"), bundled),
        ("another authority", authority.issue("localhost"), other),
        ("expired", expired, ca()),
        ("another name", authority.issue("example.com"), ca()),
    ] {
        let receiver = Receiver::start_tls(certificate.acceptor(None, &[b"h2"])).await;
        let url = format!("https://localhost:{}/hook", receiver.port());
        let error = transport.send(request(&url)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Tls, "{what}: {}", told(&error));
        assert!(receiver.received().is_empty(), "{what}");
    }
    // A certificate that is its own issuer.
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let issued = Issued { certificate: own.cert, key: own.signing_key };
    let receiver = Receiver::start_tls(issued.acceptor(None, &[b"h2"])).await;
    let url = format!("https://localhost:{}/", receiver.port());
    assert_eq!(ca().send(request(&url)).await.unwrap_err().class, ErrorClass::Tls);
    // The certificate is for a name, and not for the address.
    let receiver = Receiver::start_tls(authority.issue("localhost").acceptor(None, &[])).await;
    let url = format!("https://127.0.0.1:{}/", receiver.port());
    assert_eq!(ca().send(request(&url)).await.unwrap_err().class, ErrorClass::Tls);
}

#[tokio::test]
async fn only_the_dangerous_switch_trusts_everybody() {
    let (receiver, url, _) = server(&[b"h2"]).await;
    let transport = builder().dangerous_accept_invalid_certificates().build().unwrap();
    assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn a_pinned_authority_is_the_only_one_trusted_for_its_endpoint() {
    let (receiver, url, authority) = server(&[b"h2"]).await;
    let transport = builder().extra_root(authority.root()).build().unwrap();
    let pinned = |pem: &str| {
        let endpoint = endpoint(&url).tls(EndpointTls::default().pinned_roots(pem)).unwrap();
        request_to(&endpoint)
    };
    assert_eq!(transport.send(pinned(&authority.pem())).await.unwrap().status, 200);
    // An earlier connection of the endpoint would work, if it were shared.
    let error = transport.send(pinned(&Authority::new().pem())).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Tls);
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_endpoint_alone() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let acceptor = servers.issue("localhost").acceptor(Some(&clients), &[b"http/1.1"]);
    let receiver = Receiver::start_tls(acceptor).await;
    let url = format!("https://localhost:{}/hook", receiver.port());
    let transport = builder().extra_root(servers.root()).build().unwrap();
    let client = clients.issue("webhooks.example.com");
    let tls = EndpointTls::default()
        .client_certificate(&client.certificate.pem(), &client.key.serialize_pem());
    let endpoint = endpoint(&url).tls(tls).unwrap();
    transport.check(&endpoint).unwrap();
    let known = request_to(&endpoint);
    assert_eq!(transport.send(known).await.unwrap().status, 200);
    // Without a certificate, the server ends the handshake or the connection (TLS 1.3 reports it
    // late).
    let error = transport.send(request(&url)).await.unwrap_err();
    assert!(matches!(error.class, ErrorClass::Tls | ErrorClass::Reset), "{error:?}");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_at_registration() {
    let transport = builder().build().unwrap();
    let authority = Authority::new();
    let [one, other] = ["a.example.com", "b.example.com"].map(|name| authority.issue(name));
    let (pem, key) = (one.certificate.pem(), other.key.serialize_pem());
    for (tls, reason) in [
        (EndpointTls::default().pinned_roots("hush"), "pinned roots: no valid PEM"),
        (
            EndpointTls::default().client_certificate("hush", &key),
            "client certificates: no valid PEM",
        ),
        (EndpointTls::default().client_certificate(&pem, "hush"), "the client's key is not PEM"),
        (EndpointTls::default().client_certificate(&pem, &key), "do not fit together"),
    ] {
        let error =
            transport.check(&endpoint("https://example.com/").tls(tls).unwrap()).unwrap_err();
        let told = told(&error);
        assert!(told.contains(reason) && !told.contains("hush"), "{told}");
        assert_eq!(error.class, ErrorClass::Tls);
    }
}

/// An endpoint within a company: its token server is there too, and asks for the same certificate.
#[tokio::test]
async fn a_token_server_is_met_with_the_endpoints_own_tls() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let acceptor = || servers.issue("localhost").acceptor(Some(&clients), &[b"http/1.1"]);
    let receiver = Receiver::start_tls(acceptor()).await;
    let granted = r#"{"access_token":"token","token_type":"Bearer"}"#;
    let token = move || Response::new(Full::from(granted));
    let private = Receiver::start_tls_with(acceptor(), move |_, _| token()).await;
    // A provider on the internet, of another authority.
    let internet = Authority::new();
    let public = internet.issue("localhost").acceptor(None, &[b"http/1.1"]);
    let public = Receiver::start_tls_with(public, move |_, _| token()).await;
    let transport = builder().extra_root(internet.root()).build().unwrap();
    let client = clients.issue("webhooks.example.com");
    let own = EndpointTls::default()
        .pinned_roots(&servers.pem())
        .client_certificate(&client.certificate.pem(), &client.key.serialize_pem());
    for tokens in [&private, &public] {
        let url = EndpointUrl::new(&format!("https://localhost:{}/", tokens.port())).unwrap();
        let credentials = ClientCredentials::new(url, "acme", "hush");
        let endpoint = endpoint(&format!("https://localhost:{}/", receiver.port()));
        let endpoint = endpoint.client_credentials(credentials).unwrap();
        let without = transport.send(request_to(&endpoint)).await;
        assert!(without.is_err());
        let endpoint = endpoint.tls(own.clone()).unwrap();
        let outcome = transport.send(request_to(&endpoint)).await;
        assert_eq!(outcome.map_err(|error| told(&error)).unwrap().status, 200);
    }
    assert_eq!((private.received().len(), receiver.received().len()), (1, 2));
}
