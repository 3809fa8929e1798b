//! Which addresses are on the public internet.
//!
//! By the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), as of the registries'
//! state that `tests/vectors/addresses/iana.json` of the repository names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// What no receiver on the internet sits on. Of the blocks that IANA calls globally reachable,
/// those for services that every network offers by itself are here too: asking them for anything
/// would ask our own network.
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),        // this network
    v4([10, 0, 0, 0], 8),       // private use
    v4([100, 64, 0, 0], 10),    // shared with the provider (RFC 6598)
    v4([127, 0, 0, 0], 8),      // loopback
    v4([168, 63, 129, 16], 32), // Azure's own platform, inside every machine of it
    v4([169, 254, 0, 0], 16),   // link-local, and the metadata of clouds
    v4([172, 16, 0, 0], 12),    // private use
    v4([192, 0, 0, 0], 24),     // protocol assignments
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 31, 196, 0], 24),  // AS112
    v4([192, 52, 193, 0], 24),  // AMT
    v4([192, 88, 99, 0], 24),   // relays of 6to4, given up
    v4([192, 168, 0, 0], 16),   // private use
    v4([192, 175, 48, 0], 24),  // AS112
    v4([198, 18, 0, 0], 15),    // benchmarks
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
];

/// Everything from here on is multicast, reserved, or broadcast.
const FIRST_AFTER_UNICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The only IPv6 space that IANA has given out for global unicast.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// The holes in it.
const SPECIAL_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 0, 23),         // protocol assignments, Teredo among them
    v6(0x2001, 0x0db8, 0, 32),    // documentation
    v6(0x2002, 0, 0, 16),         // 6to4, which carries an IPv4 address
    v6(0x2620, 0x4f, 0x8000, 48), // AS112
    v6(0x3fff, 0, 0, 20),         // documentation
];

/// This machine, its link, and the metadata services of clouds, wherever these sit: what answers there
/// trusts whoever can connect.
const LOCAL_V4: [Ipv4Net; 6] = [
    v4([0, 0, 0, 0], 8),          // this network: Linux takes 0.0.0.0 for itself
    v4([100, 100, 100, 200], 32), // Alibaba's metadata
    v4([127, 0, 0, 0], 8),        // loopback
    v4([168, 63, 129, 16], 32),   // Azure's own platform
    v4([169, 254, 0, 0], 16),     // link-local, and the metadata of most clouds
    v4([192, 0, 0, 192], 32),     // Oracle's metadata
];
const LOCAL_V6: [Ipv6Net; 5] = [
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 127), // and loopback
    v6(0xfd00, 0x0ec2, 0, 32),                       // AWS's metadata, DNS and credentials
    v6(0xfd20, 0x00ce, 0, 48),                       // Google's metadata
    v6(0xfe80, 0, 0, 10),                            // link-local
    v6(0xff00, 0, 0, 8),                             // multicast
];

/// Where NAT64 puts the IPv4 internet for those that have IPv6 alone (RFC 6052 §2.1).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// Blocks whose addresses carry one of IPv4.
const CARRIERS: [Ipv6Net; 4] = [
    v6(0, 0, 0, 96),         // IPv4-compatible (RFC 4291 §2.5.5.1)
    v6(0x64, 0xff9b, 1, 48), // NAT64 of a network's own (RFC 8215)
    v6(0x2001, 0, 0, 32),    // Teredo (RFC 4380)
    v6(0x2002, 0, 0, 16),    // 6to4 (RFC 3056)
];

/// The third quarter of an address by ISATAP, which carries an IPv4 address in the fourth, without
/// the bit that tells whether that is unique (RFC 5214 §6.1).
const ISATAP: u32 = 0x0000_5efe;
const ISATAP_UNIQUE_BIT: u32 = 0x0200_0000;

const fn v4(network: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = network;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Returns the block whose network begins with these and has no more.
const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

/// Returns where packets to this address end: IPv4 addresses that are written as IPv6, mapped
/// (RFC 4291 §2.5.5.2) or for NAT64, are IPv4 addresses.
pub(crate) fn effective(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if NAT64.contains(&v6) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

/// Returns whether a receiver on the public internet can have this [`effective`] address.
pub(crate) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4 < FIRST_AFTER_UNICAST && !SPECIAL_V4.iter().any(|block| block.contains(&v4))
        }
        IpAddr::V6(v6) => {
            let is_special = SPECIAL_V6.iter().any(|block| block.contains(&v6));
            GLOBAL_V6.contains(&v6) && !is_special && !is_isatap(v6)
        }
    }
}

/// Returns whether an [`effective`] address is this machine's, its link's or a metadata service's.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4 >= FIRST_AFTER_UNICAST || LOCAL_V4.iter().any(|block| block.contains(&v4))
        }
        IpAddr::V6(v6) => LOCAL_V6.iter().any(|block| block.contains(&v6)),
    }
}

/// Returns whether an [`effective`] address carries an IPv4 address, to which a router may send on
/// what is sent there: 6to4, Teredo, IPv4-compatible, a network's own NAT64 and ISATAP.
pub(crate) fn is_carrier(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let is_plain = v6.is_loopback() || v6.is_unspecified();
    !is_plain && (CARRIERS.iter().any(|block| block.contains(&v6)) || is_isatap(v6))
}

fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., a, b, c, d, _, _, _, _] = address.octets();
    u32::from_be_bytes([a, b, c, d]) & !ISATAP_UNIQUE_BIT == ISATAP
}
