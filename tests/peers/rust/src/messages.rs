//! Messages and their attempts.

use serde_json::json;
use svix::api::{
    MessageAttemptListAttemptedMessagesOptions, MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions, MessageGetOptions, MessageListOptions,
};
use svix::models::{
    EndpointIn, EndpointPatch, MessageAttemptOut, MessageAttemptTriggerType, MessageIn,
    MessageStatus, StatusCodeClass,
};

use crate::flow::{
    Flow, eventually, is_gone, message_in, new_secret, pages, refused, set, verifying,
};

pub async fn messages(flow: &Flow) {
    println!("-- messages");
    let (app, api) = (flow.application("messages").await, flow.client.message());
    let secret = new_secret();
    let all = EndpointIn { secret: Some(secret.clone()), ..flow.endpoint_in("/all") };
    flow.endpoint(&app, all).await;
    let blue = EndpointIn { channels: Some(set(["blue"])), ..flow.endpoint_in("/blue") };
    flow.endpoint(&app, blue).await;
    let deleted = Some(set(["a.deleted"]));
    let deleted = EndpointIn { event_types: deleted, ..flow.endpoint_in("/deleted") };
    flow.endpoint(&app, deleted).await;
    let payload = json!({ "z": "Grüße ☃ \"</>\"", "a": [1, 0.1, null, {}] });
    let new = MessageIn {
        payload: payload.clone(),
        event_id: Some("id-1".to_owned()),
        channels: Some(set(["blue"])),
        tags: Some(set(["tag"])),
        ..message_in()
    };
    let made = flow.send(&app, new.clone()).await;
    assert_eq!((made.event_id.as_deref(), &made.channels), (Some("id-1"), &new.channels));
    assert_eq!(made.payload, json!({}), "without content");
    assert_eq!(flow.send(&app, new.clone()).await, made, "the first message again");
    let other = MessageIn { payload: json!({}), ..new };
    refused(api.create(app.clone(), other, None).await, 409, "conflict");
    for name in [&made.id, "id-1"] {
        assert_eq!(api.get(app.clone(), name.to_owned(), None).await.unwrap(), made);
    }
    let content = || Some(MessageGetOptions { with_content: Some(true) });
    let whole = api.get(app.clone(), made.id.clone(), content()).await.unwrap();
    assert_eq!(whole.payload, payload);
    let request = flow.received("/all", &made, 1).await;
    assert_eq!(request.body, payload.to_string());
    assert_eq!(verifying(&request, &[new_secret(), secret.clone()]), [secret]);
    let event_type = "a.deleted".to_owned();
    let second = flow.send(&app, MessageIn { event_type, ..message_in() }).await;
    for (message, paths) in [(&made, ["/all", "/blue"]), (&second, ["/all", "/deleted"])] {
        for path in paths {
            flow.received(path, message, 1).await;
        }
        let attempts = flow.client.message_attempt();
        let found =
            attempts.list_attempted_destinations(app.clone(), message.id.clone(), None).await;
        let mut urls: Vec<String> = found.unwrap().data.into_iter().map(|to| to.url).collect();
        urls.sort();
        assert_eq!(urls, paths.map(|path| flow.receiver.url(path)), "it goes to those who want it");
    }
    api.expunge_content(app.clone(), made.id.clone()).await.unwrap();
    assert!(is_gone(&api.get(app, made.id, content()).await.unwrap().payload));
}

pub async fn lists(flow: &Flow) {
    println!("-- lists of messages");
    let (app, api) = (flow.application("lists").await, flow.client.message());
    let kinds = [("a", "red"), ("b", "blue"), ("a", "blue"), ("c", "red"), ("b", "red")];
    let mut made = Vec::new();
    for (event_type, channel) in kinds {
        let new = MessageIn::new(event_type.to_owned(), json!({ "number": made.len() }));
        made.push(flow.send(&app, MessageIn { channels: Some(set([channel])), ..new }).await.id);
    }
    let numbers = async |options: MessageListOptions| {
        let options = MessageListOptions { with_content: Some(true), ..options };
        let page = api.list(app.clone(), Some(options)).await.unwrap();
        let numbers = page.data.iter().map(|found| found.payload["number"].as_u64().unwrap());
        numbers.collect::<Vec<_>>()
    };
    let found = pages(2, async |limit, iterator| {
        let limit = Some(limit);
        let options = MessageListOptions { limit, iterator, ..Default::default() };
        let page = api.list(app.clone(), Some(options)).await.unwrap();
        (page.data, page.iterator, page.done)
    });
    let mut found: Vec<String> = found.await.into_iter().map(|found| found.id).collect();
    found.reverse();
    assert_eq!(found, made, "each once, the newest first");
    let blue = MessageListOptions { channel: Some("blue".to_owned()), ..Default::default() };
    assert_eq!(numbers(blue).await, [2, 1]);
    let event_types = Some(set(["a", "c"]));
    let types = MessageListOptions { event_types, ..Default::default() };
    assert_eq!(numbers(types).await, [3, 2, 0]);
}

