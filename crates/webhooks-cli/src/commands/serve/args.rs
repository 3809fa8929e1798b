//! The options of `serve`, and what they make.

use std::io::ErrorKind;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use url::Url;
use webhooks_admin::{Admin, ApiKey, ApiKeyText, Grant, JwtSecret, ListQuery, Role as KeyRole};
use webhooks_core::Timestamp;
use webhooks_dispatch::EngineSettings;
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_server::otlp::OtlpSettings;
use webhooks_server::{BasePath, ServiceSettings, TlsCertificate};

use crate::config::Origin;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::log_options::LogOptions;
use crate::private_file;
use crate::secret;
use crate::store::Database;
use crate::tls_options::{TlsOptions, UsedCertificate};

/// Serve the API, and deliver
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks serve --dev
  webhooks serve --database /var/lib/webhooks/webhooks.db --public-url https://hooks.example.com
  webhooks serve --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
  webhooks serve --database postgres://webhooks@db/webhooks --roles worker")]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; systemd's socket counts before it
    #[arg(
        long,
        env = "WEBHOOKS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8071",
        value_parser = address
    )]
    listen: SocketAddr,
    /// File, or postgres:// URL; @FILE for a URL in a file
    #[arg(
        long,
        env = "WEBHOOKS_DATABASE",
        value_name = "FILE|URL",
        default_value = "webhooks.db",
        hide_env_values = true
    )]
    database: String,
    /// Parts of the service that run in this process
    #[arg(
        long,
        env = "WEBHOOKS_ROLES",
        value_name = "ROLE",
        value_delimiter = ',',
        default_value = "api,worker"
    )]
    roles: Vec<Role>,
    #[command(flatten)]
    tls: TlsOptions,
    /// Path under which the API and its pages are, such as /hooks
    #[arg(long, env = "WEBHOOKS_BASE_PATH", value_name = "PATH", default_value = "/")]
    base_path: BasePath,
    /// URL at which people reach the service, with the base path; the address to listen on by default
    #[arg(long, env = "WEBHOOKS_PUBLIC_URL", value_name = "URL")]
    public_url: Option<Url>,
    /// URL of a portal of your own, for links to sessions; without it they name /portal under the public URL, where no page is yet
    #[arg(long, env = "WEBHOOKS_PORTAL_URL", value_name = "URL")]
    portal_url: Option<Url>,
    /// For development: deliver to this machine too, also without TLS
    #[arg(long, env = "WEBHOOKS_DEV")]
    dev: bool,
    /// Network to which deliveries may go beside the public internet; may be given several times
    #[arg(long, env = "WEBHOOKS_ALLOW_NETWORK", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    allow_network: Vec<IpNet>,
    /// Refuse endpoints whose URL is not https
    #[arg(long, env = "WEBHOOKS_HTTPS_ONLY")]
    https_only: bool,
    /// Network of the proxies in front, whose X-Forwarded-For is believed; may be given several times
    #[arg(long, env = "WEBHOOKS_PROXY_NETWORK", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    proxy_network: Vec<IpNet>,
    /// Time after which events that have ended are forgotten
    #[arg(long, env = "WEBHOOKS_RETENTION", value_name = "TIME", default_value = "30d", value_parser = humantime::parse_duration)]
    retention: Duration,
    /// Most attempts in flight at once
    #[arg(
        long,
        env = "WEBHOOKS_CONCURRENCY",
        value_name = "NUMBER",
        default_value_t = 256,
        value_parser = concurrency
    )]
    concurrency: usize,
    /// Time that requests and attempts have to end after the first signal
    #[arg(long, env = "WEBHOOKS_GRACE", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) grace: Duration,
    /// Key that encrypts secrets in the database, 64 hexadecimal digits: @FILE; older keys after the first
    #[arg(
        long,
        env = "WEBHOOKS_SEALING_KEY",
        value_name = "@FILE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    sealing_key: Vec<String>,
    /// Secret of a Svix server whose tokens are accepted: @FILE
    #[arg(long, env = "WEBHOOKS_JWT_SECRET", value_name = "@FILE", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// New file for the key that the first start makes; printed without it
    #[arg(long, env = "WEBHOOKS_FIRST_KEY_FILE", value_name = "FILE")]
    first_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) log: LogOptions,
    /// Check the settings, and end
    #[arg(long)]
    pub(super) check: bool,
}

/// The parts of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Answers requests
    Api,
    /// Delivers
    Worker,
    /// The dashboard, which this build does not have
    #[value(hide = true)]
    Ui,
    /// The portal of customers, which this build does not have
    #[value(hide = true)]
    Portal,
}

/// The settings in the form in which they are used.
pub(super) struct Prepared {
    pub(super) database: Database,
    pub(super) transport: HttpTransport,
    pub(super) service: ServiceSettings,
    pub(super) otlp: Option<OtlpSettings>,
    pub(super) certificate: Option<UsedCertificate>,
}

