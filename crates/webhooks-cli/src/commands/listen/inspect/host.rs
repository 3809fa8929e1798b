//! The check of the Host header, against names of other sites that lead to this machine (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// Returns whether a request asks for the page by a name of loopback, or by its own address, and by its port.
pub(super) fn is_own(head: &Parts, own: SocketAddr) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = Authority::try_from(host.as_bytes());
    // A target may name a host, too, which then counts (RFC 9112 §3.2.2).
    host.is_ok_and(|host| is_name_of(&host, own))
        && head.uri.authority().is_none_or(|authority| is_name_of(authority, own))
}

fn is_name_of(host: &Authority, own: SocketAddr) -> bool {
    if host.as_str().contains('@') || host.port_u16().unwrap_or(80) != own.port() {
        return false;
    }
    let name = host.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback() || address == own.ip())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_own_at(own: &str, target: &str, hosts: &[&str]) -> bool {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        is_own(&request.body(()).unwrap().into_parts().0, own.parse().unwrap())
    }

    #[test]
    fn loopback_and_its_own_address_are_taken() {
        for host in ["localhost:9", "LOCALHOST:9", "127.0.0.1:9", "[::1]:9"] {
            assert!(is_own_at("127.0.0.1:9", "/", &[host]), "{host}");
        }
        assert!(is_own_at("192.0.2.1:9", "/", &["192.0.2.1:9"]));
        assert!(is_own_at("127.0.0.1:80", "/", &["localhost"]));
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example:9",
            "localhost",
            "localhost:8",
            "localhost.evil.example:9",
            "127.0.0.1.evil.example:9",
            "localhost:9@evil.example:9",
            "evil.example@localhost:9",
            "192.0.2.1:9",
            "0.0.0.0:9",
            "",
        ] {
            assert!(!is_own_at("127.0.0.1:9", "/", &[host]), "{host}");
        }
        assert!(!is_own_at("127.0.0.1:9", "/", &[]));
        assert!(!is_own_at("127.0.0.1:9", "/", &["localhost:9", "localhost:9"]));
        assert!(!is_own_at("127.0.0.1:9", "http://evil.example:9/", &["localhost:9"]));
    }
}
