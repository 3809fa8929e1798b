//! Races that the model of the store finds, on the real one.

use std::collections::BTreeSet;

use webhooks_registry::EndpointNumber;

use super::*;

async fn claim_without(store: &PostgresStore, busy: EndpointNumber) -> Vec<Claimed> {
    let (now, lease) = (SystemClock.clocks(), Duration::from_secs(60));
    let busy = Arc::new(BTreeSet::from([busy]));
    let request = ClaimRequest { now, lease, limit: 1_000, per_endpoint: 10, busy };
    store.claim(request).await.unwrap()
}

/// Goal: a retry of an ordered endpoint is not claimed before it is due. Method: a claim looks, and
/// waits for a row of another endpoint that is to be put into order; meanwhile another worker joins,
/// claims, and settles that all is to be tried again in an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_slow_takes_no_retry_before_it_is_due() {
    let url = Cluster::shared().database().await;
    let slow = open(&url).await;
    slow.register(id("late"), endpoint()).await.unwrap();
    publish(&slow, ["late".to_owned()]).await;
    slow.register(id("late"), endpoint().ordered()).await.unwrap();
    let late = slow.get(key("late")).await.unwrap().unwrap().number;
    // So many that the other worker gets some.
    for number in 0..16 {
        slow.register(id(&format!("crm-{number}")), endpoint().ordered()).await.unwrap();
    }
    publish(&slow, ["a".to_owned()]).await;
    let mut lock = connect(&url).await;
    let statement = "BEGIN; SELECT id FROM webhooks.waiting WHERE due_at > 'epoch' FOR UPDATE";
    sqlx::raw_sql(statement).execute(&mut lock).await.unwrap();
    let claiming = tokio::spawn({
        let slow = slow.clone();
        async move { claim(&slow, 10).await }
    });
    let looker = tokio::sync::Mutex::new(connect(&url).await);
    eventually(async || {
        const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let looking = sqlx::query_scalar(BLOCKED);
        let blocked: i64 = looking.fetch_one(&mut *looker.lock().await).await.unwrap();
        (blocked > 0).then_some(())
    })
    .await;
    let quick = open(&url).await;
    let claimed = eventually(async || {
        let claimed = claim_without(&quick, late).await;
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    let due_at = Timestamp::now() + Duration::from_secs(3_600);
    settle(&quick, &claimed, Outcome::Retrying { due_at }).await;
    sqlx::raw_sql("COMMIT").execute(&mut lock).await.unwrap();
    let retried: BTreeSet<_> = claimed.iter().map(|one| one.claim.delivery).collect();
    let taken = claiming.await.unwrap();
    let early: Vec<_> = taken.iter().filter(|one| retried.contains(&one.claim.delivery)).collect();
    assert!(early.is_empty(), "{} are an hour early", early.len());
}
