//! The service is killed again and again under load, or asked to end: everything that it answered 2xx
//! arrives.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use fastrand::Rng;
use tokio::process::Command;
use webhooks_tests::crash::refuses;
use webhooks_tests::postgres::Cluster;

use crate::life::{Callers, Life};

/// The lives of the service.
const LIVES: usize = 4;

/// The ways in which a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Terminated,
}

impl End {
    async fn of(self, life: &mut Life) -> ExitStatus {
        let process = life.process.id().unwrap().to_string();
        match self {
            Self::Killed => life.process.start_kill().unwrap(),
            Self::Terminated => {
                let mut kill = Command::new("sh");
                let told = kill.args(["-c", r#"kill -TERM "$0""#, &process]).status().await;
                assert!(told.unwrap().success());
            }
        }
        life.process.wait().await.unwrap()
    }
}

async fn ended_again_and_again(store: &str, end: End) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut random, callers) = (Rng::with_seed(seed), Callers::new().await);
    for number in 0..LIVES {
        let mut life = Life::begin(store, &callers).await;
        if number == 0 {
            callers.settle_in(&life).await;
        }
        let publishing = callers.publish(&life);
        callers.wait_for(random.usize(20..200)).await;
        let status = end.of(&mut life).await;
        assert_eq!(status.success(), end == End::Terminated, "{status}");
        publishing.join_all().await;
    }
    let _last = Life::begin(store, &callers).await;
    callers.wait_for_all().await;
    assert!(callers.accepted() >= LIVES * 20);
    if end == End::Terminated {
        nothing_arrived_twice(&callers);
    }
}

/// A process that ends in order has settled all that it sent.
fn nothing_arrived_twice(callers: &Callers) {
    let mut delivered = BTreeSet::new();
    for (number, request) in (1..).zip(callers.receiver.received()) {
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        assert!(refuses(number) || delivered.insert(id.clone()), "{id} was delivered twice");
    }
}

/// Returns a folder, and the place of a store in it.
fn file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.db").to_str().unwrap().to_owned();
    (folder, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_file_loses_nothing_that_it_accepted() {
    let (_folder, file) = file();
    ended_again_and_again(&file, End::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_database_loses_nothing_that_it_accepted() {
    ended_again_and_again(&Cluster::shared().database().await, End::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_file_ends_in_order() {
    let (_folder, file) = file();
    ended_again_and_again(&file, End::Terminated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_database_ends_in_order() {
    ended_again_and_again(&Cluster::shared().database().await, End::Terminated).await;
}
