//! Publications whose connection breaks: the claims of a try whose answer was lost.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use webhooks_dispatch::PublishStatus;

use super::preclaimed::{open_claiming, start_proxy, waiting};
use super::*;

/// The moment at which a connection is cut: before the server gets the question, or during its
/// answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Before,
    While,
}

/// Leads to a server; the first connection that contains `unheard` is cut.
fn start_cutting_proxy(socket: PathBuf, cut: Cut) -> String {
    start_proxy(socket, move |client, server, is_armed| lead(client, server, cut, is_armed))
}

async fn lead(
    client: UnixStream,
    server: UnixStream,
    cut: Cut,
    is_armed: Arc<AtomicBool>,
) -> std::io::Result<()> {
    const MARKER: &[u8] = b"unheard";
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut asked = vec![0; 1 << 16];
    let forward = async {
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut from_client, &mut asked).await?;
            let asked = &asked[..count];
            let is_marked = asked.windows(MARKER.len()).any(|part| part == MARKER);
            let is_cut = is_marked && is_armed.swap(false, Ordering::SeqCst);
            if !is_cut || cut == Cut::While {
                to_server.write_all(asked).await?;
            }
            if asked.is_empty() || is_cut {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = forward => done,
        done = tokio::io::copy(&mut from_server, &mut to_client) => done.map(drop),
    }
}

/// Goal: if the connection of a publish breaks, its preclaimed deliveries are due at once, even if
/// the next try met its transaction while that ran. Method: a proxy cuts the connection; a trigger
/// makes the transaction run for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_meets_its_own_transaction_leaves_nothing_claimed() {
    const SLOW: &str = "
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON webhooks.events FOR EACH ROW
        WHEN (NEW.id = 'unheard') EXECUTE FUNCTION slow()";
    let url = Cluster::shared().database().await;
    let (database, folder) = url.split_once("?host=").unwrap();
    let proxy = start_cutting_proxy(format!("{folder}/.s.PGSQL.5432").into(), Cut::While);
    let store = open_claiming(&format!("{database}?host={proxy}")).await;
    sqlx::raw_sql(SLOW).execute(&mut connect(&url).await).await.unwrap();
    let event = Event::new("created", 1).unwrap().id(EventId::new("unheard").unwrap());
    let published = store.publish(vec![SerializedEvent::new(&event)], Timestamp::now()).await;
    assert_eq!(published.unwrap()[0].as_ref().unwrap().status, PublishStatus::Duplicate);
    assert_eq!(waiting(&url).await, (1, 0));
}

/// Goal: an event that is given twice is preclaimed with a lease, though its publish was tried
/// twice. Method: a proxy cuts the connection of the first try before the server gets it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_twice_stays_claimed_when_it_is_tried_again() {
    let url = Cluster::shared().database().await;
    let (database, folder) = url.split_once("?host=").unwrap();
    let proxy = start_cutting_proxy(format!("{folder}/.s.PGSQL.5432").into(), Cut::Before);
    let store = open_claiming(&format!("{database}?host={proxy}")).await;
    publish(&store, ["unheard".to_owned(), "unheard".to_owned()]).await;
    assert_eq!(waiting(&url).await, (1, 1));
    let claimed = claim(&store, 10).await;
    assert_eq!(events(&claimed), ["unheard"]);
    let settled = settle(&store, &claimed, Outcome::Delivered).await;
    assert!(matches!(settled[..], [Settled::Recorded { .. }]));
}
