//! The connection that listens, when the network drops it without notice.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::*;

/// A way to the server that can lose its connections: both ends stay open, and nothing passes.
#[derive(Clone, Default)]
struct Network {
    /// The number of connections that were made.
    connections: Arc<AtomicUsize>,
    /// Connections with a smaller number are lost.
    lost: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

impl Network {
    /// Leads to a server through its own port, which it returns.
    async fn start(&self, socket: PathBuf) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let network = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if network.refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let number = network.connections.fetch_add(1, Ordering::SeqCst);
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(network.clone().lead(number, client, server));
            }
        });
        port
    }

    fn lose_all(&self) {
        self.lost.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    async fn lead(self, number: usize, mut client: TcpStream, mut server: UnixStream) {
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let is_lost = || number < self.lost.load(Ordering::SeqCst);
        loop {
            let passed = tokio::select! {
                count = client.read(&mut asked) => match count {
                    Ok(count) if count > 0 && is_lost() => Ok(()),
                    Ok(count) if count > 0 => server.write_all(&asked[..count]).await,
                    _ => return,
                },
                count = server.read(&mut answered) => match count {
                    Ok(count) if count > 0 && is_lost() => Ok(()),
                    Ok(count) if count > 0 => client.write_all(&answered[..count]).await,
                    _ => return,
                },
            };
            if passed.is_err() {
                return;
            }
        }
    }
}

/// Goal: if the connection that listens is lost without notice, the store notices and replaces it.
/// Method: a worker that has received notifications, and so polls only now and then, loses its
/// connection. It makes another one, on which it receives notifications again.
#[tokio::test]
async fn a_connection_to_listen_on_that_is_lost_without_a_word_is_replaced() {
    let url = Cluster::shared().database().await;
    let (database, folder) = url.split_once("?host=").unwrap();
    let network = Network::default();
    let port = network.start(format!("{folder}/.s.PGSQL.5432").into()).await;
    let name = database.rsplit('/').next().unwrap();
    let listen = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
    // A connection is lost after two seconds without an answer: longer than one takes on a busy machine.
    let options = PostgresOptions::new(&url).unwrap().heartbeat(Duration::from_millis(400));
    let store = options.listen_url(&listen).unwrap().open().await.unwrap();
    register(&store, "crm", endpoint()).await;
    let listeners = || network.connections.load(Ordering::SeqCst);
    let is_heard = async || {
        // It listens on a connection that it does not use otherwise; the server's statistics show
        // that.
        let heard = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')";
        let heard: i64 =
            sqlx::query_scalar(heard).fetch_one(&mut connect(&url).await).await.unwrap();
        claim(&store, 1).await;
        (heard > 0).then_some(())
    };
    eventually(is_heard).await;
    let before = listeners();
    let notify = async || {
        sqlx::query("NOTIFY webhooks").execute(&mut connect(&url).await).await.unwrap();
    };
    notify().await;
    // An idle connection that answers is not replaced.
    eventually(async || {
        let tried = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND query = 'SELECT 1'";
        let tried: i64 =
            sqlx::query_scalar(tried).fetch_one(&mut connect(&url).await).await.unwrap();
        claim(&store, 1).await;
        (tried > 0).then_some(())
    })
    .await;
    assert_eq!(listeners(), before);
    network.lose_all();
    eventually(async || {
        claim(&store, 1).await;
        (listeners() > before).then_some(())
    })
    .await;
    let after = listeners();
    // While the network refuses every connection, it tries again and again.
    network.refuses.store(true, Ordering::SeqCst);
    network.lose_all();
    let mut changes = store.changes();
    for _ in 0..3 {
        claim(&store, 1).await;
        changes.changed().await;
    }
    network.refuses.store(false, Ordering::SeqCst);
    eventually(async || {
        claim(&store, 1).await;
        (listeners() > after).then_some(())
    })
    .await;
}
