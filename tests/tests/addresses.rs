//! The addresses and names on the public internet: the policy is compared with the registries'
//! blocks and with a slow, plain reference.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;
use webhooks_http::{AddressPolicy, Refusal};
use webhooks_registry::EndpointUrl;

static BLOCKS: LazyLock<Blocks> =
    LazyLock::new(|| serde_json::from_str(include_str!("../vectors/addresses/iana.json")).unwrap());
static NAMES: LazyLock<Names> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/addresses/names.json")).unwrap()
});

static BAD_PORTS: LazyLock<BadPorts> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../vectors/addresses/ports.json")).unwrap()
});

#[derive(Deserialize)]
struct BadPorts {
    bad: BTreeSet<u16>,
}

#[derive(Deserialize)]
struct Blocks {
    ipv4: Vec<Block>,
    ipv6: Vec<Block>,
    beyond: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "block")]
    cidr: String,
    allowed: bool,
    inside: Vec<IpAddr>,
    outside: Vec<Example>,
    #[serde(default)]
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    address: IpAddr,
    allowed: bool,
}

#[derive(Deserialize)]
struct Names {
    blocked: Vec<Name>,
    blocked_suffixes: Vec<Suffix>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Suffix {
    #[serde(alias = "name")]
    suffix: String,
}

impl Blocks {
    fn all(&self) -> impl Iterator<Item = &Block> {
        self.ipv4.iter().chain(&self.ipv6).chain(&self.beyond)
    }
}

/// Returns whether the policy allows an address, by both of its functions.
fn is_allowed(address: IpAddr) -> bool {
    let policy = AddressPolicy::public();
    let resolved = policy.check_address(Some("example.com"), address).is_ok();
    let host = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let literal = policy.check(&EndpointUrl::new(&format!("https://{host}/")).unwrap()).is_ok();
    assert_eq!(resolved, literal, "{address}");
    resolved
}

#[test]
fn every_block_of_the_registries_has_the_verdict_of_its_row_and_its_edges_theirs() {
    assert!(BLOCKS.ipv4.len() >= 26 && BLOCKS.ipv6.len() >= 25);
    let mut wrong = Vec::new();
    let mut check = |block: &Block, address: IpAddr, expected: bool| {
        if is_allowed(address) != expected {
            wrong.push(format!("{address}, of or beside {}: {expected} expected", block.cidr));
        }
    };
    for block in BLOCKS.all() {
        for address in &block.inside {
            check(block, *address, block.allowed);
        }
        for example in block.outside.iter().chain(&block.examples) {
            check(block, example.address, example.allowed);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn check_name(name: &str) -> Result<(), Refusal> {
    AddressPolicy::public().check(&EndpointUrl::new(&format!("https://{name}/")).unwrap())
}

#[test]
fn names_that_mean_the_inside_are_refused_with_all_below_special_domains() {
    let names = NAMES.blocked.iter().map(|name| name.name.clone());
    let suffixes = NAMES.blocked_suffixes.iter().map(|entry| entry.suffix.trim_start_matches('.'));
    let below = suffixes.flat_map(|suffix| [suffix.to_owned(), format!("a.b.{suffix}")]);
    let mut allowed = Vec::new();
    for name in names.chain(below) {
        for spelling in [name.clone(), name.to_uppercase(), format!("{name}.")] {
            if check_name(&spelling).is_ok() {
                allowed.push(spelling);
            }
        }
    }
    assert!(allowed.is_empty(), "{allowed:?}");
    for good in
        ["example.com", "localhost.example.com", "notlocal.example", "xn--bcher-kva.example"]
    {
        check_name(good).unwrap();
    }
}

#[test]
fn a_denial_outweighs_whatever_is_allowed() {
    let url = |text: &str| EndpointUrl::new(text).unwrap();
    let inside = "10.0.0.0/8".parse().unwrap();
    let policy = AddressPolicy::public()
        .allow_network(inside)
        .deny_network("10.9.0.0/16".parse().unwrap())
        .deny_network("93.184.215.0/24".parse().unwrap())
        .allow_host("*.corp.internal")
        .and_then(|policy| policy.deny_host("secret.corp.internal"))
        .unwrap()
        .only_ports([443, 8443])
        .deny_port(8443);
    for (text, expected) in [
        ("https://10.1.0.1/", Ok(())),
        ("https://10.9.0.1/", Err(Refusal::Address)),
        ("https://93.184.215.14/", Err(Refusal::Address)),
        ("https://[::ffff:93.184.215.14]/", Err(Refusal::Address)),
        ("https://[64:ff9b::93.184.215.14]/", Err(Refusal::Address)),
        ("https://[::ffff:10.1.0.1]/", Ok(())),
        ("https://[64:ff9b::10.1.0.1]/", Err(Refusal::Address)),
        ("https://a.corp.internal/", Ok(())),
        ("https://A.Corp.Internal./", Ok(())),
        ("https://corp.internal/", Err(Refusal::Host { host: "corp.internal".to_owned() })),
        (
            "https://secret.corp.internal/",
            Err(Refusal::Host { host: "secret.corp.internal".to_owned() }),
        ),
        ("https://example.com:8443/", Err(Refusal::Port { port: 8443 })),
        ("http://example.com/", Err(Refusal::Port { port: 80 })),
    ] {
        assert_eq!(policy.check(&url(text)), expected, "{text}");
    }
    let [private, denied, own] =
        ["10.1.0.1", "10.9.0.1", "192.168.0.1"].map(|text| text.parse().unwrap());
    assert!(policy.check_address(Some("a.corp.internal"), own).is_ok());
    assert!(policy.check_address(Some("example.com"), own).is_err());
    assert!(policy.check_address(Some("example.com"), Ipv4Addr::LOCALHOST.into()).is_err());
    assert!(policy.check_address(Some("example.com"), private).is_ok());
    assert!(policy.check_address(Some("a.corp.internal"), denied).is_err());
    let https = AddressPolicy::public().https_only();
    assert_eq!(https.check(&url("http://example.com/")), Err(Refusal::Scheme));
}

#[test]
fn an_allowed_name_leads_neither_to_this_machine_nor_to_metadata_services() {
    let policy = AddressPolicy::public().allow_host("*.corp.example.com").unwrap();
    let leads = |policy: &AddressPolicy, address: &str| {
        policy.check_address(Some("a.corp.example.com"), address.parse().unwrap()).is_ok()
    };
    for inside in ["10.0.0.1", "192.168.1.1", "100.64.0.1", "fd12:3456::1", "198.18.0.1"] {
        assert!(leads(&policy, inside), "{inside}");
    }
    for local in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "ff02::1",
    ] {
        assert!(!leads(&policy, local), "{local}");
    }
    let both = policy.allow_network("127.0.0.0/8".parse().unwrap());
    assert!(leads(&both, "127.0.0.1") && !leads(&both, "169.254.169.254"));
}

#[test]
fn ports_of_other_services_are_refused_unless_they_are_named() {
    let url = |port: u16| EndpointUrl::new(&format!("http://example.com:{port}/")).unwrap();
    let (public, odd) = (AddressPolicy::public(), AddressPolicy::public().only_ports([25, 0]));
    assert_eq!(BAD_PORTS.bad.len(), 83);
    for port in 0..=u16::MAX {
        let expected =
            if BAD_PORTS.bad.contains(&port) { Err(Refusal::Port { port }) } else { Ok(()) };
        assert_eq!(public.check(&url(port)), expected);
        assert_eq!(odd.check(&url(port)).is_ok(), port == 25);
    }
}

#[test]
fn development_reaches_this_machine_and_nothing_else_inside() {
    let policy = AddressPolicy::development();
    let check = |text: &str| policy.check(&EndpointUrl::new(text).unwrap());
    for good in
        ["http://127.0.0.1:3000/", "http://[::1]/", "http://localhost/", "http://a.localhost/"]
    {
        check(good).unwrap();
    }
    for bad in ["http://10.0.0.1/", "http://0.0.0.0/", "http://169.254.169.254/", "http://db/"] {
        check(bad).unwrap_err();
    }
}

#[test]
fn a_pattern_is_a_host_name() {
    for bad in ["", "*", "*.", ".", "a..b", "10.0.0.1", "*.10.0.0.1", "[::1]", "a b", "a/b", "a:1"]
    {
        let error = AddressPolicy::public().allow_host(bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{bad:?} is neither a host name nor '*.' followed by a host name")
        );
    }
    for good in ["receiver", "Bücher.example", "*.example.com", "example.com."] {
        assert!(AddressPolicy::public().allow_host(good).is_ok(), "{good}");
    }
}

fn is_bad_port(url: &EndpointUrl) -> bool {
    url.as_url().port().is_some_and(|port| BAD_PORTS.bad.contains(&port))
}

/// The reference: it writes an address as a text of bits, takes each block as a prefix of such a
/// text, and reads the rules off the registries one after another.
mod reference {
    use super::*;

    fn bits(address: IpAddr) -> String {
        match address {
            IpAddr::V4(v4) => format!("{:032b}", u32::from(v4)),
            IpAddr::V6(v6) => format!("{:0128b}", u128::from(v6)),
        }
    }

    fn prefix(block: &str) -> String {
        let (network, len) = block.split_once('/').unwrap();
        bits(network.parse().unwrap()).chars().take(len.parse().unwrap()).collect()
    }

    /// Returns whether a name in lower case can be one of the internet: a host name of several
    /// labels (RFC 1123 §2.1, and the underscore) that is neither on a list nor below a name on a
    /// list.
    pub(super) fn is_public(name: &str) -> bool {
        let mut labels: Vec<&str> = name.split('.').collect();
        if labels.last() == Some(&"") {
            labels.pop();
        }
        let letters = "abcdefghijklmnopqrstuvwxyz0123456789-_";
        let is_label = |label: &&str| {
            !label.is_empty() && label.len() < 64 && label.chars().all(|c| letters.contains(c))
        };
        let name = labels.join(".");
        let is_special = |special: &str| labels.ends_with(&special.split('.').collect::<Vec<_>>());
        labels.len() > 1
            && name.len() < 254
            && labels.iter().all(is_label)
            && !NAMES.blocked.iter().any(|entry| entry.name == name)
            && !NAMES.blocked_suffixes.iter().any(|e| is_special(e.suffix.trim_matches('.')))
    }

    pub(super) fn is_allowed(address: IpAddr) -> bool {
        let bits = bits(address);
        let is_in = |block: &str| {
            let is_same_family = block.contains(':') == (bits.len() == 128);
            is_same_family && bits.starts_with(&prefix(block))
        };
        if is_in("::ffff:0:0/96") || is_in("64:ff9b::/96") {
            let low = u32::from_str_radix(bits.get(96..).unwrap(), 2).unwrap();
            return is_allowed(Ipv4Addr::from(low).into());
        }
        if BLOCKS.all().any(|block| !block.allowed && is_in(&block.cidr)) {
            return false;
        }
        if bits.len() == 32 {
            return true;
        }
        let interface = bits.get(64..96).unwrap();
        let isatap = ["00005efe", "02005efe"]
            .map(|hex| format!("{:032b}", u32::from_str_radix(hex, 16).unwrap()));
        bits.starts_with("001") && !isatap.contains(&interface.to_owned())
    }
}

/// Addresses near the edges of blocks, inside other addresses, and anywhere.
fn address() -> impl Strategy<Value = IpAddr> {
    let near = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), -2_i32..=2).prop_map(
        |(block, which, offset)| {
            let blocks: Vec<&Block> = BLOCKS.all().collect();
            let inside = &block.get(&blocks).inside;
            match inside[which.index(inside.len())] {
                IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).wrapping_add_signed(offset)).into(),
                IpAddr::V6(v6) => {
                    Ipv6Addr::from(u128::from(v6).wrapping_add_signed(offset.into())).into()
                }
            }
        },
    );
    let flipped = (near.clone(), 0..128_u32).prop_map(|(address, bit)| match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) ^ (1 << (bit % 32))).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) ^ (1 << bit)).into(),
    });
    let carried = (any::<u32>(), any::<u32>(), 0..4_usize).prop_map(|(prefix, v4, kind)| {
        let (prefix, v4) = (u128::from(prefix), u128::from(v4));
        Ipv6Addr::from(match kind {
            0 => 0xffff << 32 | v4,
            1 => 0x0064_ff9b << 96 | v4,
            2 => 0x2 << 124 | prefix << 80 | 0x0200_5efe << 32 | v4,
            _ => 0x2002 << 112 | v4 << 80 | prefix,
        })
        .into()
    });
    prop_oneof![
        near,
        flipped,
        carried,
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits >> 3 | 1 << 125).into()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_verdict_on_an_address_is_the_references(address in address()) {
        prop_assert_eq!(is_allowed(address), reference::is_allowed(address), "{}", address);
    }

    #[test]
    fn the_verdict_on_a_name_is_the_references(
        labels in prop::collection::vec("[a-z0-9_-]{0,3}", 0..3),
        end in any::<prop::sample::Index>(),
        joint in "\\.|",
        dots in 0..3_usize,
    ) {
        let names = NAMES.blocked.iter().map(|name| name.name.as_str());
        let suffixes = NAMES.blocked_suffixes.iter().map(|entry| entry.suffix.as_str());
        let ends: Vec<&str> = names.chain(suffixes).chain(["com", "example.com"]).collect();
        let name = format!("{}{joint}{}{}", labels.join("."), end.get(&ends), ".".repeat(dots));
        let Ok(url) = EndpointUrl::new(&format!("https://{name}/")) else { return Ok(()) };
        let Some(url::Host::Domain(name)) = url.as_url().host() else { return Ok(()) };
        let verdict = AddressPolicy::public().check(&url).is_ok();
        prop_assert_eq!(verdict, reference::is_public(name), "{}", name);
    }

    #[test]
    fn no_text_panics_and_the_verdict_is_the_references(
        text in "(https?://)?(\\PC{0,20}|[0-9a-fx.:%@\\[\\]]{0,30}|[a-z.-]{1,20})(:[0-9]{0,6})?(/.{0,5})?"
    ) {
        let Ok(url) = EndpointUrl::new(&text) else { return Ok(()) };
        let verdict = AddressPolicy::public().check(&url);
        match url.as_url().host().unwrap() {
            url::Host::Ipv4(v4) => {
                let expected = reference::is_allowed(v4.into()) && !is_bad_port(&url);
                prop_assert_eq!(verdict.is_ok(), expected, "{}", text);
            }
            url::Host::Ipv6(v6) => {
                let expected = reference::is_allowed(v6.into()) && !is_bad_port(&url);
                prop_assert_eq!(verdict.is_ok(), expected, "{}", text);
            }
            url::Host::Domain(name) => {
                let bare = name.strip_suffix('.').unwrap_or(name);
                let has_labels = bare.contains('.') && bare.split('.').all(|label| !label.is_empty());
                prop_assert!(verdict.is_err() || has_labels, "{}", text);
            }
        }
    }
}