pub async fn attempts(flow: &Flow) {
    println!("-- attempts");
    let (app, api, path) =
        (flow.application("attempts").await, flow.client.message_attempt(), "/attempts");
    let endpoint = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    flow.receiver.fail(path, 1);
    let event_id = Some("id-1".to_owned());
    let message = flow.send(&app, MessageIn { event_id, ..message_in() }).await;
    let by_message = async |options: MessageAttemptListByMsgOptions| {
        let options = MessageAttemptListByMsgOptions { with_content: Some(true), ..options };
        api.list_by_msg(app.clone(), "id-1".to_owned(), Some(options)).await.unwrap().data
    };
    eventually("a message to be tried again is sending", async || {
        let status = Some(MessageStatus::Sending);
        let sending = MessageAttemptListAttemptedMessagesOptions { status, ..Default::default() };
        flow.attempted(&app, &endpoint, &message, sending).await?.next_attempt
    })
    .await;
    eventually("the retry succeeds", async || {
        let status = Some(MessageStatus::Success);
        let successful = MessageAttemptListByMsgOptions { status, ..Default::default() };
        by_message(successful).await.pop()
    })
    .await;
    let found = by_message(MessageAttemptListByMsgOptions::default()).await;
    let fields = |one: &MessageAttemptOut| {
        assert_eq!((&one.msg_id, &one.endpoint_id), (&message.id, &endpoint));
        assert_eq!(one.trigger_type, MessageAttemptTriggerType::Scheduled);
        (one.status, one.response_status_code, one.response.clone())
    };
    let (success, fail) = (MessageStatus::Success, MessageStatus::Fail);
    let expected =
        [(success, 200, "answered 200".to_owned()), (fail, 500, "answered 500".to_owned())];
    assert_eq!(found.iter().map(fields).collect::<Vec<_>>(), expected, "the newest first");
    let [newest, oldest] = &found[..] else { unreachable!("there are two") };
    let read = async || {
        let got = api.get(app.clone(), message.id.clone(), oldest.id.clone(), None);
        got.await.unwrap()
    };
    assert_eq!(read().await.status, fail);
    let by_endpoint = async |options| {
        let page = api.list_by_endpoint(app.clone(), endpoint.clone(), Some(options));
        page.await.unwrap()
    };
    let listed = pages(1, async |limit, iterator| {
        let limit = Some(limit);
        let options = MessageAttemptListByEndpointOptions { limit, iterator, ..Default::default() };
        let page = by_endpoint(options).await;
        (page.data, page.iterator, page.done)
    });
    let listed: Vec<String> = listed.await.into_iter().map(|found| found.id).collect();
    assert_eq!(listed, [newest.id.clone(), oldest.id.clone()]);
    let (status, status_code_class) = (Some(fail), Some(StatusCodeClass::Code5xx));
    let failed =
        MessageAttemptListByEndpointOptions { status, status_code_class, ..Default::default() };
    assert_eq!(by_endpoint(failed).await.data[0].id, oldest.id);
    let gone = api.expunge_content(app.clone(), message.id.clone(), oldest.id.clone());
    gone.await.unwrap();
    assert!(!read().await.response.contains("answered"));
}

pub async fn resend(flow: &Flow) {
    println!("-- resend");
    let (app, api, path) =
        (flow.application("resend").await, flow.client.message_attempt(), "/resend");
    let endpoint = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    let message = flow.send(&app, message_in()).await;
    let resend = async || api.resend(app.clone(), message.id.clone(), endpoint.clone(), None).await;
    eventually("it is delivered", async || {
        let found = flow.attempted(&app, &endpoint, &message, Default::default()).await?;
        (found.status == MessageStatus::Success).then_some(())
    })
    .await;
    resend().await.unwrap();
    assert_eq!(flow.received(path, &message, 2).await.body, r#"{"a":1}"#);
    let newest = eventually("a second attempt", async || {
        let page = api.list_by_msg(app.clone(), message.id.clone(), None).await.unwrap();
        (page.data.len() == 2).then(|| page.data[0].clone())
    })
    .await;
    let manual = (MessageAttemptTriggerType::Manual, MessageStatus::Success);
    assert_eq!((newest.trigger_type, newest.status), manual);
    let patch = EndpointPatch { disabled: Some(true), ..EndpointPatch::new() };
    flow.client.endpoint().patch(app.clone(), endpoint.clone(), patch).await.unwrap();
    refused(resend().await, 409, "conflict");
}
