//! The course of the demo.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::child::Service;
use super::promises::{Accepted, DeadEnd, Outage, Story};
use super::receivers::{Dead, Receiver};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::secret;

/// The attempts of each event that the flaky receiver refuses.
const REFUSED: u32 = 2;

/// The application of the demo.
const APP: &str = "demo";

/// The names of the endpoints.
const STEADY: &str = "steady";
const FLAKY: &str = "flaky";
const DEAD: &str = "dead";

/// The seconds before each retry. There are more of them than the demo has time for.
const SCHEDULE: [u64; 20] = [1; 20];
const FAST: [u64; 20] = [0; 20];

/// The time over which events are published.
const PUBLISHING: Duration = Duration::from_millis(2_500);

/// The longest time for an answer of the service.
const ANSWER: Duration = Duration::from_secs(5);

/// The time for the request that is in flight when the service is killed to be there, and for the service to be back.
const PATIENCE: Duration = Duration::from_secs(15);

/// The time after the last event until everything must be delivered.
const SETTLING: Duration = Duration::from_secs(12);

/// The most attempts that are counted.
const MAX_ATTEMPTS: usize = 1_000;

/// The pause between two looks at the receivers.
const LOOK: Duration = Duration::from_millis(50);

/// The settings of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) output: Output,
    pub(super) events: u32,
    pub(super) seed: u64,
    pub(super) is_fast: bool,
}

/// The receivers.
struct Receivers {
    steady: Receiver,
    flaky: Receiver,
    dead: Dead,
}

/// The way to the service, before and after its restart.
struct Clients {
    current: watch::Receiver<String>,
    key: String,
}

impl Clients {
    fn client(&mut self) -> Result<Client, Failure> {
        let url = self.current.borrow_and_update().clone();
        Client::direct(&url, &self.key, ANSWER)
    }
}

impl Stage {
    /// Plays the demo; returns what happened.
    pub(super) async fn play(self, service: &mut Service) -> Result<Story, Failure> {
        let url = service.start().await?;
        let key = secret::read("the key", &format!("@{}", service.key_file().display()))?;
        self.step(format!("[1] the service runs at {url}, on {}", service.database().display()))?;
        let receivers = Receivers {
            steady: Receiver::start(0).await?,
            flaky: Receiver::start(REFUSED).await?,
            dead: Dead::new()?,
        };
        let (urls, current) = watch::channel(url);
        let mut clients = Clients { current: current.clone(), key: key.clone() };
        self.register(&clients.client()?, &receivers).await?;
        self.step(
            "[2] three receivers: steady; flaky, which refuses each event twice; dead, at which nobody answers",
        )?;
        let mut rng = Rng::with_seed(self.seed);
        let kill_at = self.events * 2 / 5 + rng.u32(..=self.events / 5);
        let publishing = self.publish(clients, &receivers, (kill_at, rng));
        let (accepted, outage) =
            tokio::try_join!(publishing, self.crash(service, &receivers, urls))?;
        self.output.end_progress();
        self.step(format!("[4] {} events are accepted", accepted.len()))?;
        let client = Clients { current, key }.client()?;
        let story = |dead| Story {
            accepted: accepted.clone(),
            steady: receivers.steady.arrivals(),
            flaky: receivers.flaky.arrivals(),
            dead,
            outage,
        };
        self.wait_for_arrivals(|| story(DeadEnd::default())).await;
        let dead = self.look_at_dead(&client).await?;
        Ok(story(dead))
    }

