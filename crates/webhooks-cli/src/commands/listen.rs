//! `listen`: a receiver on this machine, which verifies, forwards, and misbehaves as it is asked.

mod forward;
mod plan;
mod seen;

mod inbox;
mod inspect;
mod report;
mod tally;

mod pull;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use url::Url;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_registry::Secret;
use webhooks_sign::scheme::Scheme;

use self::forward::{Forwarder, Target, target, typed_target};
use self::inbox::Inbox;
use self::inspect::{Hidden, Inspector};
use self::plan::{Failures, Manner, Plan, failures, rate, status};
use self::pull::{Poller, SigningSecret, Wanted};
use self::seen::Seen;
use self::server::Server;
use self::tally::Tally;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::loopback::Loopback;
use crate::output::Output;
use crate::signals::Signals;
use crate::{scheme_option, secret};

/// The most requests that wait for being printed.
const WAITING: usize = 64;

/// Receive webhooks on this machine: verify, print, forward, or misbehave as asked
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks listen --port 9000 --secret @secret.txt
  webhooks listen --app acme --types 'invoice.*' --forward-to http://localhost:3000/hook
  webhooks listen --port 9000 --fail 503:3 --delay 2s
  webhooks listen --port 9000 --inspect
  webhooks listen --port 9000 --expect 3 --within 30s --record requests --json")]
pub(crate) struct ListenArgs {
    /// Port on 127.0.0.1; a free one without it
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "app")]
    port: u16,
    /// Pull the events of this application from the service, by a temporary poller, instead of listening on a port
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Event type to pull, or a pattern such as invoice.*; may be given several times
    #[arg(long = "types", value_name = "TYPE", value_delimiter = ',', requires = "app")]
    types: Vec<String>,
    /// Endpoint, by id or uid: pull the events that it gets, too
    #[arg(long, value_name = "ID", requires = "app", conflicts_with = "types")]
    endpoint: Option<String>,
    /// Secret by which requests are verified: @FILE, -, or the secret itself; may be given several times
    #[arg(long = "secret", value_name = "@FILE", env = "WEBHOOKS_SECRET", hide_env_values = true)]
    secrets: Vec<String>,
    /// Scheme of the sender, such as github or stripe; the one whose headers are there without it
    #[arg(long, visible_alias = "scheme", value_name = "NAME", value_parser = scheme_option::named(), hide_possible_values = true, conflicts_with = "app")]
    provider: Option<&'static Scheme>,
    /// URL that is set at the sender, for schemes that sign it
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    url: String,
    /// Receiver that gets each request; may be given several times
    #[arg(long, value_name = "URL", value_parser = target)]
    forward_to: Vec<Target>,
    /// Receiver that gets the events of a type or pattern; may be given several times
    #[arg(long, value_name = "TYPE=URL", value_parser = typed_target)]
    forward_types: Vec<Target>,
    #[command(flatten)]
    misbehaviour: Misbehaviour,
    /// End after this number of requests: with 0 if all verified that had to, with 8 otherwise
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    expect: Option<u64>,
    /// End with 9 if they have not come within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "expect")]
    within: Option<Duration>,
    /// Store each request in a file of this folder, which `webhooks verify --request` reads
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Print headers and bodies
    #[arg(long)]
    full: bool,
    /// Show what comes on a page for a browser: on a free port of 127.0.0.1, or at this port or address
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "0", value_parser = inspect::address)]
    inspect: Option<SocketAddr>,
    /// Longest time in which the head of a request must arrive, and then its body
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, conflicts_with = "app")]
    read_timeout: Duration,
}

/// The ways to misbehave.
#[derive(Debug, Args)]
#[command(next_help_heading = "Misbehaviour")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Misbehaviour {
    /// Status of usual answers, if no receiver behind has another; 200 by default, and 401 for requests that do not verify
    #[arg(long, value_name = "STATUS", value_parser = status)]
    respond: Option<StatusCode>,
    /// Fail with this status: the first COUNT times, or always
    #[arg(long, value_name = "STATUS[:COUNT]", value_parser = failures)]
    fail: Option<Failures>,
    /// Fail this share of requests with 503
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = rate, hide_default_value = true)]
    fail_rate: f64,
    /// Answer after this time
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, hide_default_value = true)]
    delay: Duration,
    /// Never answer
    #[arg(long, group = "manner", conflicts_with = "app")]
    hang: bool,
    /// Reset the connection in place of an answer
    #[arg(long, group = "manner", conflicts_with = "app")]
    reset: bool,
    /// Answer with a body of one byte each second, without an end
    #[arg(long, group = "manner", conflicts_with = "app")]
    slow_body: bool,
    /// Answer with a body of 1 GiB
    #[arg(long, group = "manner", conflicts_with = "app")]
    huge_body: bool,
    /// Redirect to this URL by 307
    #[arg(long, value_name = "URL", group = "manner", conflicts_with = "app")]
    redirect: Option<Url>,
    /// Answer 410, by which senders disable an endpoint
    #[arg(long, group = "manner")]
    gone: bool,
}

