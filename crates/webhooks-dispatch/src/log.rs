//! A log of what happens in an engine, by way of `tracing`.

use std::time::Duration;

use tracing::{debug, error, info, warn};
use webhooks_core::{EndpointId, TenantId, TraceContext};
use webhooks_registry::DisableReason;

use crate::attempt::with_causes;
use crate::observer::{EndpointChange, Observer, Occurrence};
use crate::shutdown_report::ShutdownReport;
use crate::transport::ErrorClass;

const TARGET: &str = "webhooks_dispatch";

/// Logs the outcome of a delivery with the macro `$log`.
macro_rules! of_delivery {
    ($log:ident, $delivery:ident, $($more:tt)+) => {
        $log!(
            target: TARGET,
            tenant = %$delivery.tenant, endpoint = %$delivery.endpoint, delivery = %$delivery.id,
            event = %$delivery.event, event_type = %$delivery.event_type,
            attempt = $delivery.attempt, trace_id = $delivery.trace.map(TraceContext::trace_id),
            $($more)+
        )
    };
}

/// Logs an attempt that failed with the macro `$log`.
macro_rules! of_failure {
    ($log:ident, $delivery:ident, $failure:ident, $($more:tt)+) => {
        of_delivery!(
            $log, $delivery,
            status = $failure.status_code, class = $failure.class.map(ErrorClass::as_str),
            duration_ms = milliseconds($failure.duration), error = $failure.error, $($more)+
        )
    };
}

/// An observer that writes a log through `tracing`: one event for each occurrence.
///
/// | level | what |
/// | --- | --- |
/// | debug | an event was published, a delivery was made |
/// | info | an endpoint recovered, its breaker closed, somebody changed an endpoint, cancelled or replayed, a job ended, a worker started or ended |
/// | warn | an attempt failed, the transport had no room, a lease was lost, an endpoint has been failing, its breaker opened, a worker ended without a shutdown |
/// | error | a delivery failed or expired, the engine disabled an endpoint, the store or a part of a worker failed |
///
/// The fields are `tenant`, `endpoint`, `delivery`, `event` (its id), `event_type`, `attempt`, `trace_id`,
/// `status`, `class`, `duration_ms`, `age_ms`, `retry_at`, `deliveries`, `change`, `reason`,
/// `since`, `pause_ms`, `job`, `state`, `done`, `worker`, `part`, `error` and those of
/// [`ShutdownReport`], as far as they are known. The target is `webhooks_dispatch`. No event has a
/// URL, a payload or a secret in it, unless a transport of yours puts one into its errors.
///
/// # Example
/// ```
/// use webhooks_dispatch::{Engine, FnTransport, LogObserver, MemoryStore};
///
/// let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
/// let engine = Engine::builder(MemoryStore::new(), transport).observer(LogObserver::new()).build();
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LogObserver;

impl LogObserver {
    /// Returns an observer that logs everything; subscribers filter by level and target.
    pub fn new() -> Self {
        Self
    }
}

impl Observer for LogObserver {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Published { event, event_type, tenant, deliveries } => {
                debug!(target: TARGET, %tenant, %event, %event_type, deliveries, "event published");
            }
            Occurrence::Delivered { delivery, duration, age, status_code } => of_delivery!(
                debug,
                delivery,
                status = status_code,
                duration_ms = milliseconds(*duration),
                age_ms = milliseconds(*age),
                "delivered"
            ),
            Occurrence::AttemptFailed { delivery, failure, retry_at } => {
                of_failure!(warn, delivery, failure, %retry_at, "attempt failed");
            }
            Occurrence::DeliveryFailed { delivery, age, failure } => {
                let age_ms = milliseconds(*age);
                let text = "delivery given up: the last attempt failed";
                of_failure!(error, delivery, failure, age_ms, "{text}");
            }
            Occurrence::Expired { delivery, age } => {
                let age_ms = milliseconds(*age);
                of_delivery!(error, delivery, age_ms, "delivery given up: it is too old");
            }
            Occurrence::LeaseLost { delivery } => {
                of_delivery!(warn, delivery, "lease lost: the delivery may be sent again");
            }
            Occurrence::TransportBusy { delivery } => of_delivery!(
                warn,
                delivery,
                "not sent: too many other exchanges with the host were under way"
            ),
            other => log_operation(other),
        }
    }
}