    /// Makes the application and its endpoints, and gives the receivers their secrets.
    async fn register(self, client: &Client, receivers: &Receivers) -> Result<(), Failure> {
        client.post(&["app"], &json!({ "name": "Demo", "uid": APP })).await?;
        let schedule = if self.is_fast { FAST } else { SCHEDULE };
        for (uid, url) in [
            (STEADY, &receivers.steady.url),
            (FLAKY, &receivers.flaky.url),
            (DEAD, &receivers.dead.url),
        ] {
            let delivery = json!({ "retrySchedule": schedule });
            let body = json!({ "uid": uid, "url": url, "delivery": delivery });
            client.post(&["app", APP, "endpoint"], &body).await?;
        }
        for (uid, receiver) in [(STEADY, &receivers.steady), (FLAKY, &receivers.flaky)] {
            let found = client.get(&["app", APP, "endpoint", uid, "secret"], &[]).await?;
            receiver.expect(found["key"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }

    /// Publishes all events, each until it is accepted.
    async fn publish(
        self,
        mut clients: Clients,
        receivers: &Receivers,
        (kill_at, mut rng): (u32, Rng),
    ) -> Result<Vec<Accepted>, Failure> {
        let mut accepted = Vec::new();
        let pause = if self.is_fast { Duration::ZERO } else { PUBLISHING / self.events };
        let mut client = clients.client()?;
        for number in 0..self.events {
            if number == kill_at {
                receivers.steady.hold_next();
            }
            let event = json!({
                "eventType": "order.paid", "eventId": format!("order-{number}"),
                "payload": { "order": number, "total": rng.u32(100..100_000), "currency": "EUR" },
            });
            let made = loop {
                let asked_at = SystemClock.monotonic();
                match client.post(&["app", APP, "msg"], &event).await {
                    Ok(made) => break Accepted { id: id(&made)?, asked_at },
                    // The same id again: if it was accepted before the kill, it is not published twice.
                    Err(failure) if failure.exit == Exit::Unreachable => {
                        let restarted = timeout(PATIENCE, clients.current.changed()).await;
                        let Ok(Ok(())) = restarted else { return Err(failure) };
                        client = clients.client()?;
                    }
                    Err(failure) => return Err(failure),
                }
            };
            accepted.push(made);
            self.output.progress(format!("    {}/{} accepted", accepted.len(), self.events));
            SystemClock.sleep(pause).await;
        }
        Ok(accepted)
    }

    /// Kills the service while a request waits for its answer, and starts it again on the same file.
    async fn crash(
        self,
        service: &mut Service,
        receivers: &Receivers,
        urls: watch::Sender<String>,
    ) -> Result<Outage, Failure> {
        // If it does not come, publishing has failed or the check will tell it.
        let _late = timeout(PATIENCE, receivers.steady.held()).await;
        let killed_at = SystemClock.monotonic();
        service.kill().await?;
        let url = service.start().await?;
        let ready_at = SystemClock.monotonic();
        let took = ready_at.saturating_since(killed_at).as_millis();
        self.output.end_progress();
        self.step(format!(
            "[3] killed in the middle of a delivery (kill -9), and started again on the same file after {took} ms"
        ))?;
        // Publishing may have ended.
        let _unheard = urls.send(url);
        Ok(Outage { killed_at, ready_at })
    }

    /// Waits until each event was taken by the receivers that take any, or the time is over.
    async fn wait_for_arrivals(self, story: impl Fn() -> Story) {
        let all_came = async {
            loop {
                let now = story();
                let total = now.accepted.len();
                let (steady, flaky) = (now.taken(&now.steady), now.taken(&now.flaky));
                if steady == total && flaky == total {
                    break;
                }
                self.output.progress(format!("    steady {steady}/{total}, flaky {flaky}/{total}"));
                SystemClock.sleep(LOOK).await;
            }
        };
        // The promises tell it if something is missing.
        let _late = timeout(SETTLING, all_came).await;
        self.output.end_progress();
    }

    /// Returns what became of the deliveries to the dead receiver.
    async fn look_at_dead(self, client: &Client) -> Result<DeadEnd, Failure> {
        let path = ["app", APP, "endpoint", DEAD, "stats"];
        let stats = client.get(&path, &[]).await?;
        let count = |field: &str| stats[field].as_u64().unwrap_or_default();
        let path = ["app", APP, "attempt", "endpoint", DEAD];
        let attempts = client.list(&path, &[], MAX_ATTEMPTS).await?.len();
        Ok(DeadEnd { waiting: count("pending") + count("sending"), attempts })
    }

    /// Prints a step, unless one object is to be printed at the end.
    fn step(self, text: impl AsRef<str>) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        Ok(self.output.line(text)?)
    }
}

fn id(made: &Value) -> Result<String, Failure> {
    let id = made["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::new(Exit::Failed, "the service accepted an event without an id"))
}