impl ServeArgs {
    /// Checks and reads all settings, warns of what is unwise, and starts the log.
    pub(super) fn prepare(&self, context: &Context) -> Result<Prepared, Failure> {
        let name = |option: &str| context.name_of("serve", option);
        self.check_roles(&name("roles"))?;
        self.check_public_url(&name("public-url"))?;
        self.warn_of_secrets(context);
        let database = Database::read_named(
            (&name("database"), &self.database),
            (&name("sealing-key"), &self.sealing_key),
        )?;
        let transport = self.transport()?;
        let service = self.service(&name("jwt-secret"))?;
        let otlp = self.log.settings(&name)?;
        let certificate = self.tls.files()?.map(UsedCertificate::read).transpose()?;
        self.log.install(&name)?;
        let refused = certificate.as_ref().and_then(|used| used.refused(Timestamp::now()));
        match refused {
            Some(failure) if self.check => return Err(failure),
            Some(failure) => self.log.warn(&failure.one_line()),
            None => {}
        }
        let named = certificate.as_ref().zip(self.public_url.as_ref());
        if let Some(text) = named.and_then(|(used, url)| used.misses(url)) {
            self.log.warn(&text);
        }
        Ok(Prepared { database, transport, service, otlp, certificate })
    }

    /// Returns whether a part of the service runs in this process.
    pub(super) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub(super) fn engine(&self) -> EngineSettings {
        let Self { retention, concurrency, .. } = *self;
        EngineSettings { retention, concurrency, ..EngineSettings::default() }
    }

    /// Refuses parts that are planned, and not there yet. `name` is that of the setting.
    fn check_roles(&self, name: &str) -> Result<(), Failure> {
        let role = self.roles.iter().find_map(|role| match role {
            Role::Api | Role::Worker => None,
            Role::Ui => Some("ui"),
            Role::Portal => Some("portal"),
        });
        let Some(role) = role else { return Ok(()) };
        let text = format!("{name} names {role:?}, which is not in this build");
        Err(Failure::usage(text).hint("the roles of this build are api and worker"))
    }

    /// Refuses a public URL without the base path. `name` is that of the setting.
    fn check_public_url(&self, name: &str) -> Result<(), Failure> {
        let Some(url) = &self.public_url else { return Ok(()) };
        let base = self.base_path.as_str();
        if without_slash(url).ends_with(base) {
            return Ok(());
        }
        let text = format!("{name} does not end with the base path {base}: links would fail");
        Err(Failure::usage(text).hint(format!("add {base} to the URL")))
    }

    /// Refuses a file for the first key that exists already, while no database is made yet.
    pub(super) fn check_first_key_file(&self, database: &Database) -> Result<(), Failure> {
        let is_new = database.file().is_some_and(|file| !file.exists());
        match &self.first_key_file {
            Some(path) if is_new && path.exists() => Err(taken(path)),
            _ => Ok(()),
        }
    }

    /// Warns of secrets that stand on the command line.
    fn warn_of_secrets(&self, context: &Context) {
        let sealing = self.sealing_key.iter().map(|text| ("sealing-key", text));
        let jwt = self.jwt_secret.iter().map(|text| ("jwt-secret", text));
        let database = Some(("database", &self.database));
        let database = database.filter(|(_, text)| Database::shows_password(text));
        for (option, text) in sealing.chain(jwt).chain(database).chain(self.log.secrets()) {
            if context.origin("serve", option) == Origin::Flag {
                secret::warn_of_literal(&format!("--{option}"), text);
            }
        }
    }

    /// Checks the files of the certificate, if there is one. Also returns the warning of a name that it lacks.
    pub(crate) fn check_certificate(
        &self,
    ) -> Result<Option<(TlsCertificate, Option<String>)>, Failure> {
        let Some(files) = self.tls.files()? else { return Ok(None) };
        let certificate = files.check(Timestamp::now())?;
        let public = self.public_url.as_ref();
        let warning = public.and_then(|url| files.misses(&certificate, url));
        Ok(Some((certificate, warning)))
    }

    /// Returns the file of the certificate's key, if there is one.
    pub(crate) fn certificate_key(&self) -> Option<PathBuf> {
        self.tls.files().ok().flatten().map(|files| files.key)
    }

    /// Returns the settings of the service. `jwt_name` is the name of that setting in errors.
    fn service(&self, jwt_name: &str) -> Result<ServiceSettings, Failure> {
        let mut settings = ServiceSettings::default();
        settings.proxies.clone_from(&self.proxy_network);
        settings.base_path = self.base_path.clone();
        settings.portal_url = self.portal_url.as_ref().map(without_slash);
        if let Some(text) = &self.jwt_secret {
            let secret = JwtSecret::new(&secret::read(jwt_name, text)?);
            let refused = |error| Failure::usage(format!("{jwt_name} is refused")).because(error);
            settings.jwt_secret = Some(secret.map_err(refused)?);
        }
        Ok(settings)
    }

