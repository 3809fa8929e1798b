//! The certificate of the service: its files, and how they are read anew when they change.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use url::Url;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::Clock;
use webhooks_server::{Tls, TlsCertificate, TlsError};

use crate::failure::Failure;
use crate::secret;
use crate::signals::Hangups;

/// The time between two looks at the files.
const LOOK: Duration = Duration::from_mins(1);

/// The most bytes of a file.
const MAX_LEN: u64 = 1024 * 1024;

/// The options for TLS.
#[derive(Debug, Args)]
pub(crate) struct TlsOptions {
    /// Certificate with its chain, a PEM file: the service speaks HTTPS with it; read anew when it changes
    #[arg(long, env = "WEBHOOKS_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, a PEM file
    #[arg(long, env = "WEBHOOKS_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Returns the files, if the service is to speak HTTPS.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(Failure::usage("there is a --tls-cert and no --tls-key")
                .hint("--tls-key FILE names the private key of the certificate")),
            (None, Some(_)) => Err(Failure::usage("there is a --tls-key and no --tls-cert")
                .hint("--tls-cert FILE names the certificate with its chain")),
        }
    }
}

/// The files of a certificate and of its key.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The states of both files, which change when somebody writes them. A file that cannot be seen has none.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl TlsFiles {
    /// Reads both files, and warns if others can read the key.
    pub(crate) fn read(&self) -> Result<TlsCertificate, Failure> {
        secret::warn_of_readers("--tls-key", &self.key.to_string_lossy());
        self.read_again()
    }

    /// Reads both files, and checks the time of the certificate.
    pub(crate) fn check(&self, now: Timestamp) -> Result<TlsCertificate, Failure> {
        let certificate = self.read_again()?;
        certificate.check_time(now).map_err(|error| self.refused(error))?;
        Ok(certificate)
    }

    fn read_again(&self) -> Result<TlsCertificate, Failure> {
        let (chain, key) = (read(&self.certificate)?, read(&self.key)?);
        TlsCertificate::from_pem(&chain, &key).map_err(|error| self.refused(error))
    }

    /// Returns the failure, which names the file at fault.
    pub(crate) fn refused(&self, error: TlsError) -> Failure {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let (text, hint) = match &error {
            TlsError::Mismatch => (
                format!("{certificate} and {key} do not fit together"),
                "the certificate of the server must be the first one in its file",
            ),
            TlsError::EncryptedKey => (
                format!("{key} cannot be used"),
                "`openssl pkey` writes the key without its password",
            ),
            error if error.is_of_key() => (
                format!("{key} cannot be used"),
                "--tls-key names a file with a private key in PEM",
            ),
            TlsError::NotYetValid { .. } | TlsError::Expired { .. } => (
                format!("clients refuse {certificate}"),
                "get a new certificate, and look at the clock of this machine",
            ),
            _ => (
                format!("{certificate} cannot be used"),
                "--tls-cert names a file with the certificate and its chain in PEM",
            ),
        };
        Failure::usage(text).because(error).hint(hint)
    }

    /// Returns a warning if no name of their certificate is that of the host in the public URL.
    pub(crate) fn misses(&self, certificate: &TlsCertificate, public: &Url) -> Option<String> {
        let host = public.host_str()?;
        // Certificates have no brackets around an IPv6 address.
        if certificate.is_for(host.trim_matches(['[', ']'])) {
            return None;
        }
        let path = self.certificate.display();
        Some(format!(
            "no name in {path} is {host}, the host of --public-url: clients refuse it, unless a proxy in front has \
             another one"
        ))
    }

    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let found = path.metadata().ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut found = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut found));
    read.map_err(|error| Failure::file("read", path.display(), error))?;
    Ok(found)
}

/// A certificate in use, and the files from which it was read.
pub(crate) struct UsedCertificate {
    files: TlsFiles,
    /// The states of the files from which the certificate in use was read.
    seen: Stamps,
    /// The failure of the last look, so that the log tells it once.
    told: Option<String>,
    pub(crate) tls: Tls,
}

impl UsedCertificate {
    /// Reads the files for the first time. The time of the certificate is not checked: with the clock of the machine
    /// wrong, or a certificate that was forgotten, the service still delivers.
    pub(crate) fn read(files: TlsFiles) -> Result<Self, Failure> {
        // Before it reads: a change meanwhile is seen later.
        let seen = files.stamps();
        let tls = Tls::new(files.read()?);
        Ok(Self { files, seen, told: None, tls })
    }

    /// Returns the reason for which clients refuse the certificate now, if they do.
    pub(crate) fn refused(&self, now: Timestamp) -> Option<Failure> {
        let refused = self.tls.certificate().check_time(now).err()?;
        Some(self.files.refused(refused))
    }

    /// Returns a warning if no name of the certificate is that of the host in the public URL.
    pub(crate) fn misses(&self, public: &Url) -> Option<String> {
        self.files.misses(&self.tls.certificate(), public)
    }

