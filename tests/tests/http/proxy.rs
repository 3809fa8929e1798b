//! Through proxies: resolved here, connected by address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use webhooks_dispatch::transport::{ErrorClass, Transport as _};
use webhooks_http::{AddressPolicy, HttpTransport, Proxy};
use webhooks_tests::{NameServer, RawServer, Receiver};

use crate::tls::Authority;
use crate::{builder, request, told};

/// A proxy that notes its requests, and carries them out.
pub(crate) struct TestProxy {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl TestProxy {
    /// Starts a proxy that speaks HTTP CONNECT.
    pub(crate) async fn http() -> Self {
        Self::start("http").await
    }

    /// Starts a proxy that speaks SOCKS5 and asks for the password `open sesame`.
    pub(crate) async fn socks5() -> Self {
        Self::start("socks5").await
    }

    async fn start(scheme: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let (noted, mut tasks) = (Arc::clone(&asked), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                connections.spawn(async move {
                    let tunnel = if scheme == "http" {
                        connect(stream, &noted).await
                    } else {
                        socks(stream, &noted).await
                    };
                    if let Some((mut client, mut server)) = tunnel {
                        let _either_may_reset = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { scheme, address, asked, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        let credentials = if self.scheme == "socks5" { "Aladdin:open%20sesame@" } else { "" };
        format!("{}://{credentials}{}", self.scheme, self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Tunnel = Option<(TcpStream, TcpStream)>;

/// RFC 9110 §9.3.6.
async fn connect(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Tunnel {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.trim_end().to_owned());
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    let server = TcpStream::connect(target.parse::<SocketAddr>().ok()?).await;
    let answer = if server.is_ok() { "200 Established" } else { "502 Bad Gateway" };
    client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.ok()?;
    Some((client, server.ok()?))
}

/// RFC 1928 and RFC 1929.
async fn socks(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Tunnel {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.ok()?;
    assert_eq!(greeting, [5, 1, 2], "SOCKS5, one method: user name and password");
    client.write_all(&[5, 2]).await.ok()?;
    let mut login = vec![0; 3 + "Aladdin".len() + "open sesame".len()];
    client.read_exact(&mut login).await.ok()?;
    assert_eq!(login, b"\x01\x07Aladdin\x0bopen sesame");
    client.write_all(&[1, 0]).await.ok()?;
    let mut ask = [0; 4];
    client.read_exact(&mut ask).await.ok()?;
    assert_eq!(ask[..3], [5, 1, 0], "CONNECT");
    let mut octets = vec![0; if ask[3] == 4 { 16 } else { 4 }];
    assert_ne!(ask[3], 3, "a name is for the sender to resolve");
    client.read_exact(&mut octets).await.ok()?;
    let address = match <[u8; 4]>::try_from(&octets[..]) {
        Ok(v4) => std::net::IpAddr::from(v4),
        Err(_) => <[u8; 16]>::try_from(&octets[..]).unwrap().into(),
    };
    let target = SocketAddr::new(address, client.read_u16().await.ok()?);
    asked.lock().unwrap().push(target.to_string());
    let server = TcpStream::connect(target).await;
    let status = u8::from(server.is_err());
    client.write_all(&[5, status, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    Some((client, server.ok()?))
}

async fn names(name: &str, address: &str) -> NameServer {
    NameServer::start(60, [(name, vec![vec![address.to_owned()]])]).await
}

#[tokio::test]
async fn a_proxy_is_asked_for_an_address_and_the_receiver_sees_its_name() {
    let authority = Authority::new();
    let acceptor = authority.issue("hook.example.com").acceptor(None, &[b"h2"]);
    let receiver = Receiver::start_tls(acceptor).await;
    let names = names("hook.example.com", "127.0.0.1").await;
    for proxy in [TestProxy::http().await, TestProxy::socks5().await] {
        let transport = HttpTransport::builder()
            .address_policy(AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap()))
            .dns_server(names.address())
            .extra_root(authority.root())
            .proxy(Proxy::new(&proxy.url()).unwrap())
            .build()
            .unwrap();
        let url = format!("https://hook.example.com:{}/hook", receiver.port());
        for _ in 0..2 {
            assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
        }
        let [asked] = &proxy.asked()[..] else { panic!("one connection for two requests") };
        assert!(asked.contains(&format!("127.0.0.1:{}", receiver.port())), "{asked}");
        assert!(!asked.contains("hook.example.com"), "{asked}");
    }
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    for one in received {
        assert_eq!(one.uri.host(), Some("hook.example.com"), "as HTTP/2 has it for Host");
        assert_eq!(
            one.headers["user-agent"].to_str().unwrap().split('/').next(),
            Some("webhooks-http")
        );
    }
}

#[tokio::test]
async fn a_plain_url_goes_through_a_tunnel_too() {
    let receiver = Receiver::answering(200).await;
    for proxy in [TestProxy::http().await, TestProxy::socks5().await] {
        let transport = builder().proxy(Proxy::new(&proxy.url()).unwrap()).build().unwrap();
        assert_eq!(transport.send(request(&receiver.url())).await.unwrap().status, 200);
        assert_eq!(proxy.asked().len(), 1);
    }
    let host = format!("127.0.0.1:{}", receiver.port());
    assert!(receiver.received().iter().all(|one| one.headers["host"] == *host));
}

#[tokio::test]
async fn the_password_goes_to_the_proxy_and_nowhere_else() {
    let (receiver, proxy) = (Receiver::answering(200).await, TestProxy::http().await);
    let url = proxy.url().replace("http://", "http://Aladdin:open%20sesame@");
    let transport = builder().proxy(Proxy::new(&url).unwrap()).build().unwrap();
    transport.send(request(&receiver.url())).await.unwrap();
    // RFC 7617 §2.
    let header = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert!(proxy.asked()[0].contains(header), "{:?}", proxy.asked());
    assert!(!receiver.received()[0].headers.contains_key("proxy-authorization"));
}

#[tokio::test]
async fn the_policy_holds_before_the_proxy_hears_anything() {
    let receiver = Receiver::answering(200).await;
    let names = names("hook.example.com", "127.0.0.1").await;
    for proxy in [TestProxy::http().await, TestProxy::socks5().await] {
        let transport = HttpTransport::builder()
            .dns_server(names.address())
            .proxy(Proxy::new(&proxy.url()).unwrap())
            .build()
            .unwrap();
        for host in ["hook.example.com", "127.0.0.1", "[::1]"] {
            let url = format!("http://{host}:{}/", receiver.port());
            let error = transport.send(request(&url)).await.unwrap_err();
            let is_name = host == "hook.example.com";
            let expected = if is_name { ErrorClass::BlockedAddress } else { ErrorClass::Blocked };
            assert_eq!(error.class, expected, "{host}");
        }
        assert!(proxy.asked().is_empty());
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_proxy_that_fails_is_not_told_to_the_owner_of_the_endpoint() {
    let refusing = RawServer::answering("HTTP/1.1 403 hush\r\n\r\n").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [refusing.address(), closed] {
        let proxy = Proxy::new(&format!("http://{address}")).unwrap();
        let transport = builder().proxy(proxy).build().unwrap();
        let error = transport.send(request("http://127.0.0.1/")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Connect);
        assert_eq!(told(&error), "cannot connect: no connection through the proxy");
    }
    let silent = RawServer::start(|mut connection| async move {
        connection.until_closed().await;
    })
    .await;
    let proxy = Proxy::new(&format!("http://{}", silent.address())).unwrap();
    let builder = builder().proxy(proxy).connect_timeout(Duration::from_millis(50));
    let error = builder.build().unwrap().send(request("http://127.0.0.1/")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    silent.wire().ended(1).await;
}

#[tokio::test]
async fn tls_that_never_begins_behind_a_proxy_is_given_up() {
    let server = RawServer::start(|mut connection| async move {
        connection.until_closed().await;
    })
    .await;
    let proxy = TestProxy::http().await;
    let builder = builder().proxy(Proxy::new(&proxy.url()).unwrap());
    let transport = builder.connect_timeout(Duration::from_millis(100)).build().unwrap();
    let url = format!("https://{}/", server.address());
    let sends = [transport.send(request(&url)), transport.send(request(&url))];
    for outcome in futures_util::future::join_all(sends).await {
        assert_eq!(outcome.unwrap_err().class, ErrorClass::Timeout);
    }
    server.wire().ended(2).await;
}

#[tokio::test]
async fn a_silent_address_keeps_the_others_from_nothing() {
    let receiver = Receiver::answering(200).await;
    // 127.0.0.2 is another address of this machine, where nobody listens on the port.
    let addresses = ["127.0.0.2".to_owned(), "127.0.0.1".to_owned()];
    let names = NameServer::start(60, [("hook.example.com", vec![addresses.to_vec()])]).await;
    let proxy = TestProxy::socks5().await;
    let transport = HttpTransport::builder()
        .address_policy(AddressPolicy::public().allow_network("127.0.0.0/8".parse().unwrap()))
        .dns_server(names.address())
        .proxy(Proxy::new(&proxy.url()).unwrap())
        .build()
        .unwrap();
    let url = format!("http://hook.example.com:{}/", receiver.port());
    assert_eq!(transport.send(request(&url)).await.unwrap().status, 200);
}

#[test]
fn what_is_no_proxy_is_refused_without_being_shown() {
    for (url, reason) in [
        ("hush", "the proxy is not a URL such as http://proxy.example.com:3128"),
        ("http://", "the proxy is not a URL such as http://proxy.example.com:3128"),
        ("http://p.example/hush", "the proxy is not a URL such as http://proxy.example.com:3128"),
        ("https://u:hush@p.example", "the proxy's scheme is \"https\"; it must be http or socks5"),
    ] {
        assert_eq!(Proxy::new(url).unwrap_err().to_string(), reason);
    }
    let proxy = Proxy::new("socks5://u:hush@[::1]").unwrap();
    let shown = format!("{proxy:?}");
    assert!(shown.contains("[::1]:1080") && !shown.contains("hush"), "{shown}");
}
