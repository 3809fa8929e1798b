//! The checks of this machine: what deliveries need, and files with secrets.

use std::path::PathBuf;

use serde_json::Value;
use webhooks_http::{HttpTransport, HttpTransportError};

use super::check::Check;
use super::mode;
use crate::commands::serve::ServeArgs;
use crate::failure::with_causes;

/// Checks the root certificates and the resolver, as a service on this machine would find them.
pub(super) fn check() -> Vec<Check> {
    const ROOTS: &str = "root certificates";
    const DNS: &str = "resolver";
    let roots_found = || Check::ok(ROOTS, "the system has some");
    match HttpTransport::new() {
        Ok(_transport) => vec![roots_found(), Check::ok(DNS, "the system names a server")],
        Err(error @ HttpTransportError::Dns { .. }) => {
            let mend = "mend /etc/resolv.conf and /etc/hosts";
            vec![roots_found(), Check::failed(DNS, with_causes(&error), mend)]
        }
        Err(error) => {
            let mend = "install the package ca-certificates";
            let dns = Check::skipped(DNS, "without root certificates it is not tried");
            vec![Check::failed(ROOTS, with_causes(&error), mend), dns]
        }
    }
}

/// Checks the certificate of `serve`, if its settings name one.
pub(super) fn check_certificate(serve: &ServeArgs) -> Option<Check> {
    const CERTIFICATE: &str = "certificate";
    const MEND: &str = "--tls-cert and --tls-key of `serve` name the files";
    match serve.check_certificate() {
        Ok(found) => Some(match found? {
            (_, Some(warning)) => Check::warning(
                CERTIFICATE,
                warning,
                "get a certificate with this name, or change --public-url",
            ),
            (certificate, None) => {
                let until = certificate.valid_until();
                Check::ok(CERTIFICATE, format!("it fits its key, and is valid until {until}"))
            }
        }),
        Err(failure) => Some(Check::failure(CERTIFICATE, &failure, MEND)),
    }
}

/// Checks that nobody else can read the files with secrets. `rows` are the settings, of which those that may be
/// secrets are hidden.
pub(super) fn check_files(rows: &[Value], key_files: &[PathBuf], files: &[PathBuf]) -> Vec<Check> {
    let holds_secret = |file: &&PathBuf| {
        let origin = format!("file {}", file.display());
        rows.iter().any(|row| row["origin"] == *origin && row["value"] == "(hidden)")
    };
    let secret: Vec<PathBuf> = files.iter().filter(holds_secret).cloned().collect();
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let none = if names.is_empty() {
        "no file was read: all settings are defaults, or from the environment".to_owned()
    } else {
        format!("{} are right, and hold no secret", names.join(", "))
    };
    let config = match mode::check("configuration", &secret, &none) {
        check if secret.is_empty() && !files.is_empty() => Check::ok("configuration", check.found),
        check => check,
    };
    vec![config, mode::check("key files", key_files, "no setting names a file with a key")]
}
