//! Host names that are never those of a receiver on the internet.

use url::Host;

/// Domains of the machine itself, its link, its site or another system than the DNS. All names below
/// them count too.
const SPECIAL_DOMAINS: [&str; 20] = [
    "alt",          // RFC 9476 §2
    "arpa",         // RFC 3172: the DNS's own affairs; home.arpa (RFC 8375)
    "consul",       // Consul's services
    "corp",         // never to be delegated, because of its wide internal use (ICANN, 2018)
    "default",      // kubernetes.default, by its search list
    "home",         // as corp
    "internal",     // reserved by ICANN for private use (2024); metadata.google.internal
    "intranet",     // RFC 6762, appendix G
    "invalid",      // RFC 6761 §6.4
    "lan",          // RFC 6762, appendix G
    "local",        // RFC 6762 §3; cluster.local
    "localdomain",  // what systems call themselves by default
    "localdomain4", // the same, in Red Hat's /etc/hosts
    "localdomain6",
    "localhost", // RFC 6761 §6.3
    "mail",      // as corp
    "onion",     // RFC 7686 §2
    "private",   // RFC 6762, appendix G
    "svc",       // Kubernetes' services, by its search list
    "test",      // RFC 6761 §6.2
];

/// Names of the metadata services of clouds, beside those below special domains.
const METADATA: [&str; 6] = [
    "api.metadata.cloud.ibm.com",
    "metadata.azure.com",
    "metadata.goog",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

/// A host name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Below(String),
    Name(String),
}

impl Pattern {
    /// Returns the pattern in a text, if it is one, in the spelling of URLs.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let (name, pattern): (_, fn(String) -> Self) = match text.strip_prefix("*.") {
            Some(name) => (name, Self::Below),
            None => (text, Self::Name),
        };
        match Host::parse(without_final_dot(name)).ok()? {
            Host::Domain(name) if is_well_formed(&name) && !name.contains('*') => {
                Some(pattern(name))
            }
            _ => None,
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Below(domain) => is_below(name, domain),
            Self::Name(this) => name == this,
        }
    }
}

/// Returns whether a name, in the spelling of URLs, is none of the public internet.
pub(crate) fn is_special(name: &str) -> bool {
    let name = without_final_dot(name);
    let is_single_label = !name.contains('.');
    let is_in = |domain: &&str| name == *domain || is_below(name, domain);
    is_single_label
        || !is_well_formed(name)
        || SPECIAL_DOMAINS.iter().any(is_in)
        || METADATA.contains(&name)
}

/// Returns whether a name, in the spelling of URLs, means this machine (RFC 6761 §6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = without_final_dot(name);
    name == "localhost" || is_below(name, "localhost")
}

/// Returns the name without a final dot, which only marks it as complete (RFC 1034 §3.1).
pub(crate) fn without_final_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns whether the name has labels of 1 to 63 letters, digits, `-` and `_`, and 253 bytes at
/// most in all (RFC 1035 §2.3.4): URLs allow more than hosts can be called.
fn is_well_formed(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_letter);
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}