    /// Reads the files anew when they have changed, or when SIGHUP asks for it. Files that cannot be used change
    /// nothing, and are tried again at every look.
    pub(crate) async fn follow(mut self, clock: impl Clock, mut hangups: Hangups) -> Infallible {
        loop {
            let is_asked = tokio::select! {
                () = hangups.next() => true,
                () = clock.sleep(LOOK) => false,
            };
            self.look(is_asked, clock.now());
        }
    }

    fn look(&mut self, is_asked: bool, now: Timestamp) {
        let stamps = self.files.stamps();
        // After a failure the stamps tell nothing: a new owner or mode, or the clock, can mend it without a write.
        if stamps == self.seen && self.told.is_none() && !is_asked {
            return;
        }
        let path = self.files.certificate.display();
        match self.files.check(now) {
            Ok(certificate) => {
                let until = certificate.valid_until();
                self.tls.replace(certificate);
                self.seen = stamps;
                self.told = None;
                tracing::info!(%path, %until, "the certificate was read anew");
            }
            Err(failure) => {
                let until = self.tls.certificate().valid_until();
                let error = failure.one_line();
                if is_asked || self.told.as_ref() != Some(&error) {
                    tracing::error!(error, %until, "the certificate in use stays");
                }
                self.told = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::TempDir;
    use tokio::sync::Semaphore;
    use webhooks_dispatch::clock::{MonotonicTime, SystemClock};

    use super::*;

    /// A clock that stands still, and whose waits end when the test lets them.
    #[derive(Clone)]
    struct Minutes(std::sync::Arc<Semaphore>);

    impl Clock for Minutes {
        fn now(&self) -> Timestamp {
            SystemClock.now()
        }

        fn monotonic(&self) -> MonotonicTime {
            SystemClock.monotonic()
        }

        async fn sleep(&self, duration: Duration) {
            assert_eq!(duration, LOOK);
            self.0.acquire().await.unwrap().forget();
        }
    }

    /// Writes a file at a time of its own: two writes in one tick of the system's clock would look like one.
    fn write(path: &Path, text: &str, year: i32) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(year.unsigned_abs().into());
        let mut file = File::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(at).unwrap();
    }

    /// Writes a new pair whose certificate is valid until the start of this year.
    fn write_pair(folder: &TempDir, year: i32) -> TlsFiles {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let path = |name| folder.path().join(name);
        let files = TlsFiles { certificate: path("cert.pem"), key: path("key.pem") };
        write(&files.certificate, &params.self_signed(&key).unwrap().pem(), year);
        write(&files.key, &key.serialize_pem(), year);
        files
    }

    fn year(tls: &Tls) -> String {
        tls.certificate().valid_until().to_string().split('-').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn files_that_change_are_read_within_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let used = UsedCertificate::read(write_pair(&folder, 2100)).unwrap();
        let (tls, minutes) = (used.tls.clone(), Minutes(Semaphore::new(0).into()));
        let following = tokio::spawn(used.follow(minutes.clone(), Hangups::new().unwrap()));
        write_pair(&folder, 2200);
        assert_eq!(year(&tls), "2100", "nobody has looked");
        minutes.0.add_permits(1);
        while year(&tls) == "2100" {
            tokio::task::yield_now().await;
        }
        assert_eq!(year(&tls), "2200");
        following.abort();
    }

    #[test]
    fn files_that_cannot_be_used_change_nothing_until_they_can() {
        let folder = tempfile::tempdir().unwrap();
        let files = write_pair(&folder, 2100);
        let mut used = UsedCertificate::read(files.clone()).unwrap();
        let now = Timestamp::now();
        // Between the two writes of somebody who writes both.
        write_pair(&folder, 2200);
        let key = std::fs::read(&files.key).unwrap();
        std::fs::write(&files.key, "half of a key").unwrap();
        used.look(false, now);
        assert_eq!(year(&used.tls), "2100");
        std::fs::write(&files.key, key).unwrap();
        used.look(false, now);
        assert_eq!(year(&used.tls), "2200");
        std::fs::remove_file(&files.certificate).unwrap();
        used.look(false, now);
        assert_eq!(year(&used.tls), "2200");
        // It has expired, and the one in use has not.
        write_pair(&folder, 2020);
        used.look(false, now);
        assert_eq!(year(&used.tls), "2200");
    }

    /// As if the key was unreadable until somebody changed its owner: neither its time nor its length changes.
    #[test]
    fn files_that_could_not_be_used_are_tried_again_though_they_look_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let files = write_pair(&folder, 2100);
        let mut used = UsedCertificate::read(files.clone()).unwrap();
        let now = Timestamp::now();
        write_pair(&folder, 2200);
        let key = std::fs::read_to_string(&files.key).unwrap();
        write(&files.key, &"x".repeat(key.len()), 2200);
        let stamps = files.stamps();
        used.look(false, now);
        assert_eq!(year(&used.tls), "2100");
        assert!(used.told.is_some());
        write(&files.key, &key, 2200);
        assert_eq!(files.stamps(), stamps);
        used.look(false, now);
        assert_eq!(year(&used.tls), "2200");
        assert_eq!(used.told, None);
    }
}
