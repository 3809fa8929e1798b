//! `serve`: the service, with its workers, in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use url::Url;
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, JwtSecret, ListQuery, Role as KeyRole,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::{Engine, EngineSettings, LogObserver};
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_server::{Metrics, ServeSettings, Service, ServiceSettings, serve};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::log_options::{self, LogOptions};
use crate::private_file;
use crate::secret;
use crate::signals::Signals;
use crate::store::{Database, Opened};

/// Serve the API, and deliver
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks serve --dev
  webhooks serve --listen 0.0.0.0:8071 --database /var/lib/webhooks/webhooks.db
  webhooks serve --database postgres://webhooks@db/webhooks --roles worker")]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; systemd's socket counts before it
    #[arg(long, env = "WEBHOOKS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8071")]
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
    /// URL at which people reach the service; the address to listen on by default
    #[arg(long, env = "WEBHOOKS_PUBLIC_URL", value_name = "URL")]
    public_url: Option<Url>,
    /// For development: deliver to this machine too, also without TLS
    #[arg(long, env = "WEBHOOKS_DEV")]
    dev: bool,
    /// Network to which deliveries may go beside the public internet; may be given several times
    #[arg(long, env = "WEBHOOKS_ALLOW_NETWORK", value_name = "CIDR", value_delimiter = ',')]
    allow_network: Vec<IpNet>,
    /// Refuse endpoints whose URL is not https
    #[arg(long, env = "WEBHOOKS_HTTPS_ONLY")]
    https_only: bool,
    /// Network of the proxies in front, whose X-Forwarded-For is believed; may be given several times
    #[arg(long, env = "WEBHOOKS_PROXY_NETWORK", value_name = "CIDR", value_delimiter = ',')]
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
    grace: Duration,
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
    log: LogOptions,
    /// Check the settings, and end
    #[arg(long)]
    check: bool,
}

/// The parts of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Answers requests
    Api,
    /// Delivers
    Worker,
}

pub(crate) async fn run(args: ServeArgs, context: &Context) -> Result<(), Failure> {
    let start = SystemClock.monotonic();
    let database = Database::read(&args.database, &args.sealing_key)?;
    let transport = args.transport()?;
    let has = |role| args.roles.contains(&role);
    let mut service = args.service()?;
    let otlp = args.log.settings()?;
    args.log.install()?;
    if args.check {
        context.output.note("the settings are right");
        return Ok(());
    }
    // Before the database is opened, and a key is shown: a second copy must not use it up.
    let listener = if has(Role::Api) { Some(args.listener().await?) } else { None };
    let url = listener.as_ref().map(|listener| args.url(listener)).transpose()?;
    service.public_url = url.clone().unwrap_or(service.public_url);
    let Opened { store, admin, closing, is_new } = database.open().await?;
    let metrics = Metrics::default();
    let engine = Engine::builder(store, transport).settings(args.engine());
    let mut engine = engine.observer(metrics.clone()).observer(LogObserver::new());
    let spans = otlp.map(log_options::start).transpose()?;
    if let Some(spans) = &spans {
        engine = engine.observer(spans.clone());
    }
    let engine = engine.build();
    let key = if has(Role::Api) { args.first_key(&admin).await? } else { None };
    let worker = has(Role::Worker).then(|| engine.start());
    let running = Service::new(engine, admin, service, metrics);
    if let Some(spans) = &spans {
        running.export_spans(spans.clone());
    }

    // Before anybody is told that it runs, and may end it.
    let received = Signals::new()?;
    let took = SystemClock.monotonic().saturating_since(start).as_millis();
    tell_ready(
        (context, &args.log),
        &Ready { url: url.as_deref(), took, database: &database, is_new, key: key.as_ref() },
    )?;
    let (stop, stopped) = oneshot::channel();
    let grace = args.grace;
    let serving = running.clone();
    let ended = async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        match listener {
            Some(listener) => {
                let mut settings = ServeSettings::default();
                settings.grace = grace;
                serve(listener, serving.router(), settings, stopped).await;
            }
            None => stopped.await,
        }
        if let Some(worker) = worker {
            worker.shutdown(grace).await;
        }
    };
    let is_hurried = tokio::select! {
        () = ended => false,
        () = signals((context, &args.log), received, grace, stop) => true,
    };
    drop(running);
    closing.close().await;
    log_options::flush(spans).await;
    if is_hurried {
        Err(Failure::new(Exit::Interrupted, "ended at once by a second signal; nothing is lost"))
    } else {
        Ok(())
    }
}