impl Misbehaviour {
    fn plan(&self) -> Plan {
        let manners = [
            (self.hang, Manner::Hang),
            (self.reset, Manner::Reset),
            (self.slow_body, Manner::SlowBody),
            (self.huge_body, Manner::HugeBody),
            (self.redirect.is_some(), Manner::Redirect),
            (self.gone, Manner::Gone),
        ];
        let always = manners.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, manner)| manner);
        let Self { respond, fail: failures, fail_rate, delay, .. } = *self;
        Plan { respond, failures, fail_rate, delay, always }
    }
}

pub(crate) async fn run(args: ListenArgs, context: &Context) -> Result<(), Failure> {
    let secrets = args.secrets.iter().map(|text| secret::read_given("--secret", text));
    let mut secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    let poller = match &args.app {
        Some(app) => {
            let secret = match secrets.first() {
                Some(given) => SigningSecret::Given(given.clone()),
                None => {
                    let made = Secret::generate().dangerous_text().to_owned();
                    secrets.push(made.clone());
                    SigningSecret::Made(made)
                }
            };
            let wanted = match &args.endpoint {
                Some(endpoint) => Wanted::Endpoint(endpoint),
                None => Wanted::Types(&args.types),
            };
            Some(Poller::make(context.client()?, app.clone(), &wanted, secret).await?)
        }
        None => None,
    };
    // Until here, a signal ends the program at once, also at standard input and at a service that is silent. A poller
    // that was made in that moment expires.
    let mut signals = context.interruption.take();
    if let Some(poller) = &poller {
        let id = poller.id();
        context.interruption.advise(format!("the temporary poller {id} stays for an hour at most"));
    }
    let result = receive(&args, context, secrets, poller.as_ref(), &mut signals).await;
    if let Some(poller) = &poller {
        tokio::select! {
            () = poller.remove() => {}
            () = signals.next() => {
                let id = poller.id();
                Output::warn(format!("the temporary poller {id} stays for an hour at most"));
            }
        }
    }
    result
}

/// Receives until a signal, or until all came that were expected.
async fn receive(
    args: &ListenArgs,
    context: &Context,
    secrets: Vec<String>,
    poller: Option<&Poller>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let targets: Vec<_> = args.forward_to.iter().chain(&args.forward_types).cloned().collect();
    let first_target = targets.first().map(Target::origin);
    let hidden = Hidden::new(&secrets);
    let (sender, mut seen) = mpsc::channel(WAITING);
    let inbox = Arc::new(Inbox {
        secrets,
        scheme: args.provider,
        url: args.url.clone(),
        plan: Mutex::new(args.misbehaviour.plan()),
        forwarder: Forwarder::new(targets, context.global.timeout)?,
        seen: sender,
    });
    let (stop, stopped) = oneshot::channel();
    let source = match poller {
        Some(poller) => Source::Poller(poller, inbox),
        None => Source::Server(args.server(inbox, context.output).await?),
    };
    let inspector = args.inspector(source.url().or(first_target), hidden).await?;
    let page = inspector.as_ref().map(|inspector| inspector.url.as_str());
    source.tell_ready(page, context)?;
    let mut source = pin!(source.run(stopped, context.output));
    let mut within = pin!(async {
        match args.within {
            Some(within) => SystemClock.sleep(within).await,
            None => std::future::pending().await,
        }
    });
    let mut tally = Tally::default();
    let ended = loop {
        tokio::select! {
            biased;
            Some(one) = seen.recv() => {
                tally.add(&one);
                let one = Arc::new(one);
                // Before the line, whose readers look for it on the page.
                if let Some(inspector) = &inspector {
                    inspector.add(Arc::clone(&one));
                }
                args.show(context, &one, tally.received)?;
                if args.expect.is_some_and(|expected| tally.received >= expected) {
                    break tally.checked();
                }
            }
            () = &mut within => break Err(args.late(&tally)),
            () = signals.next() => break args.interrupted(&tally),
            failure = &mut source => return Err(failure),
        }
    };
    // Nothing more is printed; requests under way get their answers.
    drop(seen);
    if poller.is_none() && stop.send(()).is_ok() {
        tokio::select! {
            _stopped = &mut source => {}
            () = signals.next() => {}
        }
    }
    context.output.note(tally.summary());
    ended
}

