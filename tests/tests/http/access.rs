//! Headers and tokens that endpoints ask for.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::task::JoinSet;
use webhooks_core::{DeliveryStatus, Event};
use webhooks_dispatch::{
    Dispatcher,
    transport::{ErrorClass, Request, Transport as _},
};
use webhooks_http::{AddressPolicy, HttpTransport, HttpTransportError, Proxy};
use webhooks_registry::{Endpoint, EndpointUrl, Registry, auth::ClientCredentials};
use webhooks_tests::{NameServer, Received, Receiver};

use crate::proxy::TestProxy;
use crate::{builder, endpoint, request_to, told};

#[tokio::test]
async fn an_endpoint_gets_its_own_headers_and_they_replace_ours_where_they_may() {
    let receiver = Receiver::answering(200).await;
    let registry = Registry::new();
    let endpoint = endpoint(&receiver.url())
        .header("X-Api-Key", "hush")
        .and_then(|endpoint| endpoint.header("content-type", "application/cloudevents+json"))
        .and_then(|endpoint| endpoint.header("user-agent", "acme"))
        .and_then(|endpoint| endpoint.basic_auth("Aladdin", "open sesame"))
        .unwrap();
    registry.register("hook", endpoint).unwrap();
    let dispatcher = Dispatcher::new(registry, builder().build().unwrap());
    let results = dispatcher.dispatch(&Event::new("created", 1).unwrap()).await;
    assert_eq!(results[0].status, DeliveryStatus::Delivered);
    let headers = &receiver.received()[0].headers;
    for (name, value) in [
        ("x-api-key", "hush"),
        ("content-type", "application/cloudevents+json"),
        ("user-agent", "acme"),
        ("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ] {
        let found: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(found, [value], "{name}");
    }
    assert!(headers.contains_key("webhook-signature"));
}

fn json(status: u16, body: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body.to_owned())).unwrap()
}

/// Starts a token server whose n-th token is `token-n`.
async fn token_server(expires_in: u64) -> Receiver {
    Receiver::start(move |number, _| {
        let body = format!(
            r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":{expires_in}}}"#
        );
        json(200, &body)
    })
    .await
}

fn by_token(receiver: &Receiver, tokens: &Receiver) -> Endpoint {
    let token_url = EndpointUrl::new(&tokens.url()).unwrap();
    let credentials = ClientCredentials::new(token_url, "acme & sons", "hu:sh").scope("a b");
    endpoint(&receiver.url()).client_credentials(credentials).unwrap()
}

