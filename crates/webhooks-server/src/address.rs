//! The addresses of callers, who may be behind proxies.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// Each proxy adds the address that it sees at the end.
const FORWARDED: &str = "x-forwarded-for";

/// Returns the address of a caller: that of the connection, or if this is a proxy of ours, the last one that our
/// proxies saw and that is none of them. Callers can invent all that comes before.
pub(crate) fn of_caller(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let lines = headers.get_all(FORWARDED).iter().rev();
    let mut seen = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut caller = peer.to_canonical();
    while is_proxy(&caller)
        && let Some(Ok(address)) = seen.next().map(|text| text.trim().parse::<IpAddr>())
    {
        caller = address.to_canonical();
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, lines: &[&str], expected: &str) {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        let caller = of_caller(peer.parse().unwrap(), &headers, &proxies);
        assert_eq!(caller.to_string(), expected, "{peer} {lines:?}");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_of_ours_is_the_callers() {
        check("192.0.2.1", &["192.0.2.9"], "192.0.2.1");
        check("10.0.0.1", &["192.0.2.9"], "192.0.2.9");
        check("::ffff:10.0.0.1", &["::ffff:192.0.2.9"], "192.0.2.9");
        check("10.0.0.1", &["invented, 192.0.2.9 , 10.0.0.2"], "192.0.2.9");
        check("::1", &["192.0.2.8", "192.0.2.9,10.0.0.2"], "192.0.2.9");
        check("::1", &["192.0.2.8,2001:db8::1"], "2001:db8::1");
    }

    #[test]
    fn without_an_address_that_can_be_read_it_is_the_proxys() {
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["192.0.2.9, unknown"], "10.0.0.1");
        check("10.0.0.1", &["unknown, 10.0.0.3"], "10.0.0.3");
        check("10.0.0.1", &[""], "10.0.0.1");
    }
}
