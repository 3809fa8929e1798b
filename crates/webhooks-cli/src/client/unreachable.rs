//! The failure of a request that got no answer.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use url::Url;

use crate::failure::{Exit, Failure, causes};

/// Returns the failure of a request to a server, with a hint at its reason.
pub(super) fn unreachable(server: &Url, error: reqwest::Error) -> Failure {
    let exit =
        if error.is_timeout() && !error.is_connect() { Exit::TimedOut } else { Exit::Unreachable };
    let hint = if let Some(reason) = causes(&error).find_map(refused_certificate) {
        hint_at(reason)
    } else if server.scheme() == "https" && causes(&error).any(speaks_no_tls) {
        "this port speaks no TLS: use http://"
    } else {
        "is it running? `webhooks serve` starts it; --server names another one"
    };
    Failure::new(exit, format!("no answer from {server}")).because(error.without_url()).hint(hint)
}

/// Returns what to do about a certificate that was refused.
fn hint_at(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for other names: name the server by one of them with --server, or get a certificate \
             with this name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "get a new certificate for the server, and look at the clock of this machine"
        }
        // `openssl req -x509` makes such a certificate by default. rustls has no variant for it, only the text of the
        // crate below.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the certificate of an authority cannot be that of a server: make one with \
             `-addext basicConstraints=critical,CA:FALSE`"
        }
        _ => "--ca FILE trusts the authority that issued the certificate, or a certificate itself",
    }
}

/// Returns why a certificate was refused, if an error, or the one in it, tells that.
fn refused_certificate<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e CertificateError> {
    // An I/O error passes over the error in it when it tells its source, and there may be another one in it.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    if let Some(reason) = inner.and_then(|inner| refused_certificate(inner)) {
        return Some(reason);
    }
    match error.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(reason)) => Some(reason),
        _ => None,
    }
}

/// Returns whether an error, or the one in it, is that of an answer that is no TLS.
fn speaks_no_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| speaks_no_tls(inner))
        || matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
}
