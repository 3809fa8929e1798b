//! Figures, limits of endpoints, jobs and schedules, while several processes use them at once.

use webhooks_dispatch::{
    Publication,
    figures::{Figures, FiguresQuery, FiguresStep},
    history::Query as HistoryQuery,
    jobs::{JobAdvance, JobProgress, JobState, JobStore as _, JobWork, NewJob},
};
use webhooks_registry::store::EndpointStoreError;

use super::*;

/// Returns the figures of all endpoints, since the start of time.
async fn figures(store: &PostgresStore) -> Figures {
    let query = FiguresQuery {
        tenant: None,
        endpoint: None,
        since: Timestamp::UNIX_EPOCH,
        until: Timestamp::now() + Duration::from_secs(3_600),
        step: FiguresStep::Whole,
    };
    store.figures(query).await.unwrap().pop().map(|row| row.figures).unwrap_or_default()
}

/// Goal: the figures of all processes add up, and no process waits for another one's transaction.
/// Method: a transaction that has published, and one that has locked all figures of the other
/// process, stay open while this process publishes, settles and cancels.
#[tokio::test]
async fn figures_of_several_processes_add_up_and_never_wait_for_each_other() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    register(&here, "crm", endpoint()).await;
    publish(&there, ["a".to_owned()]).await;
    let mut held = connect(&url).await;
    let mut open_transaction = held.begin().await.unwrap();
    let event = Event::new("created", 1).unwrap();
    publish_in(&mut open_transaction, &event).await.unwrap();
    let lock = "SELECT 1 FROM webhooks.figures FOR UPDATE";
    sqlx::query(lock).execute(&mut *open_transaction).await.unwrap();
    let work = async {
        publish(&here, ["b".to_owned(), "c".to_owned()]).await;
        let mut claimed = claim_at_last(&here, 10).await;
        let cancelled = claimed.pop().unwrap().claim.delivery;
        here.cancel(vec![cancelled], Timestamp::now()).await.unwrap().remove(0).unwrap();
        settle(&here, &claimed, Outcome::Delivered).await;
        claimed.len() as u64
    };
    let delivered = timeout(DEADLINE, work).await.unwrap();
    open_transaction.rollback().await.unwrap();
    let found = figures(&there).await;
    assert_eq!((found.accepted, found.delivered, found.cancelled), (3, delivered, 1));
    // Added up by the minute and then by the hour, they stay the same.
    for hours in [2, 72] {
        let now = Timestamp::now() + Duration::from_secs(hours * 3_600);
        let before = Timestamp::UNIX_EPOCH;
        let request = PruneRequest { tenant: None, before, limit: 10, now };
        assert_eq!(there.prune(request).await.unwrap(), 0);
        assert_eq!(figures(&here).await, found);
    }
}

/// Goal: endpoints that are added at once never exceed the limit of their tenant. Method: two
/// processes add twenty.
#[tokio::test]
async fn endpoints_that_are_added_at_once_keep_to_the_limit() {
    let url = Cluster::shared().database().await;
    let stores = [open(&url).await, open(&url).await];
    let mut adding = JoinSet::new();
    for n in 0..20 {
        let store = stores[n % 2].clone();
        adding.spawn(async move {
            let request = RegisterRequest::new(id(&format!("e-{n}")), endpoint(), Timestamp::now());
            store.register(RegisterRequest { max_endpoints: Some(7), ..request }).await
        });
    }
    let outcomes = adding.join_all().await;
    let added = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused = (outcomes.iter())
        .filter(|outcome| matches!(outcome, Err(EndpointStoreError::TooMany { max: 7 })))
        .count();
    assert_eq!((added, refused), (7, 13));
}

/// Goal: one worker at a time works on a job, and another one goes on when its lease ends.
#[tokio::test]
async fn a_job_is_leased_by_one_worker_and_comes_back() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    let work = JobWork::Cancel(HistoryQuery::default());
    let job = here
        .create_job(NewJob { tenant: None, work, rate: None, request: None }, Timestamp::now())
        .await;
    let job = job.unwrap();
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(300));
    let (a, b) = tokio::join!(
        here.lease_job(short, SystemClock.clocks()),
        there.lease_job(short, SystemClock.clocks())
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(u8::from(a.is_some()) + u8::from(b.is_some()), 1);
    let first = a.or(b).unwrap();
    assert_eq!(first.job, job);
    // Its worker dies, and the other one gets it.
    let second =
        eventually(async || there.lease_job(long, SystemClock.clocks()).await.unwrap()).await;
    assert_ne!(second.token, first.token);
    let progress = JobProgress { done: 5, ..JobProgress::default() };
    let advance = |token| JobAdvance {
        id: job.id,
        token,
        progress: progress.clone(),
        state: JobState::Running,
    };
    let late = here.advance_job(advance(first.token), long, SystemClock.clocks()).await.unwrap();
    assert_eq!(late, None);
    assert_eq!(here.job(job.id).await.unwrap().unwrap().progress.done, 0);
    let now = SystemClock.clocks();
    let recorded = there.advance_job(advance(second.token), long, now).await.unwrap();
    assert_eq!(recorded, Some(JobState::Running));
    assert_eq!(here.job(job.id).await.unwrap().unwrap().progress.done, 5);
    assert_eq!(here.lease_job(long, SystemClock.clocks()).await.unwrap(), None);
}

/// Goal: scheduled deliveries of an ordered endpoint keep their due times, come behind those that
/// wait then, and do not count as unsorted.
#[tokio::test]
async fn scheduled_deliveries_of_an_ordered_endpoint_are_not_sorted() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint().ordered()).await;
    let due = Timestamp::now() + Duration::from_secs(3_600);
    let later = |name: &str, at| {
        let event = Event::new("created", 1).unwrap().id(EventId::new(name).unwrap());
        Publication::new(&event).deliver_at(at).into_serialized()
    };
    let tomorrow = due + Duration::from_secs(86_400);
    let scheduled = vec![later("soon", due), later("tomorrow", tomorrow)];
    store.publish(scheduled, Timestamp::now()).await.unwrap();
    publish(&store, ["now".to_owned()]).await;
    let first = claim_at_last(&store, 10).await;
    assert_eq!(events(&first), ["now"]);
    settle(&store, &first, Outcome::Delivered).await;
    store.hasten(Timestamp::now()).await.unwrap();
    assert!(claim_at(&store, due.saturating_sub(Duration::from_secs(1)), 10).await.is_empty());
    let second = claim_at(&store, due, 10).await;
    assert_eq!(events(&second), ["soon"]);
    settle(&store, &second, Outcome::Delivered).await;
    assert!(claim_at(&store, due, 10).await.is_empty());
    let kept = "SELECT count(*) FROM webhooks.pending_deliveries WHERE is_scheduled
        AND due_at > now() + interval '2 hours'";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut connect(&url).await).await.unwrap();
    assert_eq!(kept, 1);
}
