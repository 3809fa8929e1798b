//! The store is full or gone under load: the service refuses with 503, and is well again without a restart
//! once the store is. Everything that it answered 2xx arrives.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use webhooks_tests::postgres::{Cluster, connect};

use crate::life::{Callers, Life, SERVICE, wait_for_more};

/// The messages that are accepted before and after, and the refusals in between.
const MESSAGES: usize = 50;
const REFUSALS: usize = 20;

/// Makes a disk of 16 MiB at a folder, which no other process sees, and becomes the service on it.
const ON_SMALL_DISK: &str = r#"mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@""#;

/// Runs a service through a time without a store.
async fn survives(
    life: Life,
    callers: Callers,
    break_store: impl AsyncFn(),
    mend_store: impl AsyncFn(),
) {
    callers.settle_in(&life).await;
    callers.wait_for_health(&life, true).await;
    let mut publishing = callers.publish(&life);
    callers.wait_for(MESSAGES).await;
    break_store().await;
    wait_for_more(|| callers.refused(), REFUSALS).await;
    callers.wait_for_health(&life, false).await;
    mend_store().await;
    callers.wait_for(MESSAGES).await;
    callers.wait_for_health(&life, true).await;
    publishing.shutdown().await;
    callers.wait_for_all().await;
}

/// Goal: a full disk. Method: a process that sees the small disk through `/proc` fills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_file() {
    let (folder, callers) = (tempfile::tempdir().unwrap(), Callers::new().await);
    let disk = folder.path().to_str().unwrap();
    let store = format!("{disk}/service.db");
    let arguments = ["--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, disk];
    let arguments = [&arguments[..], &[SERVICE, &store, &callers.key]].concat();
    let life = Life::begin_by("unshare", &arguments).await;
    let process = life.process.id().unwrap();
    let filler = format!("/proc/{process}/root{disk}/filler");
    let fill = || fill(Path::new(&filler));
    let full = async || {
        // SQLite still finds room in its log for a while.
        fill();
        wait_for_more(|| callers.refused(), 1).await;
        fill();
    };
    let empty = async || std::fs::remove_file(&filler).unwrap();
    survives(life, callers.clone(), full, empty).await;
}

/// Writes until nothing more fits on the disk.
fn fill(filler: &Path) {
    let mut file = File::options().append(true).create(true).open(filler).unwrap();
    for size in [64 * 1024, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// Goal: a full disk under a database. Method: a trigger raises the server's own code, because a server
/// whose log is full stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_database() {
    const FILL: &str = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'no' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON webhooks.events
        FOR EACH ROW EXECUTE FUNCTION refuse()";
    const EMPTY: &str = "DROP TRIGGER refuse ON webhooks.events";
    let (database, callers) = (Cluster::shared().database().await, Callers::new().await);
    let life = Life::begin(&database, &callers).await;
    let run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut connect(&database).await).await.unwrap();
    };
    survives(life, callers, async || run(FILL).await, async || run(EMPTY).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops() {
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let (database, callers) = (cluster.database().await, Callers::new().await);
    let life = Life::begin(&database, &callers).await;
    survives(life, callers, async || cluster.stop(), async || cluster.resume()).await;
}