/// The source of requests.
enum Source<'p> {
    Poller(&'p Poller, Arc<Inbox>),
    Server(Server),
}

impl Source<'_> {
    /// Returns the URL at which it receives.
    fn url(&self) -> Option<String> {
        let Self::Server(server) = self else { return None };
        server.loopback.listener.local_addr().ok().map(|address| format!("http://{address}"))
    }

    /// Tells that requests can come, from where, and where they are shown.
    fn tell_ready(&self, page: Option<&str>, context: &Context) -> Result<(), Failure> {
        let output = context.output;
        let mut ready = match self {
            Self::Poller(poller, _) => {
                let (app, id, secret) = (&poller.app, poller.id(), poller.secret.made());
                let server = &context.global.server;
                if !output.is_json() {
                    output.note(format!("ready: pulling the events of {app} from {server} by the poller {id}, which is removed on exit; Ctrl-C ends it"));
                    let signer = secret.unwrap_or("the given secret");
                    output.note(format!("forwarded requests are signed with {signer}"));
                    output.note(format!(
                        "answers are recorded: webhooks delivery list --endpoint {id} --app {app}"
                    ));
                }
                let mut ready = json!({ "pulling": server, "app": app, "poller": id });
                if let Some(secret) = secret {
                    ready["secret"] = secret.into();
                }
                ready
            }
            Self::Server(_) => {
                let url = self.url();
                if let Some(url) = url.as_deref().filter(|_| !output.is_json()) {
                    output.note(format!("ready: {url}; Ctrl-C ends it"));
                }
                json!({ "url": url })
            }
        };
        if output.is_json() {
            if let Some(page) = page {
                ready["inspect"] = page.into();
            }
            output.json(&ready)?;
        } else if let Some(page) = page {
            output.note(format!("what comes is shown at {page} until this ends"));
        }
        Ok(())
    }

    /// Brings requests; ends only with a failure, or when it is stopped.
    async fn run(self, stopped: oneshot::Receiver<()>, output: Output) -> Failure {
        match self {
            Self::Poller(poller, inbox) => poller.run(&inbox, output).await,
            Self::Server(server) => {
                server.run(stopped).await;
                Failure::new(Exit::Failed, "the receiver ended")
            }
        }
    }
}

impl ListenArgs {
    /// Starts the page, if it is wanted. `target` is where requests come to, or are forwarded to.
    async fn inspector(
        &self,
        target: Option<String>,
        hidden: Hidden,
    ) -> Result<Option<Inspector>, Failure> {
        let Some(address) = self.inspect else { return Ok(None) };
        let target = target.unwrap_or_else(|| "http://localhost".to_owned());
        Inspector::start(address, target, hidden).await.map(Some)
    }

    async fn server(&self, inbox: Arc<Inbox>, output: Output) -> Result<Server, Failure> {
        let failed = |error| {
            Failure::new(Exit::Failed, format!("cannot listen on port {}", self.port))
                .because(error)
                .hint("another program has it: --port names another one, and without --port a free one is taken")
        };
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.map_err(failed)?;
        let redirect =
            self.misbehaviour.redirect.as_ref().map(|url| HeaderValue::from_str(url.as_str()));
        let redirect = redirect.transpose();
        let redirect = redirect.map_err(|error| Failure::usage("--redirect").because(error))?;
        let (read_timeout, resets) = (self.read_timeout, self.misbehaviour.reset);
        let loopback = Loopback { listener, read_timeout, resets, output: Some(output) };
        Ok(Server { loopback, inbox, redirect })
    }

    fn show(&self, context: &Context, seen: &Seen, number: u64) -> Result<(), Failure> {
        if let Some(folder) = &self.record {
            seen.record(folder, number)?;
        }
        let output = context.output;
        if output.is_json() {
            return Ok(output.json(&seen.json(self.full))?);
        }
        output.line(seen.line())?;
        if self.full {
            seen.lines().iter().try_for_each(|line| output.line(line))?;
        }
        Ok(())
    }

    fn late(&self, tally: &Tally) -> Failure {
        let expected = self.expect.unwrap_or_default();
        Failure::new(Exit::TimedOut, format!("{} of {expected} came in time", tally.received))
    }

    fn interrupted(&self, tally: &Tally) -> Result<(), Failure> {
        match self.expect {
            Some(expected) => Err(Failure::new(
                Exit::Interrupted,
                format!("ended by a signal; {} of {expected} came", tally.received),
            )),
            None if tally.received == 0 => {
                Err(Failure::new(Exit::Interrupted, "ended by a signal; nothing came"))
            }
            None => Ok(()),
        }
    }
}
