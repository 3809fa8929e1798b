//! Replays, the tasks that make them, and statistics.

use std::time::SystemTime;

use svix::models::{
    BackgroundTaskOut, BackgroundTaskStatus, BackgroundTaskType, EndpointStats, MessageOut,
    MessageStatus, RecoverIn, ReplayIn,
};

use crate::flow::{ALWAYS, Flow, eventually, message_in};

/// Waits until a message of an endpoint has a status for good.
async fn ends(
    flow: &Flow,
    (app, endpoint): (&str, &str),
    message: &MessageOut,
    status: MessageStatus,
) {
    eventually(&format!("it ends as {status:?}"), async || {
        let found = flow.attempted(app, endpoint, message, Default::default()).await?;
        (found.status == status && found.next_attempt.is_none()).then_some(())
    })
    .await;
}

/// Waits until a task has finished.
async fn finishes(flow: &Flow, task: &str) -> BackgroundTaskOut {
    eventually("the task finishes", async || {
        let found = flow.client.background_task().get(task.to_owned()).await.unwrap();
        (found.status == BackgroundTaskStatus::Finished).then_some(found)
    })
    .await
}

pub async fn recover(flow: &Flow) {
    println!("-- recover");
    let (app, path) = (flow.application("recover").await, "/recover");
    let endpoint = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    let place = (&*app, &*endpoint);
    flow.receiver.fail(path, ALWAYS);
    let old = flow.send(&app, message_in()).await;
    ends(flow, place, &old, MessageStatus::Fail).await;
    let since = SystemTime::now().into();
    let new = flow.send(&app, message_in()).await;
    ends(flow, place, &new, MessageStatus::Fail).await;
    flow.receiver.fail(path, 0);
    let api = flow.client.endpoint();
    let task = api.recover(app.clone(), endpoint.clone(), RecoverIn::new(since), None).await;
    let task = task.unwrap();
    assert_eq!(task.task, BackgroundTaskType::EndpointRecover);
    finishes(flow, &task.id).await;
    ends(flow, place, &new, MessageStatus::Success).await;
    ends(flow, place, &old, MessageStatus::Fail).await;
    let since = RecoverIn::new(SystemTime::UNIX_EPOCH.into());
    api.recover(app.clone(), endpoint.clone(), since, None).await.unwrap();
    ends(flow, place, &old, MessageStatus::Success).await;
    let requests = flow.receiver.requests(path);
    let delivered = requests.iter().filter(|request| request.status == 200);
    let delivered: Vec<&str> = delivered.map(|request| request.message()).collect();
    assert_eq!(delivered, [&new.id, &old.id], "each is delivered once");
}

pub async fn replay_missing(flow: &Flow) {
    println!("-- replay-missing");
    let (app, path) = (flow.application("missing").await, "/missing");
    let message = flow.send(&app, message_in()).await;
    // It was not there when the message came.
    let endpoint = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    let since = ReplayIn::new(SystemTime::UNIX_EPOCH.into());
    let api = flow.client.endpoint();
    let task = api.replay_missing(app.clone(), endpoint.clone(), since, None).await.unwrap();
    assert_eq!(task.task, BackgroundTaskType::EndpointReplay);
    flow.received(path, &message, 1).await;
    let task = finishes(flow, &task.id).await;
    let listed = flow.client.background_task().list(None).await.unwrap().data;
    assert!(listed.iter().any(|found| found.id == task.id));
}

pub async fn statistics(flow: &Flow) {
    println!("-- statistics");
    let (app, path) = (flow.application("stats").await, "/stats");
    let endpoint = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    let counts = async || {
        let api = flow.client.endpoint();
        api.get_stats(app.clone(), endpoint.clone(), None).await.unwrap()
    };
    assert_eq!(counts().await, EndpointStats::new(0, 0, 0, 0, 0));
    flow.received(path, &flow.send(&app, message_in()).await, 1).await;
    flow.receiver.fail(path, ALWAYS);
    flow.send(&app, message_in()).await;
    let expected = EndpointStats::new(1, 0, 0, 1, 0);
    eventually("one success, one failure", async || (counts().await == expected).then_some(()))
        .await;
}
