//! `serve`: the service, with its workers, in this process.

mod args;
mod ready;

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::{Engine, LogObserver};
use webhooks_server::{Metrics, ServeSettings, Service, Tls, serve, serve_tls};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::log_options::{self, LogOptions};
use crate::signals::{Hangups, Signals};
use crate::store::Opened;
use crate::tls_options::UsedCertificate;

pub(crate) use args::ServeArgs;
use args::{Prepared, Role};
use ready::{Ready, tell_ready};

pub(crate) async fn run(args: ServeArgs, context: &Context) -> Result<(), Failure> {
    let start = SystemClock.monotonic();
    let Prepared { database, transport, mut service, otlp, certificate } = args.prepare(context)?;
    if args.check {
        return Ok(context.output.done("serve", "checked", "the settings are right")?);
    }
    // Before the database is opened, and a key is shown: a second copy must not use it up.
    let listener = if args.has(Role::Api) { Some(args.listener().await?) } else { None };
    let tls = certificate.as_ref().map(|used| used.tls.clone());
    let url = listener.as_ref().map(|listener| args.url(listener, tls.is_some())).transpose()?;
    service.public_url = url.clone().unwrap_or(service.public_url);
    if args.has(Role::Api) {
        args.check_first_key_file(&database)?;
    }
    let Opened { store, admin, closing, is_new } = database.open().await?;
    let metrics = Metrics::default();
    let engine = Engine::builder(store, transport).settings(args.engine());
    let mut engine = engine.observer(metrics.clone()).observer(LogObserver::new());
    let spans = otlp.map(log_options::start).transpose()?;
    if let Some(spans) = &spans {
        engine = engine.observer(spans.clone());
    }
    let engine = engine.build();
    let key = if args.has(Role::Api) {
        args.first_key((context, &database), &admin).await?
    } else {
        None
    };
    let worker = args.has(Role::Worker).then(|| engine.start());
    let running = Service::new(engine, admin, service, metrics);
    if let Some(spans) = &spans {
        running.export_spans(spans.clone());
    }

    // Before anybody is told that it runs, and may end it.
    let received = context.interruption.take();
    let following = follow(certificate)?;
    let took = SystemClock.monotonic().saturating_since(start).as_millis();
    tell_ready(
        (context, &args.log),
        &Ready { url: url.as_deref(), took, database: &database, is_new, key: key.as_ref() },
    )?;
    let (stop, stopped) = oneshot::channel();
    let grace = args.grace;
    let serving = running.clone();
    let ended = async move {
        serve_until(listener, (serving, tls), grace, stopped).await;
        if let Some(worker) = worker {
            worker.shutdown(grace).await;
        }
    };
    let is_hurried = tokio::select! {
        () = ended => false,
        () = signals((context, &args.log), received, grace, stop) => true,
        never = following => match never {},
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

/// Serves the API, if this process does, until the stop.
async fn serve_until(
    listener: Option<TcpListener>,
    (service, tls): (Service, Option<Tls>),
    grace: Duration,
    stopped: oneshot::Receiver<()>,
) {
    let stopped = async { stopped.await.unwrap_or_default() };
    let Some(listener) = listener else { return stopped.await };
    let mut settings = ServeSettings::default();
    settings.grace = grace;
    let router = service.router();
    match tls {
        Some(tls) => serve_tls(listener, tls, router, settings, stopped).await,
        None => serve(listener, router, settings, stopped).await,
    }
}

/// Takes SIGHUP, and returns what reads the certificate anew, if there is one. Without one, SIGHUP ends the process.
fn follow(
    certificate: Option<UsedCertificate>,
) -> Result<impl Future<Output = Infallible>, Failure> {
    let certificate = match certificate {
        Some(used) => Some((used, Hangups::new()?)),
        None => None,
    };
    Ok(async move {
        match certificate {
            Some((used, hangups)) => used.follow(SystemClock, hangups).await,
            None => std::future::pending().await,
        }
    })
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
