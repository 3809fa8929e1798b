//! `listen`: a receiver on this machine, which verifies, forwards, and misbehaves as it is asked.

mod forward;
mod inbox;
mod plan;
mod pull;
mod seen;
mod server;

use std::collections::BTreeMap;
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
use self::plan::{Failures, Manner, Plan, failures, rate, status};
use self::pull::Poller;
use self::seen::Seen;
use self::server::Server;
use crate::context::Context;
use crate::failure::{Exit, Failure};
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
}

/// The ways to misbehave.
#[derive(Debug, Args)]
#[command(next_help_heading = "Misbehaviour")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Misbehaviour {
    /// Status of usual answers, if no receiver behind has another
    #[arg(long, value_name = "STATUS", default_value = "200", value_parser = status)]
    respond: StatusCode,
    /// Fail with this status: the first COUNT times, or always
    #[arg(long, value_name = "STATUS[:COUNT]", value_parser = failures, conflicts_with = "app")]
    fail: Option<Failures>,
    /// Fail this share of requests with 503
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = rate, hide_default_value = true, conflicts_with = "app")]
    fail_rate: f64,
    /// Answer after this time
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, hide_default_value = true, conflicts_with = "app")]
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
    #[arg(long, group = "manner", conflicts_with = "app")]
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
    let mut signals = Signals::new()?;
    let secrets = args.secrets.iter().map(|text| secret::read_given("--secret", text));
    let mut secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    let poller = match &args.app {
        Some(app) => {
            if secrets.is_empty() {
                secrets.push(Secret::generate().dangerous_text().to_owned());
            }
            let secret = secrets.first().cloned().unwrap_or_default();
            Some(Poller::make(context.client()?, app.clone(), &args.types, secret).await?)
        }
        None => None,
    };
    let result = receive(&args, context, secrets, poller.as_ref(), &mut signals).await;
    if let Some(poller) = &poller {
        tokio::select! {
            () = poller.remove() => {}
            () = signals.next() => Output::warn(format!("the temporary poller {} stays", poller.id)),
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
    let targets = args.forward_to.iter().chain(&args.forward_types).cloned().collect();
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
        None => Source::Server(args.server(inbox).await?),
    };
    source.tell_ready(context)?;
    let mut source = pin!(source.run(stopped));
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
    /// Tells that requests can come, and from where.
    fn tell_ready(&self, context: &Context) -> Result<(), Failure> {
        let output = context.output;
        match self {
            Self::Poller(poller, _) => {
                let (server, Poller { app, id, secret, .. }) = (&context.global.server, poller);
                if output.is_json() {
                    output.json(
                        &json!({ "pulling": server, "app": app, "poller": id, "secret": secret }),
                    )?;
                } else {
                    output.note(format!("ready: pulling the events of {app} from {server} by the poller {id}, which is removed on exit; Ctrl-C ends it"));
                    output.note(format!("forwarded requests are signed with {secret}"));
                    output.note("answers of receivers are not reported to the service as attempts");
                }
            }
            Self::Server(server) => {
                let url = format!("http://{}", server.listener.local_addr()?);
                if output.is_json() {
                    output.json(&json!({ "url": url }))?;
                } else {
                    output.note(format!("ready: {url}; Ctrl-C ends it"));
                }
            }
        }
        Ok(())
    }

    /// Brings requests; ends only with a failure, or when it is stopped.
    async fn run(self, stopped: oneshot::Receiver<()>) -> Failure {
        match self {
            Self::Poller(poller, inbox) => poller.run(&inbox).await,
            Self::Server(server) => {
                server.run(stopped).await;
                Failure::new(Exit::Failed, "the receiver ended")
            }
        }
    }
}

impl ListenArgs {
    async fn server(&self, inbox: Arc<Inbox>) -> Result<Server, Failure> {
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
        Ok(Server { listener, inbox, redirect, resets: self.misbehaviour.reset })
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

/// The counts of a run.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    verified: u64,
    refused: u64,
    answers: BTreeMap<Option<u16>, u64>,
}

impl Tally {
    fn add(&mut self, seen: &Seen) {
        self.received += 1;
        match &seen.verified {
            Some(Ok(())) => self.verified += 1,
            Some(Err(_)) => self.refused += 1,
            None => {}
        }
        *self.answers.entry(seen.status).or_default() += 1;
    }

    /// Returns whether all verified that had to.
    fn checked(&self) -> Result<(), Failure> {
        match self.refused {
            0 => Ok(()),
            refused => Err(Failure::new(
                Exit::CheckFailed,
                format!("{refused} of {} did not verify", self.received),
            )),
        }
    }

    fn summary(&self) -> String {
        let Self { received, verified, refused, answers } = self;
        let answers = answers.iter().map(|(status, count)| match status {
            Some(status) => format!("{status} x {count}"),
            None => format!("none x {count}"),
        });
        let answers = answers.collect::<Vec<_>>().join(", ");
        let verified = match verified + refused {
            0 => String::new(),
            _ => format!(": {verified} verified, {refused} did not"),
        };
        let answers = if answers.is_empty() { answers } else { format!("; answers: {answers}") };
        format!("received {received}{verified}{answers}")
    }
}