/// Logs what is not the outcome of a delivery.
fn log_operation(occurrence: &Occurrence<'_>) {
    match occurrence {
        Occurrence::Cancelled { delivery } => {
            info!(target: TARGET, %delivery, "delivery cancelled");
        }
        Occurrence::Replayed { replay: _, tenant, deliveries } => {
            let tenant = tenant.map(tracing::field::display);
            info!(target: TARGET, tenant, deliveries, "deliveries replayed");
        }
        Occurrence::EndpointChanged { tenant, endpoint, change, .. } => {
            log_change(tenant, endpoint, *change);
        }
        Occurrence::EndpointFailing { tenant, endpoint, since } => {
            warn!(target: TARGET, %tenant, %endpoint, %since, "endpoint has been failing");
        }
        Occurrence::EndpointRecovered { tenant, endpoint } => {
            info!(target: TARGET, %tenant, %endpoint, "endpoint recovered");
        }
        Occurrence::BreakerOpened { tenant, endpoint, pause } => {
            let pause_ms = milliseconds(*pause);
            warn!(target: TARGET, %tenant, %endpoint, pause_ms, "circuit breaker opened");
        }
        Occurrence::BreakerClosed { tenant, endpoint } => {
            info!(target: TARGET, %tenant, %endpoint, "circuit breaker closed");
        }
        Occurrence::JobEnded { id, state, done } => {
            let state = state.as_str();
            info!(target: TARGET, job = %id, state, done, "job ended");
        }
        Occurrence::WorkerStarted { worker } => info!(target: TARGET, worker, "worker started"),
        Occurrence::WorkerEnded { worker, report: Some(report) } => {
            let ShutdownReport { released, broken_off, unsettled, waiting, failures, .. } = report;
            info!(
                target: TARGET,
                worker, released, broken_off, unsettled, waiting, failures, "worker ended"
            );
        }
        Occurrence::WorkerEnded { worker, report: None } => {
            warn!(target: TARGET, worker, "worker ended without a shutdown");
        }
        Occurrence::WorkerFailed { part } => {
            error!(target: TARGET, ?part, "a part of a worker panicked");
        }
        Occurrence::StoreFailed { error } => {
            error!(target: TARGET, error = with_causes(*error), "the store failed");
        }
        // `LogObserver` logs them itself.
        Occurrence::Published { .. }
        | Occurrence::Delivered { .. }
        | Occurrence::AttemptFailed { .. }
        | Occurrence::DeliveryFailed { .. }
        | Occurrence::Expired { .. }
        | Occurrence::LeaseLost { .. }
        | Occurrence::TransportBusy { .. } => {}
    }
}

