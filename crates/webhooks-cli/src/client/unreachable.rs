//! The failure of a request that got no answer.

use std::error::Error;
use std::io;

use url::Url;

use crate::failure::{Exit, Failure, causes};

/// Returns the failure of a request to a server, with a hint at its reason.
pub(super) fn unreachable(server: &Url, error: reqwest::Error) -> Failure {
    let exit =
        if error.is_timeout() && !error.is_connect() { Exit::TimedOut } else { Exit::Unreachable };
    let hint = if is_of_authority(&error) {
        "the certificate of an authority cannot be that of a server: make one with \
         `-addext basicConstraints=critical,CA:FALSE`"
    } else if is_untrusted(&error) {
        "--ca FILE trusts the authority that issued the certificate, or a certificate itself"
    } else if server.scheme() == "https" && causes(&error).any(speaks_no_tls) {
        "this port speaks no TLS: use http://"
    } else {
        "is it running? `webhooks serve` starts it; --server names another one"
    };
    Failure::new(exit, format!("no answer from {server}")).because(error.without_url()).hint(hint)
}

/// Returns whether a server shows the certificate of an authority as its own, as `openssl req -x509` makes it by
/// default. rustls has no variant for it, only the text of the crate below.
fn is_of_authority(error: &reqwest::Error) -> bool {
    is_untrusted(error) && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Returns whether a server was reached and its certificate refused.
fn is_untrusted(error: &reqwest::Error) -> bool {
    causes(error).any(refuses_certificate)
}

fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    // An I/O error passes over the error in it when it tells its source, and there may be another one in it.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| refuses_certificate(inner))
        || matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// Returns whether an error, or the one in it, is that of an answer that is no TLS.
fn speaks_no_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| speaks_no_tls(inner))
        || matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
}
