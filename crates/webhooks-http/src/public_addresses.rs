//! The addresses of the public internet.
//!
//! The lists follow the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), in the state
//! that `tests/vectors/addresses/iana.json` of the repository names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The IPv4 blocks that no receiver on the internet has an address in. They include blocks that IANA
/// calls globally reachable, if every network offers their service itself: a request there would go to
/// our own network.
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

/// All addresses from here on are multicast, reserved, or broadcast.
const FIRST_AFTER_UNICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The only IPv6 space that IANA has given out for global unicast.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// The special blocks inside `GLOBAL_V6`.
const SPECIAL_V6: [Ipv6Net; 5] = [
    v6(0x2001, 0, 0, 23),         // protocol assignments, Teredo among them
    v6(0x2001, 0x0db8, 0, 32),    // documentation
    v6(0x2002, 0, 0, 16),         // 6to4, which carries an IPv4 address
    v6(0x2620, 0x4f, 0x8000, 48), // AS112
    v6(0x3fff, 0, 0, 20),         // documentation
];

/// The addresses of this machine, its link, and the metadata services of clouds. Services there trust
/// every client that can connect.
const LOCAL_V4: [Ipv4Net; 6] = [
    v4([0, 0, 0, 0], 8), // this network: for Linux, 0.0.0.0 is the machine itself
    v4([100, 100, 100, 200], 32), // Alibaba's metadata
    v4([127, 0, 0, 0], 8), // loopback
    v4([168, 63, 129, 16], 32), // Azure's own platform
    v4([169, 254, 0, 0], 16), // link-local, and the metadata of most clouds
    v4([192, 0, 0, 192], 32), // Oracle's metadata
];
const LOCAL_V6: [Ipv6Net; 5] = [
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 127), // and loopback
    v6(0xfd00, 0x0ec2, 0, 32),                       // AWS's metadata, DNS and credentials
    v6(0xfd20, 0x00ce, 0, 48),                       // Google's metadata
    v6(0xfe80, 0, 0, 10),                            // link-local
    v6(0xff00, 0, 0, 8),                             // multicast
];

/// The block in which NAT64 shows the IPv4 internet to hosts without IPv4 (RFC 6052 §2.1).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The blocks whose addresses contain an IPv4 address.
const CARRIERS: [Ipv6Net; 4] = [
    v6(0, 0, 0, 96),         // IPv4-compatible (RFC 4291 §2.5.5.1)
    v6(0x64, 0xff9b, 1, 48), // NAT64 of a network's own (RFC 8215)
    v6(0x2001, 0, 0, 32),    // Teredo (RFC 4380)
    v6(0x2002, 0, 0, 16),    // 6to4 (RFC 3056)
];

/// The third quarter of an ISATAP address, without the bit that marks the IPv4 address in the fourth
/// quarter as unique (RFC 5214 §6.1).
const ISATAP: u32 = 0x0000_5efe;
const ISATAP_UNIQUE_BIT: u32 = 0x0200_0000;

const fn v4(network: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = network;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// Returns the block whose network begins with these groups; the others are zero.
const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

/// Returns the address at which packets to this address arrive. IPv4 addresses that are written as IPv6,
/// mapped (RFC 4291 §2.5.5.2) or for NAT64, become IPv4 addresses.
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

/// Returns whether an [`effective`] address is one of this machine, its link or a metadata service.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4 >= FIRST_AFTER_UNICAST || LOCAL_V4.iter().any(|block| block.contains(&v4))
        }
        IpAddr::V6(v6) => LOCAL_V6.iter().any(|block| block.contains(&v6)),
    }
}

/// Returns whether an [`effective`] address contains an IPv4 address, to which a router may forward
/// packets: 6to4, Teredo, IPv4-compatible, a network's own NAT64 and ISATAP.
pub(crate) fn is_carrier(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let is_plain = v6.is_loopback() || v6.is_unspecified();
    !is_plain && (CARRIERS.iter().any(|block| block.contains(&v6)) || is_isatap(v6))
}

fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., a, b, c, d, _, _, _, _] = address.octets();
    u32::from_be_bytes([a, b, c, d]) & !ISATAP_UNIQUE_BIT == ISATAP
}