/// Logs a change of an endpoint, as an error if the engine made it.
fn log_change(tenant: &TenantId, endpoint: &EndpointId, change: EndpointChange) {
    match change {
        EndpointChange::Disabled(DisableReason::Manual) => {
            let reason = DisableReason::Manual.as_str();
            info!(target: TARGET, %tenant, %endpoint, reason, "endpoint disabled");
        }
        EndpointChange::Disabled(reason) => {
            let reason = reason.as_str();
            error!(target: TARGET, %tenant, %endpoint, reason, "endpoint disabled");
        }
        change => {
            let change = change.as_str();
            info!(target: TARGET, %tenant, %endpoint, change, "endpoint changed");
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::{self, Write as _};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};
    use webhooks_core::{DeliveryId, EventId, EventType, RetryPolicy, Timestamp};
    use webhooks_registry::{Endpoint, EndpointKey};

    use super::*;
    use crate::engine::Engine;
    use crate::fn_transport::FnTransport;
    use crate::memory::MemoryStore;
    use crate::monitor::MonitorStore as _;
    use crate::observer::{DeliveryRef, Failure, WorkerPart};
    use crate::store::{Replay, StoreError};

    /// Collects events as lines: level, target, then each field.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let metadata = event.metadata();
            let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    fn check(occurrence: Occurrence<'_>, level: &str, text: &str, fields: &str) {
        let lines = Lines::default();
        let log = || LogObserver::new().observe(&occurrence);
        tracing::subscriber::with_default(lines.clone(), log);
        let expected = format!("{level} webhooks_dispatch message={text} {fields}");
        assert_eq!(*lines.0.lock().unwrap(), [expected], "one event for {occurrence:?}");
    }

    #[test]
    fn what_becomes_of_a_delivery_is_one_event_with_all_that_is_known() {
        let (tenant, endpoint) = (TenantId::new("acme").unwrap(), EndpointId::new("crm").unwrap());
        let (tenant, endpoint) = (&tenant, &endpoint);
        let (event, event_type) = (EventId::new("e1").unwrap(), EventType::new("a.b").unwrap());
        let (event, event_type) = (&event, &event_type);
        let id = DeliveryId::from_u64(7);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse(parent, []);
        let (started_at, trace) = (None, trace.as_ref());
        let attempt = 2;
        let delivery =
            DeliveryRef { id, event, event_type, tenant, endpoint, attempt, started_at, trace };
        let duration = Duration::from_millis(30);
        let error = "answered 503";
        let answered = Failure { error, class: None, status_code: Some(503), duration };
        let class = Some(ErrorClass::Timeout);
        let unanswered = Failure { error: "not in time", class, status_code: None, duration };
        let about = "tenant=acme endpoint=crm delivery=dlv_7 event=e1 event_type=a.b attempt=2 \
            trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"";
        let retry_at = Timestamp::UNIX_EPOCH;

        let occurrence = Occurrence::Published { event, event_type, tenant, deliveries: 3 };
        let fields = "tenant=acme event=e1 event_type=a.b deliveries=3";
        check(occurrence, "DEBUG", "event published", fields);
        let age = Duration::from_secs(2);
        let occurrence = Occurrence::Delivered { delivery, duration, age, status_code: Some(204) };
        let fields = format!("{about} status=204 duration_ms=30 age_ms=2000");
        check(occurrence, "DEBUG", "delivered", &fields);
        let occurrence = Occurrence::AttemptFailed { delivery, failure: answered, retry_at };
        let fields =
            r#"status=503 duration_ms=30 error="answered 503" retry_at=1970-01-01T00:00:00Z"#;
        check(occurrence, "WARN", "attempt failed", &format!("{about} {fields}"));
        let occurrence = Occurrence::DeliveryFailed { delivery, age, failure: unanswered };
        let fields =
            format!(r#"{about} class="timeout" duration_ms=30 error="not in time" age_ms=2000"#);
        check(occurrence, "ERROR", "delivery given up: the last attempt failed", &fields);
        let occurrence = Occurrence::Expired { delivery, age };
        let fields = format!("{about} age_ms=2000");
        check(occurrence, "ERROR", "delivery given up: it is too old", &fields);
        let occurrence = Occurrence::LeaseLost { delivery };
        check(occurrence, "WARN", "lease lost: the delivery may be sent again", about);
        let occurrence = Occurrence::TransportBusy { delivery };
        let text = "not sent: too many other exchanges with the host were under way";
        check(occurrence, "WARN", text, about);
    }

    /// Goal: a log is no place for what is private to sender and receiver. Method: an engine
    /// publishes, fails, and retries are spent; URL, secret, payload and answer all hold a word
    /// that must not be logged.
    #[tokio::test]
    async fn a_log_shows_no_url_payload_secret_or_answer() {
        let lines = Lines::default();
        let _subscribed = tracing::subscriber::set_default(lines.clone());
        let transport = FnTransport::new(|_, _, _, _| async { (500, "hush") });
        let engine = Engine::builder(MemoryStore::new(), transport).observer(LogObserver::new());
        let engine = engine.build();
        let endpoint = Endpoint::new("https://example.com/hush?token=hush", "hush-hush").unwrap();
        let endpoint = endpoint.header("x-key", "hush").unwrap();
        let endpoint = endpoint.retry(RetryPolicy::fixed(Duration::from_millis(1), 1));
        engine.endpoints().register("crm", endpoint).await.unwrap();
        let worker = engine.start();
        engine.publish(&webhooks_core::Event::new("a", "hush").unwrap()).await.unwrap();
        let key = EndpointKey::of_default_tenant(EndpointId::new("crm").unwrap());
        let statistics =
            async || engine.monitor().statistics(key.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
        while statistics().await.failed == 0 {
            tokio::task::yield_now().await;
        }
        worker.shutdown(Duration::from_secs(5)).await;
        let lines = lines.0.lock().unwrap();
        let levels: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        let expected = ["INFO", "INFO", "DEBUG", "WARN", "ERROR", "INFO"];
        assert_eq!(levels, expected, "registered, started, …, ended: {lines:?}");
        assert!(!lines.concat().contains("hush"), "{lines:?}");
    }

    #[test]
    fn what_becomes_of_endpoints_stores_and_workers_is_one_event_each() {
        let (tenant, endpoint) = (TenantId::new("acme").unwrap(), EndpointId::new("crm").unwrap());
        let (tenant, endpoint) = (&tenant, &endpoint);
        let since = Timestamp::UNIX_EPOCH;

        for (change, level, text, more) in [
            (
                EndpointChange::Disabled(DisableReason::Gone),
                "ERROR",
                "endpoint disabled",
                r#"reason="gone""#,
            ),
            (
                EndpointChange::Disabled(DisableReason::Manual),
                "INFO",
                "endpoint disabled",
                r#"reason="manual""#,
            ),
            (
                EndpointChange::SecretRotated,
                "INFO",
                "endpoint changed",
                r#"change="secret_rotated""#,
            ),
        ] {
            let failing_since = None;
            let occurrence =
                Occurrence::EndpointChanged { tenant, endpoint, change, failing_since };
            check(occurrence, level, text, &format!("tenant=acme endpoint=crm {more}"));
        }
        let pause = Duration::from_secs(10);
        let occurrence = Occurrence::BreakerOpened { tenant, endpoint, pause };
        let fields = "tenant=acme endpoint=crm pause_ms=10000";
        check(occurrence, "WARN", "circuit breaker opened", fields);
        let occurrence = Occurrence::BreakerClosed { tenant, endpoint };
        check(occurrence, "INFO", "circuit breaker closed", "tenant=acme endpoint=crm");
        let occurrence = Occurrence::EndpointFailing { tenant, endpoint, since };
        let fields = "tenant=acme endpoint=crm since=1970-01-01T00:00:00Z";
        check(occurrence, "WARN", "endpoint has been failing", fields);
        let occurrence = Occurrence::EndpointRecovered { tenant, endpoint };
        check(occurrence, "INFO", "endpoint recovered", "tenant=acme endpoint=crm");
        let occurrence = Occurrence::WorkerFailed { part: WorkerPart::Attempts };
        check(occurrence, "ERROR", "a part of a worker panicked", "part=Attempts");
        let error = &StoreError::Unavailable { source: "the disk is away".into() };
        let fields = r#"error="the store is not available: the disk is away""#;
        check(Occurrence::StoreFailed { error }, "ERROR", "the store failed", fields);
    }

    #[test]
    fn an_operation_or_the_end_of_a_worker_is_one_event() {
        let delivery = DeliveryId::from_u64(7);
        check(Occurrence::Cancelled { delivery }, "INFO", "delivery cancelled", "delivery=dlv_7");
        let (replay, tenant) = (&Replay::Delivery(delivery), TenantId::new("acme").unwrap());
        for (tenant, fields) in
            [(None, "deliveries=3"), (Some(&tenant), "tenant=acme deliveries=3")]
        {
            let occurrence = Occurrence::Replayed { replay, tenant, deliveries: 3 };
            check(occurrence, "INFO", "deliveries replayed", fields);
        }
        check(Occurrence::WorkerStarted { worker: 2 }, "INFO", "worker started", "worker=2");
        let report = ShutdownReport { released: 1, waiting: Some(5), ..ShutdownReport::default() };
        let occurrence = Occurrence::WorkerEnded { worker: 2, report: Some(report) };
        let fields = "worker=2 released=1 broken_off=0 unsettled=0 waiting=5 failures=0";
        check(occurrence, "INFO", "worker ended", fields);
        let occurrence = Occurrence::WorkerEnded { worker: 2, report: None };
        check(occurrence, "WARN", "worker ended without a shutdown", "worker=2");
    }
}
