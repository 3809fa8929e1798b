//! The time of a page of history of a small tenant, beside a large number of events of others.

use std::time::Instant;

use webhooks_core::{EndpointId, Event, TenantId, Timestamp};
use webhooks_dispatch::{
    BoxedStore,
    clock::{Clock as _, SystemClock},
    history::{HistoryStore as _, Query},
    store::{ClaimRequest, DeliveryStore as _, SerializedEvent},
};
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::{Cluster, connect};

use super::crowd::Kind;
use super::figures::{Figures, PAID, endpoint, median, note};
use super::place::{Opened, Place};
use super::request::{request, settle};

/// The number of events of the small tenant.
const MINE: usize = 1_000;

/// The number of other tenants.
const OTHERS: usize = 10;

/// The number of events per publish call, and of deliveries per claim.
const BATCH: usize = 1_000;

/// A kind of page.
#[derive(Debug, Clone, Copy)]
enum List {
    Events,
    Deliveries,
    DeliveriesOfEndpoint,
}

const LISTS: [List; 3] = [List::Events, List::Deliveries, List::DeliveriesOfEndpoint];

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let (others, rounds) = if is_quick { (100_000, 9) } else { (1_000_000, 25) };
    println!(
        "\na page of 100 of a tenant with {MINE} events, beside {others} of others: ms, {rounds} \
         rounds"
    );
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (_alone_place, alone) = filled(kind, cluster, 0).await;
        let (_beside_place, beside) = filled(kind, cluster, others).await;
        let mut worst = 0_f64;
        for list in LISTS {
            let [mut times_alone, mut times_beside] = [const { Vec::new() }; 2];
            for _ in 0..rounds {
                times_alone.push(time(&alone.store(), list).await);
                times_beside.push(time(&beside.store(), list).await);
            }
            let pairs = times_beside.iter().zip(&times_alone);
            let ratio = median(pairs.map(|(beside, alone)| beside / alone).collect());
            let [alone, beside] = [times_alone, times_beside].map(|times| median(times) * 1e3);
            println!(
                "{kind:>9?}, {list:?}: alone {alone:.2}, beside {beside:.2}, {ratio:.3} times"
            );
            worst = worst.max(ratio);
        }
        note(figures, &format!("history_page_over_alone{}", kind.suffix()), worst);
        alone.close().await;
        beside.close().await;
    }
}

/// Returns a store with the history of a tenant amid that of others.
async fn filled(kind: Kind, cluster: &Cluster, others: usize) -> (Place, Opened) {
    let place = Place::new(kind, cluster).await;
    let opened = Opened::open(&place.name).await;
    let store = opened.store();
    let tenant = |name: &str| TenantId::new(name).unwrap();
    let mine = tenant("mine");
    let tenants: Vec<TenantId> = (0..OTHERS).map(|n| tenant(&format!("other-{n}"))).collect();
    for tenant in tenants.iter().chain([&mine]) {
        let id = EndpointId::new("receiver").unwrap();
        let endpoint = endpoint("http://127.0.0.1/").tenant(tenant.clone());
        store.register(RegisterRequest::new(id, endpoint, Timestamp::now())).await.unwrap();
    }
    // In the middle, so that it is far from both ends.
    deliver(&store, &tenants, others / 2).await;
    deliver(&store, &[mine], MINE).await;
    deliver(&store, &tenants, others / 2).await;
    if kind == Kind::Postgres {
        let mut connection = connect(&place.name).await;
        sqlx::raw_sql("VACUUM (ANALYZE)").execute(&mut connection).await.unwrap();
    }
    (place, opened)
}

/// Publishes events of tenants in turn, and delivers them.
async fn deliver(store: &BoxedStore, tenants: &[TenantId], events: usize) {
    let mut tenants = tenants.iter().cycle();
    for _ in 0..events / BATCH {
        let batch = tenants.by_ref().take(BATCH).map(|tenant| {
            let event = Event::new(PAID.clone(), 17).unwrap();
            SerializedEvent::new(&event.tenant(tenant.clone()))
        });
        let published = store.publish(batch.collect(), Timestamp::now()).await.unwrap();
        assert!(published.iter().all(Result::is_ok));
        let mut settled = 0;
        while settled < BATCH {
            let free = request(SystemClock.clocks(), []);
            let request = ClaimRequest { limit: BATCH, per_endpoint: BATCH, ..free };
            let claimed = store.claim(request).await.unwrap();
            settle(store, &claimed, Timestamp::now()).await;
            settled += claimed.len();
        }
    }
}

/// Returns the seconds that a page takes.
async fn time(store: &BoxedStore, list: List) -> f64 {
    let query = Query { tenant: Some(TenantId::new("mine").unwrap()), ..Query::default() };
    let start = Instant::now();
    let found = match list {
        List::Events => store.events(query).await.unwrap().items.len(),
        List::Deliveries => store.deliveries(query).await.unwrap().items.len(),
        List::DeliveriesOfEndpoint => {
            let endpoint = Some(EndpointId::new("receiver").unwrap());
            store.deliveries(Query { endpoint, ..query }).await.unwrap().items.len()
        }
    };
    assert_eq!(found, 100);
    start.elapsed().as_secs_f64()
}
