//! A store whose writer runs when a test tells it to.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::task::noop_waker;
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;
use webhooks_core::{DeliveryId, EndpointId, Event, EventId, TenantId, Timestamp};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::{
    Publication, Replay, Undelivered,
    clock::{MonotonicTime, Now},
    store::{
        Attempt, Claim, ClaimRequest, Claimed, DeliveryStore as _, ExpungeRequest,
        OperationStore as _, Outcome, ReplayMode, ReplayRequest, Room, SerializedEvent, Settled,
        Settlement,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey,
    store::{EndpointStore as _, RegisterRequest, StateChange},
};

use crate::command::WriteCommand;
use crate::endpoints::Register;
use crate::inner::SqliteInner;
use crate::open::prepare;
use crate::publish::Publish;
use crate::retention::Prune;
use crate::settle::Settle;
use crate::transaction::{Transact, Transaction};
use crate::write_connection::WriteConnection;
use crate::writer::Writer;
use crate::{SqliteOptions, SqliteStore};

/// A call that the writer carries out; numbers choose among what is there.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Cancel {
        delivery: u64,
    },
    Expunge {
        event: u8,
    },
    /// A command that fails, and its whole group with it.
    Fail,
    Prune {
        age: u64,
    },
    Publish {
        event: u8,
        wanted: bool,
    },
    Register {
        endpoint: usize,
        active: bool,
        ordered: bool,
        picky: bool,
    },
    /// Publishes an event to endpoint `a` alone, whatever it subscribes to, for a later time.
    Schedule {
        event: u8,
        seconds: u64,
    },
    Replay {
        kind: u8,
        endpoint: usize,
        delivery: u64,
    },
    SetState {
        endpoint: usize,
        change: StateChange,
    },
    Settle {
        held: Vec<(usize, u8)>,
    },
    /// A transaction of the application, which publishes two events.
    Transact {
        event: u8,
        is_refused: bool,
    },
    Unregister {
        endpoint: usize,
    },
}

/// Fails, as a bug or a damaged page would make it.
struct Fail;

impl WriteCommand for Fail {
    type Answer = ();

    const ENDS_GROUP: bool = false;

    fn write(&mut self, _: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        Err(rusqlite::Error::InvalidQuery)
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) {}
}

/// Panics when memory follows, as a bug would make it.
pub(crate) struct Bug;

impl WriteCommand for Bug {
    type Answer = ();

    fn write(&mut self, _: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) {
        std::panic::panic_any("a bug")
    }
}

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_000_000 + seconds)
}

/// Both clocks at a time; they go together here.
pub(crate) fn clocks(seconds: u64) -> Now {
    let monotonic = MonotonicTime::from_origin(Duration::from_secs(seconds));
    Now { wall: at(seconds), monotonic }
}

pub(crate) fn name(endpoint: usize) -> EndpointId {
    EndpointId::new(["a", "b", "c"][endpoint]).unwrap()
}

pub(crate) fn key(endpoint: usize) -> EndpointKey {
    EndpointKey::of_default_tenant(name(endpoint))
}

/// An answer that is awaited, as text.
pub(crate) type Awaited = Pin<Box<dyn Future<Output = String>>>;

/// A store whose writer runs when it is told to.
pub(crate) struct Side {
    folder: TempDir,
    window: Window,
    ignores_ends: bool,
    pub(crate) store: SqliteStore,
    pub(crate) writer: Writer,
}