    /// Returns the policy for the destinations of deliveries.
    pub(crate) fn policy(&self) -> AddressPolicy {
        let mut policy =
            if self.dev { AddressPolicy::development() } else { AddressPolicy::public() };
        for network in &self.allow_network {
            policy = policy.allow_network(*network);
        }
        if self.https_only { policy.https_only() } else { policy }
    }

    fn transport(&self) -> Result<HttpTransport, Failure> {
        let policy = self.policy();
        let transport = HttpTransport::builder().address_policy(policy).user_agent(AGENT).build();
        transport.map_err(|error| {
            Failure::new(Exit::Failed, "cannot set up the transport").because(error)
        })
    }

    /// Returns the socket that systemd opened, or one of its own.
    pub(super) async fn listener(&self) -> Result<TcpListener, Failure> {
        let failed = |error| {
            Failure::new(Exit::Failed, format!("cannot listen on {}", self.listen))
                .because(error)
                .hint("is another copy running? --listen names another address, and port 0 takes a free one")
        };
        match ListenFd::from_env().take_tcp_listener(0).map_err(failed)? {
            Some(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                TcpListener::from_std(listener).map_err(failed)
            }
            None => TcpListener::bind(self.listen).await.map_err(failed),
        }
    }

    /// Returns the URL of the service, and warns of what makes it hard or dangerous to reach.
    pub(super) fn url(&self, listener: &TcpListener, has_tls: bool) -> Result<String, Failure> {
        let (mut address, base) = (listener.local_addr()?, self.base_path.as_str());
        if !has_tls && !address.ip().is_loopback() && self.proxy_network.is_empty() {
            self.log.warn(&format!(
                "keys and payloads come to {address} without encryption: put a proxy with TLS in front, and name its \
                 network with --proxy-network, or give --tls-cert and --tls-key"
            ));
        }
        if let Some(url) = &self.public_url {
            return Ok(without_slash(url));
        }
        if address.ip().is_unspecified() {
            // Browsers do not open 0.0.0.0.
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let scheme = if has_tls { "https" } else { "http" };
        Ok(format!("{scheme}://{address}{base}"))
    }

    /// Makes the key of the administrator if there is no key.
    pub(super) async fn first_key(
        &self,
        (context, database): (&Context, &Database),
        admin: &Admin,
    ) -> Result<Option<ApiKeyText>, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot read or make keys").because(error);
        let now = Timestamp::now();
        let one = ListQuery { limit: 1, ..ListQuery::default() };
        if !admin.keys().list(one, now).await.map_err(failed)?.items.is_empty() {
            // A file that exists is that of an earlier start, and a variable of systemd stays when it is deleted.
            let is_new = self.first_key_file.as_ref().is_some_and(|path| !path.exists());
            if is_new && context.origin("serve", "first-key-file") == Origin::Flag {
                self.log.warn(&format!(
                    "{database} has its keys already: --first-key-file is not written"
                ));
            }
            return Ok(None);
        }
        let text = ApiKeyText::generate();
        if let Some(path) = &self.first_key_file {
            private_file::write_new(path, format!("{}\n", text.reveal()).as_bytes()).map_err(
                |error| match error.kind() {
                    ErrorKind::AlreadyExists => taken(path),
                    _ => Failure::file("make", path.display(), error),
                },
            )?;
        }
        let key = ApiKey::new("administrator", text.hash(), Grant::new(KeyRole::Admin), now);
        let is_added = admin.add_first_key(key, now).await.map_err(failed)?;
        // Another process was first.
        if !is_added && let Some(path) = &self.first_key_file {
            std::fs::remove_file(path)
                .map_err(|error| Failure::file("remove", path.display(), error))?;
        }
        Ok(Some(text).filter(|_| is_added && self.first_key_file.is_none()))
    }
}

/// Returns the failure of a file for the first key that exists already.
fn taken(path: &Path) -> Failure {
    let text = format!("{}, which --first-key-file names, exists already", path.display());
    Failure::new(Exit::Failed, text).hint("remove it, or name another file")
}

/// Reads an address with a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost").unwrap_or(text);
    let port: Option<u16> = port.strip_prefix(':').unwrap_or(port).parse().ok();
    text.parse().map_err(|error: AddrParseError| match port {
        Some(port) => format!("write it as 127.0.0.1:{port}"),
        None => format!("{error}, such as 127.0.0.1:8071"),
    })
}

/// Reads a network.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|error: ipnet::AddrParseError| match text.parse::<IpAddr>() {
        Ok(address) => format!("write it as {}", IpNet::from(address)),
        Err(_) => error.to_string(),
    })
}

/// Returns a URL to which a path can be added.
fn without_slash(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Reads a number of attempts.
fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is a number from 1 on".to_owned())
}

/// The `user-agent` of deliveries.
const AGENT: &str = concat!("webhooks/", env!("CARGO_PKG_VERSION"));
