//! The settings of the sessions of the database's users, and the time limits of statements.

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use webhooks_dispatch::store::StoreError;
use webhooks_postgres::OpenError;
use webhooks_tests::postgres::hold;

use super::*;

/// Makes a database whose session settings could all mislead the store.
pub(super) async fn hostile_database() -> String {
    let url = Cluster::shared().database().await;
    let alter = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''',
                       current_database());
        EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database());
        EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Shanghai''', current_database());
    END $$";
    sqlx::raw_sql(alter).execute(&mut connect(&url).await).await.unwrap();
    url
}

/// Goal: processes that start at once make the schema once, whatever the database sets. Method:
/// many processes open an empty database together.
#[tokio::test]
async fn many_open_an_empty_database_at_once() {
    for url in [Cluster::shared().database().await, hostile_database().await] {
        let mut opening = JoinSet::new();
        for n in 0..8 {
            let url = url.clone();
            opening.spawn(async move {
                let store = PostgresStore::open(&url).await.unwrap();
                publish(&store, [format!("event-{n}")]).await;
                store
            });
        }
        let stores = opening.join_all().await;
        assert_eq!(kept(&stores[0]).await.len(), 8);
        let applied = "SELECT count(*) = max(version) FROM webhooks.migrations";
        let applied: bool =
            sqlx::query_scalar(applied).fetch_one(&mut connect(&url).await).await.unwrap();
        assert!(applied, "each migration once");
    }
}

/// Drops all partitions.
const NO_PARTITIONS: &str = "DO $$ DECLARE v_table text; BEGIN
    FOR v_table IN SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent::regclass::text IN ('webhooks.events', 'webhooks.ended_deliveries', 'webhooks.earlier_attempts')
          AND (SELECT relkind FROM pg_class WHERE oid = inhrelid) = 'r'
    LOOP EXECUTE 'DROP TABLE ' || v_table; END LOOP;
    DELETE FROM webhooks.partitions;
END $$";

/// Goal: partitions that are made ahead leave no span out, though a span ends while they are made. Method: spans
/// of a second, and a lock that holds up the first of them for longer.
#[tokio::test]
async fn partitions_that_are_made_ahead_have_no_gap() {
    const AHEAD: &str = "SELECT webhooks.ensure_ahead()";
    const BOUNDS: &str =
        "SELECT start_at::text, end_at::text FROM webhooks.partitions ORDER BY start_at";
    let url = Cluster::shared().database().await;
    let options = PostgresOptions::new(&url).unwrap().partition_width(Duration::from_secs(1));
    options.open().await.unwrap().close().await;
    drop(hold(&url, NO_PARTITIONS).await);
    let held = hold(&url, "BEGIN; SELECT pg_advisory_xact_lock(7305000, 2)").await;
    let mut making = connect(&url).await;
    let making = tokio::spawn(async move { sqlx::raw_sql(AHEAD).execute(&mut making).await });
    eventually(async || (stuck(&url).await == 1).then_some(())).await;
    let since = Timestamp::now() + Duration::from_secs(1);
    eventually(async || (Timestamp::now() > since).then_some(())).await;
    drop(held);
    making.await.unwrap().unwrap();
    let bounds = sqlx::query_as(BOUNDS).fetch_all(&mut connect(&url).await).await.unwrap();
    let bounds: Vec<(String, String)> = bounds;
    assert_eq!(bounds.len(), 3);
    assert!(bounds.windows(2).all(|two| two[0].1 == two[1].0), "{bounds:?}");
}

/// Goal: a caller's transaction of any isolation can publish even if another one has just made the
/// partition. Method: it takes its snapshot before there is a partition, and publishes after.
#[tokio::test]
async fn a_snapshot_that_shows_no_partition_keeps_nobody_from_publishing() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let mut other = connect(&url).await;
        sqlx::raw_sql(NO_PARTITIONS).execute(&mut other).await.unwrap();
        let mut caller = connect(&url).await;
        let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM pg_class");
        sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut caller).await.unwrap();
        let event = |who: &str| {
            let id = EventId::new(&format!("{who} {isolation}").replace(' ', "-")).unwrap();
            Event::new("created", 1).unwrap().id(id)
        };
        assert!(publish_in(&mut other, &event("other")).await.is_ok());
        let published = publish_in(&mut caller, &event("caller")).await;
        assert!(published.is_ok(), "{isolation}: {published:?}");
        sqlx::raw_sql("COMMIT").execute(&mut caller).await.unwrap();
        assert_eq!(kept(&store).await.len(), 2, "{isolation}");
    }
}