impl Side {
    pub(crate) fn new(window: Window, ignores_ends: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, writer) = Self::open(&folder, window, ignores_ends);
        Self { folder, window, ignores_ends, store, writer }
    }

    fn open(folder: &TempDir, window: Window, ignores_ends: bool) -> (SqliteStore, Writer) {
        let options = SqliteOptions::new(folder.path().join("store.db")).window(window);
        let (store, mut writer) = prepare(options).unwrap();
        writer.connection.sqlite().pragma_update(None, "synchronous", "OFF").unwrap();
        if ignores_ends {
            writer.is_last = Box::new(|_| false);
        }
        while writer.refill() {}
        (store, writer)
    }

    pub(crate) fn reopened(self) -> Self {
        let Self { folder, window, ignores_ends, store, writer } = self;
        drop((store, writer));
        let (store, writer) = Self::open(&folder, window, ignores_ends);
        Self { folder, window, ignores_ends, store, writer }
    }

    /// Sends a command to the writer's queue; the answer comes later.
    pub(crate) fn queue(&self, order: &Order, held: &[Claim], now: Timestamp) -> Awaited {
        let store = self.store.clone();
        let mut awaited: Awaited = match order.clone() {
            Order::Cancel { delivery } => Box::pin(async move {
                format!("{:?}", store.cancel(vec![DeliveryId::from_u64(delivery)], now).await)
            }),
            Order::Expunge { event } => Box::pin(expunge(store, event, now)),
            Order::Schedule { event, seconds } => Box::pin(schedule(store, event, seconds, now)),
            Order::Fail => Box::pin(async move { format!("{:?}", store.write(Fail).await) }),
            Order::Prune { age } => Box::pin(async move {
                let before = now.saturating_sub(Duration::from_secs(age));
                // How many it looks at depends on what was rolled back before.
                let pruned = store.write(Prune::new(before, 3)).await;
                format!("{:?}", pruned.map(|pruned| pruned.deleted))
            }),
            Order::Publish { event, wanted } => Box::pin(async move {
                let id = EventId::new(&format!("event-{event}")).unwrap();
                let event = Event::new(if wanted { "wanted" } else { "other" }, 1).unwrap();
                let event = SerializedEvent::new(&event.id(id).timestamp(at(0)));
                format!("{:?}", store.publish(vec![event], now).await)
            }),
            Order::Register { endpoint, active, ordered, picky } => Box::pin(async move {
                let mut new = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
                (new.active, new.ordered) = (active, ordered);
                let new = if picky { new.events(["wanted"]).unwrap() } else { new };
                format!(
                    "{:?}",
                    store.register(RegisterRequest::new(name(endpoint), new, now)).await
                )
            }),
            Order::Replay { kind, endpoint, delivery } => Box::pin(async move {
                let delivery = DeliveryId::from_u64(delivery);
                let replay = match kind {
                    0 => Replay::Delivery(delivery),
                    1 => Replay::of_endpoint(key(endpoint), Undelivered::FAILED),
                    2 => Replay::of_endpoint(key(endpoint), Undelivered::CANCELLED),
                    3 => Replay::of_endpoint(key(endpoint), Undelivered::MISSED),
                    _ => Replay::Deliveries(vec![delivery, DeliveryId::from_u64(1)]),
                };
                let mode = ReplayMode::Replay;
                // Events published at the same time came before it.
                let started_at = now + Duration::from_secs(1);
                let request =
                    ReplayRequest { replay, limit: 4, started_at, now, after: None, mode };
                format!("{:?}", store.replay(request).await)
            }),
            Order::SetState { endpoint, change } => Box::pin(async move {
                format!("{:?}", store.set_state(key(endpoint), change, now).await)
            }),
            Order::Settle { held: picks } => {
                let settlements = settlements(&picks, held, now);
                Box::pin(async move { format!("{:?}", store.settle(settlements, now).await) })
            }
            Order::Transact { event, is_refused } => Box::pin(async move {
                let work = move |transaction: &mut Transaction<'_>| {
                    let mut told = Vec::new();
                    for event in [event, event + 1] {
                        let id = EventId::new(&format!("event-{event}")).unwrap();
                        let event = Event::new("wanted", 1).unwrap().id(id).timestamp(at(0));
                        told.push(transaction.publish(&event).map_err(|error| error.to_string()));
                    }
                    if is_refused { Err(told) } else { Ok(told) }
                };
                format!("{:?}", store.write(Transact::new(work, now)).await)
            }),
            Order::Unregister { endpoint } => {
                Box::pin(async move { format!("{:?}", store.unregister(key(endpoint), now).await) })
            }
        };
        let waker = noop_waker();
        assert!(awaited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        awaited
    }

    /// Runs the writer until its queue is empty.
    pub(crate) fn run(&mut self) {
        while let Ok(first) = self.writer.queue.try_recv() {
            self.writer.carry_out(first);
        }
    }

    pub(crate) fn do_all(&mut self, orders: &[Order], now: Timestamp) -> Vec<String> {
        let mut awaited: Vec<Awaited> =
            orders.iter().map(|order| self.queue(order, &[], now)).collect();
        self.run();
        awaited.iter_mut().map(answer).collect()
    }

    /// Carries out one command, and returns what it answers.
    pub(crate) fn write<W: WriteCommand>(&mut self, write: W) -> W::Answer {
        let store = self.store.clone();
        let mut awaited = Box::pin(store.write(write));
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        assert!(awaited.as_mut().poll(&mut context).is_pending());
        self.run();
        match awaited.as_mut().poll(&mut context) {
            Poll::Ready(answer) => answer.unwrap(),
            Poll::Pending => panic!("the writer has not answered"),
        }
    }

    pub(crate) fn publish(&mut self, id: &str, event_type: &str, now: Timestamp) {
        let event = Event::new(event_type, 1).unwrap().id(EventId::new(id).unwrap());
        let published = self.write(Publish::new(vec![SerializedEvent::new(&event)], now));
        assert!(published.unwrap()[0].is_ok());
    }

    /// Settles deliveries as delivered.
    pub(crate) fn settle(&mut self, claimed: &[Claimed], now: Timestamp) -> Vec<Settled> {
        let claims: Vec<Claim> = claimed.iter().map(|claimed| claimed.claim).collect();
        let picks: Vec<(usize, u8)> = (0..claims.len()).map(|n| (n, 0)).collect();
        self.write(Settle::new(settlements(&picks, &claims, now), now))
    }

    pub(crate) fn register_many(&mut self, count: usize) {
        for n in 0..count {
            let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
            let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
            let request = RegisterRequest::new(id, endpoint, at(0));
            let registered = self.write(Register::new(request));
            assert!(registered.is_ok());
        }
    }

    /// Changes the file by another connection.
    pub(crate) fn execute(&self, statement: &str) {
        let connection = Connection::open(self.folder.path().join("store.db")).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    pub(crate) fn claim(&mut self, limit: usize, per_endpoint: usize, now: Now) -> Vec<Claimed> {
        let lease = Duration::from_secs(30);
        let request =
            ClaimRequest { now, lease, limit, per_endpoint, bytes: usize::MAX, room: Room::new() };
        let claimed = self.store.claim(request).now_or_never().unwrap().unwrap();
        self.run();
        claimed
    }

    /// Claims all that is due, with refills until there is nothing more.
    pub(crate) fn claim_all(&mut self, now: Now) -> Vec<Claimed> {
        let mut all = Vec::new();
        loop {
            while self.writer.refill() {}
            let claimed = self.claim(100, 100, now);
            let due = self.store.next_due(Room::new(), now).now_or_never().unwrap().unwrap();
            if claimed.is_empty() && due.is_none_or(|due| due > Duration::ZERO) {
                return all;
            }
            all.extend(claimed);
        }
    }

    pub(crate) fn drain(&mut self) {
        while self.writer.drain() {}
    }

    /// Returns all rows of all tables.
    pub(crate) fn rows(&self) -> BTreeMap<String, Vec<Vec<Value>>> {
        let connection = Connection::open(self.folder.path().join("store.db")).unwrap();
        let tables =
            ["endpoints", "events", "deliveries", "attempts", "counters", "figures", "jobs"];
        let rows = |table: &str| {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| (0..columns).map(|n| row.get(n)).collect();
            statement.query_map((), row).unwrap().map(Result::unwrap).collect()
        };
        tables.iter().map(|table| ((*table).to_owned(), rows(table))).collect()
    }
}