fn authorization(received: &Received) -> &str {
    received.headers["authorization"].to_str().unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_by_all() {
    let (receiver, tokens) = (Receiver::answering(200).await, token_server(3600).await);
    let endpoint = by_token(&receiver, &tokens);
    let transport = builder().build().unwrap();
    let mut sends = JoinSet::new();
    for _ in 0..20 {
        let (transport, request) = (transport.clone(), request_to(&endpoint));
        sends.spawn(async move { transport.send(request).await.unwrap().status });
    }
    assert_eq!(sends.join_all().await, [200; 20]);
    assert!(receiver.received().iter().all(|one| authorization(one) == "Bearer token-1"));

    let [asked] = &tokens.received()[..] else { panic!("one token") };
    assert_eq!(asked.body, "grant_type=client_credentials&scope=a+b");
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    // RFC 6749 §2.3.1: id and secret are encoded as in forms; Python's urlencode and base64.
    assert_eq!(authorization(asked), "Basic YWNtZSslMjYrc29uczpodSUzQXNo");
}

#[tokio::test]
async fn a_token_near_its_end_is_not_used_again() {
    let (receiver, tokens) = (Receiver::answering(200).await, token_server(30).await);
    let (endpoint, transport) = (by_token(&receiver, &tokens), builder().build().unwrap());
    for expected in ["Bearer token-1", "Bearer token-2"] {
        transport.send(request_to(&endpoint)).await.unwrap();
        assert_eq!(authorization(receiver.received().last().unwrap()), expected);
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_for_the_next_attempt() {
    let tokens = token_server(3600).await;
    let receiver = Receiver::start(|_, received| {
        json(if authorization(received) == "Bearer token-1" { 401 } else { 200 }, "")
    })
    .await;
    let (endpoint, transport) = (by_token(&receiver, &tokens), builder().build().unwrap());
    for expected in [401, 200, 200] {
        assert_eq!(transport.send(request_to(&endpoint)).await.unwrap().status, expected);
    }
    assert_eq!((receiver.received().len(), tokens.received().len()), (3, 2));
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_nothing_secret_is_told() {
    for (status, body, reason) in [
        (401, r#"{"error":"hush"}"#, "the token server answered 401"),
        (302, "", "the token server answered 302"),
        (
            401,
            r#"{"error":"invalid_client","error_description":"hush"}"#,
            "the token server answered 401 (invalid_client)",
        ),
        (200, "hush", "the token server's answer is not a JSON object"),
        (200, r#"{"access_token":"hush","#, "the token server's answer is not a JSON object"),
        (200, r#"{"access_token":"hush","token_type":"mac"}"#, "has no token_type \"Bearer\""),
        (200, r#"{"access_token":"hush"}"#, "has no token_type \"Bearer\""),
        (200, r#"{"token_type":"bearer"}"#, "the token server's answer has no access_token"),
        (200, r#"{"access_token":7,"token_type":"bearer"}"#, "has no access_token"),
        (200, r#"{"access_token":"a\nhush","token_type":"bearer"}"#, "that no header may hold"),
    ] {
        let receiver = Receiver::answering(200).await;
        let tokens = Receiver::start(move |_, _| json(status, body)).await;
        let transport = builder().build().unwrap();
        let error = transport.send(request_to(&by_token(&receiver, &tokens))).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Authorization);
        let told = format!("{} {error:?}", told(&error));
        assert!(told.contains(reason) && !told.contains("hush"), "{told}");
        assert!(receiver.received().is_empty());
    }
}

#[tokio::test]
async fn a_token_server_is_a_destination_like_any_other() {
    let names = NameServer::start(60, [("id.example.com", vec![vec!["127.0.0.1".into()]])]).await;
    let tokens = token_server(3600).await;
    let by_name = format!("https://id.example.com:{}/", tokens.port());
    let by_address = format!("https://127.0.0.1:{}/", tokens.port());
    // RFC 6749 §3.2 asks for TLS.
    let in_clear = format!("http://id.example.com:{}/", tokens.port());
    let strict = HttpTransport::builder().dns_server(names.address()).build().unwrap();
    for (token_url, is_told_early) in [(by_name, false), (by_address, true), (in_clear, true)] {
        let credentials =
            ClientCredentials::new(EndpointUrl::new(&token_url).unwrap(), "acme", "hush");
        let endpoint = endpoint("https://example.com/").client_credentials(credentials).unwrap();
        let checked = strict.check(&endpoint).map_err(|error| error.class);
        let expected = if is_told_early { Err(ErrorClass::Blocked) } else { Ok(()) };
        assert_eq!(checked, expected, "{token_url}");
        let error = strict.send(request_to(&endpoint)).await.unwrap_err();
        // A name may resolve to another address next time.
        let expected = if is_told_early { ErrorClass::Blocked } else { ErrorClass::Authorization };
        assert_eq!(error.class, expected, "{token_url}");
    }
    assert!(tokens.received().is_empty());
}

/// Microsoft's first endpoint answers the lifetime as a text; others answer a fraction.
#[tokio::test]
async fn a_token_counts_however_its_lifetime_is_written() {
    for expires_in in ["\"3599\"", "3599.0", "\"3599.5\"", "3599", "null", "\"soon\""] {
        let body = format!(
            r#"{{"access_token":"token","token_type":"Bearer","expires_in":{expires_in}}}"#
        );
        let tokens = Receiver::start(move |_, _| json(200, &body)).await;
        let receiver = Receiver::answering(200).await;
        let (endpoint, transport) = (by_token(&receiver, &tokens), builder().build().unwrap());
        for _ in 0..2 {
            let sent = transport.send(request_to(&endpoint)).await;
            assert_eq!(sent.unwrap().status, 200, "{expires_in}");
        }
        assert_eq!((receiver.received().len(), tokens.received().len()), (2, 1), "{expires_in}");
    }
}

#[tokio::test]
async fn the_secret_goes_into_the_body_if_asked_to() {
    let (receiver, tokens) = (Receiver::answering(200).await, token_server(3600).await);
    let token_url = EndpointUrl::new(&tokens.url()).unwrap();
    let credentials = ClientCredentials::new(token_url, "acme & sons", "hu:sh").secret_in_body();
    let endpoint = endpoint(&receiver.url()).client_credentials(credentials).unwrap();
    builder().build().unwrap().send(request_to(&endpoint)).await.unwrap();
    let [asked] = &tokens.received()[..] else { panic!("one token") };
    let expected = "grant_type=client_credentials&client_id=acme+%26+sons&client_secret=hu%3Ash";
    assert_eq!(asked.body, expected);
    assert!(!asked.headers.contains_key("authorization"));
    assert_eq!(authorization(&receiver.received()[0]), "Bearer token-1");
}

/// Returns a request with the endpoint's own headers, in the places where signing puts them.
fn with_headers(endpoint: &Endpoint) -> Request {
    Request { headers: endpoint.headers().clone(), ..request_to(endpoint) }
}

#[tokio::test]
async fn what_lets_us_in_goes_out_over_tls_alone() {
    let receiver = Receiver::answering(200).await;
    let tokens = token_server(3600).await;
    // This machine is allowed, but not for development.
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap());
    let strict = HttpTransport::builder().address_policy(policy).build().unwrap();
    let plain = endpoint(&receiver.url());
    for endpoint in [
        plain.clone().bearer_auth("hush").unwrap(),
        plain.clone().basic_auth("acme", "hush").unwrap(),
        plain.clone().header("x-api-key", "hush").unwrap(),
        by_token(&receiver, &tokens),
    ] {
        let checked = strict.check(&endpoint).unwrap_err();
        let sent = strict.send(with_headers(&endpoint)).await.unwrap_err();
        for error in [checked, sent] {
            assert_eq!(error.class, ErrorClass::Blocked);
            let told = told(&error);
            assert!(told.contains("must start with https://") && !told.contains("hush"), "{told}");
        }
        builder().build().unwrap().check(&endpoint).unwrap();
    }
    assert!(receiver.received().is_empty() && tokens.received().is_empty());
    let harmless = plain.header("user-agent", "acme").unwrap();
    let harmless = harmless.header("content-type", "application/cloudevents+json").unwrap();
    strict.check(&harmless).unwrap();
    assert_eq!(strict.send(with_headers(&harmless)).await.unwrap().status, 200);
}

#[tokio::test]
async fn development_sends_secrets_in_clear_to_this_machine_alone() {
    let transport = builder().build().unwrap();
    for (host, is_own) in [
        ("localhost:8080", true),
        ("app.localhost", true),
        ("127.0.0.1:8080", true),
        ("127.1.2.3", true),
        ("[::1]:8080", true),
        ("example.com", false),
        ("localhost.example.com", false),
        ("93.184.215.14", false),
        ("[2606:2800::1]", false),
    ] {
        let endpoint = endpoint(&format!("http://{host}/"));
        let with_secret = endpoint.clone().bearer_auth("hush").unwrap();
        assert_eq!(transport.check(&with_secret).is_ok(), is_own, "{host}");
        transport.check(&endpoint).unwrap();
        let token_url = EndpointUrl::new(&format!("http://{host}/token")).unwrap();
        let credentials = ClientCredentials::new(token_url, "acme", "hush");
        let by_token = crate::endpoint("http://localhost/").client_credentials(credentials);
        assert_eq!(transport.check(&by_token.unwrap()).is_ok(), is_own, "{host}");
    }
}

#[tokio::test]
async fn requests_are_called_as_they_are_told_to() {
    let receiver = Receiver::answering(200).await;
    let proxy = TestProxy::http().await;
    let builder = || builder().user_agent("acme-webhooks/1.0 (+https://acme.example)");
    let proxied = builder().proxy(Proxy::new(&proxy.url()).unwrap());
    for transport in [builder(), proxied].map(|builder| builder.build().unwrap()) {
        transport.send(request_to(&endpoint(&receiver.url()))).await.unwrap();
        let sent = receiver.received().last().unwrap().headers["user-agent"].clone();
        assert_eq!(sent, "acme-webhooks/1.0 (+https://acme.example)");
    }
    let broken = builder().user_agent("acme\r\nx: y").build();
    assert!(matches!(broken, Err(HttpTransportError::UserAgent { .. })));
}