/// Makes the database refuse every change by a transaction that is not read committed.
pub(super) async fn demand_read_committed(url: &str) {
    let demand = "
        CREATE FUNCTION demand() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE 'a transaction is %', current_setting('transaction_isolation');
            END IF;
            RETURN NULL;
        END $$;
        DO $$ DECLARE v_table text; BEGIN
            FOREACH v_table IN ARRAY ARRAY['endpoints', 'subscriptions', 'event_keys', 'events',
                                           'ended_deliveries', 'pending_deliveries', 'workers', 'partitions'] LOOP
                EXECUTE format('CREATE TRIGGER demand AFTER INSERT OR UPDATE OR DELETE
                    ON webhooks.%I FOR EACH STATEMENT EXECUTE FUNCTION demand()', v_table);
            END LOOP;
        END $$";
    sqlx::raw_sql(demand).execute(&mut connect(url).await).await.unwrap();
}

/// Goal: behind a pooler the store leaves the sessions of others as they are. Method: others read
/// their settings through the server connections that the store has used.
#[tokio::test]
async fn behind_a_pooler_the_sessions_of_others_stay_as_they_are() {
    let (cluster, url) = (Cluster::shared(), Cluster::shared().database().await);
    let pooler = cluster.pooler_in("others");
    let pooled = pooler.url(&url);
    let options = PostgresOptions::new(&pooled).unwrap().without_prepared_statements();
    let store = options.open().await.unwrap();
    register(&store, "crm", endpoint()).await;
    publish(&store, ["a".to_owned()]).await;
    assert_eq!(kept(&store).await, ["a"]);
    store.close().await;
    for _ in 0..4 {
        let other: PgConnectOptions = pooled.parse().unwrap();
        let mut other = PgConnection::connect_with(&other.extra_float_digits(None)).await.unwrap();
        let shown = sqlx::raw_sql("SHOW statement_timeout").fetch_one(&mut other).await.unwrap();
        assert_eq!(sqlx::Row::get::<&str, _>(&shown, 0), "0");
    }
}

#[tokio::test]
async fn retention_refuses_a_snapshot_that_would_hide_a_replay() {
    let url = hostile_database().await;
    let _store = open(&url).await;
    let prune = sqlx::raw_sql("SELECT webhooks.prune(now(), 10)");
    let error = prune.execute(&mut connect(&url).await).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "25000", "{error}");
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let url = Cluster::shared().encoded_database(encoding).await;
        let error = PostgresStore::open(&url).await.unwrap_err();
        let expected =
            format!("the database has the encoding {encoding:?}, and the store needs UTF8");
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, OpenError::Encoding { .. }));
        assert!(!has_schema(&url).await);
    }
}

async fn has_schema(url: &str) -> bool {
    let is_made = sqlx::query_scalar("SELECT to_regnamespace('webhooks') IS NOT NULL");
    is_made.fetch_one(&mut connect(url).await).await.unwrap()
}

#[tokio::test]
async fn a_store_that_must_exist_is_not_made() {
    let url = Cluster::shared().database().await;
    let existing = || PostgresOptions::new(&url).unwrap().existing().open();
    assert!(matches!(existing().await.unwrap_err(), OpenError::NoStore));
    assert!(!has_schema(&url).await);
    PostgresStore::open(&url).await.unwrap().close().await;
    existing().await.unwrap().close().await;
}

/// Returns the number of sessions of the database that wait for a lock.
async fn stuck(url: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(count).fetch_one(&mut connect(url).await).await.unwrap()
}

/// Goal: readers block neither publishing nor claiming, however many they are and however long they
/// take. Method: the tables that they read are locked.
#[tokio::test]
async fn those_who_read_keep_nobody_from_publishing_and_claiming() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    let mut admin = connect(&url).await;
    let mut lock = admin.begin().await.unwrap();
    let command = "LOCK TABLE webhooks.ended_deliveries IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(command).execute(&mut *lock).await.unwrap();
    let mut readers = JoinSet::new();
    for n in 0..32 {
        let store = store.clone();
        readers.spawn(async move {
            if n % 2 == 0 {
                store.deliveries(Query::default()).await.map(drop)
            } else {
                store.statistics(key("crm"), Timestamp::UNIX_EPOCH).await.map(drop)
            }
        });
    }
    eventually(async || (stuck(&url).await >= 2).then_some(())).await;
    for n in 0..20 {
        publish(&store, [format!("event-{n}")]).await;
        assert_eq!(claim_at_last(&store, 1).await.len(), 1);
    }
    assert_eq!(stuck(&url).await, 2, "a quarter of all connections are for those who read");
    lock.rollback().await.unwrap();
    while let Some(read) = readers.join_next().await {
        read.unwrap().unwrap();
    }
}

/// Goal: the server ends a statement that takes too long, and a read is not repeated. Method: a
/// table that is read is replaced by a function that sleeps, and that counts its calls in a way
/// that no rollback undoes.
#[tokio::test]
async fn a_read_that_takes_too_long_is_ended_and_not_repeated() {
    let url = Cluster::shared().database().await;
    let pooler = Cluster::shared().pooler_in("slow");
    // Long enough for the statements that open a store on a busy machine, which are made before.
    PostgresStore::open(&url).await.unwrap().close().await;
    let options =
        |url: &str| PostgresOptions::new(url).unwrap().statement_timeout(Duration::from_secs(1));
    let direct = options(&url).open().await.unwrap();
    let pooled = options(&pooler.url(&url)).without_prepared_statements().open().await.unwrap();
    let replace = "
        CREATE SEQUENCE calls;
        ALTER TABLE webhooks.event_keys RENAME TO real_keys;
        CREATE FUNCTION slow() RETURNS SETOF webhooks.real_keys LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('public.calls');
            PERFORM pg_sleep(600);
        END $$;
        CREATE VIEW webhooks.event_keys AS SELECT * FROM public.slow()";
    let mut admin = connect(&url).await;
    sqlx::raw_sql(replace).execute(&mut admin).await.unwrap();
    for (store, calls) in [(direct, 1), (pooled, 2)] {
        let query = Query { event: Some(EventId::new("a").unwrap()), ..Query::default() };
        let error = store.events(query).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let count = "SELECT last_value FROM calls";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut admin).await.unwrap();
        assert_eq!(count, calls);
        let sleeping = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let sleeping: i64 = sqlx::query_scalar(sleeping).fetch_one(&mut admin).await.unwrap();
        assert_eq!(sleeping, 0);
    }
}