async fn expunge(store: SqliteStore, event: u8, now: Timestamp) -> String {
    let event = EventId::new(&format!("event-{event}")).ok();
    let tenant = TenantId::default();
    let request = ExpungeRequest { tenant, event, after: None, limit: 5, now };
    format!("{:?}", store.expunge(request).await)
}

async fn schedule(store: SqliteStore, event: u8, seconds: u64, now: Timestamp) -> String {
    let id = EventId::new(&format!("event-{event}")).unwrap();
    let event = Event::new("other", 1).unwrap().id(id).timestamp(at(0));
    let time = now + Duration::from_secs(seconds);
    let publication = Publication::new(&event).deliver_at(time).only([name(0)]);
    format!("{:?}", store.publish(vec![publication.into_serialized()], now).await)
}

fn settlements(picks: &[(usize, u8)], held: &[Claim], now: Timestamp) -> Vec<Settlement> {
    let claims = picks.iter().filter_map(|(pick, kind)| Some((held.get(*pick)?, kind)));
    let settlement = |(claim, kind): (&Claim, &u8)| {
        let due_at = now + Duration::from_secs(20);
        let outcome = [
            Outcome::Delivered,
            Outcome::Failed,
            Outcome::Expired,
            Outcome::Retrying { due_at },
            Outcome::Released,
        ][usize::from(*kind)];
        let attempt = Attempt {
            started_at: now,
            duration: Duration::ZERO,
            status_code: Some(200),
            error_class: None,
            error: None,
            response_headers: String::new(),
            response: Bytes::new(),
        };
        let attempt = (*kind < 2 || *kind == 3).then_some(attempt);
        Settlement { claim: *claim, outcome, attempt }
    };
    claims.map(settlement).collect()
}

pub(crate) fn answer(awaited: &mut Awaited) -> String {
    let waker = noop_waker();
    match awaited.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the writer has not answered"),
    }
}