impl ServeArgs {
    fn engine(&self) -> EngineSettings {
        let Self { retention, concurrency, .. } = *self;
        EngineSettings { retention, concurrency, ..EngineSettings::default() }
    }

    fn service(&self) -> Result<ServiceSettings, Failure> {
        let mut settings = ServiceSettings::default();
        settings.proxies.clone_from(&self.proxy_network);
        if let Some(text) = &self.jwt_secret {
            let secret = JwtSecret::new(&secret::read("--jwt-secret", text)?);
            let refused = |error| Failure::usage("--jwt-secret is refused").because(error);
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
    async fn listener(&self) -> Result<TcpListener, Failure> {
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

    fn url(&self, listener: &TcpListener) -> Result<String, Failure> {
        if let Some(url) = &self.public_url {
            return Ok(url.as_str().trim_end_matches('/').to_owned());
        }
        let mut address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            // Browsers do not open 0.0.0.0.
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(format!("http://{address}"))
    }

    /// Makes the key of the administrator if there is no key.
    async fn first_key(&self, admin: &Admin) -> Result<Option<ApiKeyText>, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot read or make keys").because(error);
        let now = Timestamp::now();
        let one = ListQuery { limit: 1, ..ListQuery::default() };
        if !admin.keys().list(one, now).await.map_err(failed)?.items.is_empty() {
            return Ok(None);
        }
        let text = ApiKeyText::generate();
        if let Some(path) = &self.first_key_file {
            private_file::write_new(path, format!("{}\n", text.reveal()).as_bytes())
                .map_err(|error| Failure::file("make", path.display(), error))?;
        }
        let key = ApiKey::new("administrator", text.hash(), Grant::new(KeyRole::Admin), now);
        admin
            .keys()
            .add(IdKind::ApiKey.generate(), key, &Actor::service(), now)
            .await
            .map_err(failed)?;
        Ok(Some(text).filter(|_| self.first_key_file.is_none()))
    }
}

/// Reads a number of attempts.
fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is a number from 1 on".to_owned())
}

/// The `user-agent` of deliveries.
const AGENT: &str = concat!("webhooks/", env!("CARGO_PKG_VERSION"));

/// The facts about a service that is ready.
struct Ready<'r> {
    url: Option<&'r str>,
    took: u128,
    database: &'r Database,
    is_new: bool,
    key: Option<&'r ApiKeyText>,
}

fn tell_ready((context, log): (&Context, &LogOptions), ready: &Ready<'_>) -> Result<(), Failure> {
    // Nothing listens if systemd did not start it.
    let _not_systemd = sd_notify::notify(&[NotifyState::Ready]);
    let output = context.output;
    let Ready { url, took, database, is_new, key } = ready;
    if output.is_json() {
        let key = key.map(ApiKeyText::reveal);
        return Ok(output.json(
            &json!({ "url": url, "database": database.to_string(), "new": is_new, "key": key }),
        )?);
    }
    let at = url.map_or_else(|| "as a worker".to_owned(), |url| format!("at {url}"));
    let new = if *is_new { " (new)" } else { "" };
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "webhooks {version} is ready {at} after {took} ms, with {database}{new}; Ctrl-C ends it"
    );
    log.tell(output, &text);
    if let (Some(key), Some(url)) = (key, url) {
        log.tell(output, "the key of the administrator, shown this once:");
        output.line(key.reveal())?;
        if log.is_json() {
            return Ok(());
        }
        output.note(format!(
            "first steps, in another terminal:\n  export WEBHOOKS_SERVER={url} WEBHOOKS_KEY={}\n  webhooks app create 'Acme Inc' --uid acme\n  webhooks endpoint create https://example.com/hook\n  webhooks publish invoice.paid '{{\"invoice\": 17}}' --wait",
            "…the key above…"
        ));
    }
    Ok(())
}

/// Waits for the first signal, stops, and returns at the second.
async fn signals(
    (context, log): (&Context, &LogOptions),
    mut signals: Signals,
    grace: Duration,
    stop: oneshot::Sender<()>,
) {
    signals.next().await;
    let _not_systemd = sd_notify::notify(&[NotifyState::Stopping]);
    let grace = humantime::format_duration(grace);
    let text = format!(
        "ending: requests and attempts under way have {grace} each; a second signal ends at once, and nothing is lost"
    );
    log.tell(context.output, &text);
    let _ended = stop.send(());
    signals.next().await;
}
