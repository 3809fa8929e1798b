//! The portal's tokens, idempotency, and errors.

use svix::api::{ApplicationCreateOptions, MessageCreateOptions, MessageListOptions};
use svix::models::{AppPortalAccessIn, ApplicationIn, MessageIn};

use crate::flow::{Flow, message_in, refused};

pub async fn portal(flow: &Flow) {
    println!("-- portal");
    let [app, foreign] = [flow.application("portal").await, flow.application("portal 2").await];
    let api = flow.client.authentication();
    let access = api.app_portal_access(app.clone(), AppPortalAccessIn::new(), None).await.unwrap();
    assert!(access.url.starts_with("http") && !access.token.is_empty());
    let client = flow.client_with(&access.token);
    assert_eq!(client.application().get(app.clone()).await.unwrap().id, app);
    assert_eq!(client.endpoint().list(app.clone(), None).await.unwrap().data, []);
    refused(client.endpoint().list(foreign, None).await, 404, "not_found");
    let new = ApplicationIn::new("X".to_owned());
    refused(client.application().create(new, None).await, 403, "insufficient access");
    client.authentication().logout(None).await.unwrap();
    refused(client.application().get(app).await, 401, "authentication_failed");
}

pub async fn idempotency(flow: &Flow) {
    println!("-- idempotency");
    let app = flow.application("idempotency").await;
    let key = Some(format!("{}-key", flow.run));
    let create = async || {
        let options = ApplicationCreateOptions { idempotency_key: key.clone() };
        let new = ApplicationIn::new("Once".to_owned());
        flow.client.application().create(new, Some(options)).await.unwrap()
    };
    assert_eq!(create().await, create().await);
    let send = async |new: MessageIn| {
        let idempotency_key = key.clone();
        let options = MessageCreateOptions { idempotency_key, ..Default::default() };
        flow.client.message().create(app.clone(), new, Some(options)).await
    };
    let first = send(message_in()).await.unwrap();
    assert_eq!(send(message_in()).await.unwrap(), first);
    let other = MessageIn { event_type: "other".to_owned(), ..message_in() };
    refused(send(other).await, 409, "conflict");
    let listed = flow.client.message().list(app.clone(), None).await.unwrap().data;
    assert_eq!(listed, [first], "it is listed once");
}

pub async fn errors(flow: &Flow) {
    println!("-- errors");
    let (app, api) = (flow.application("errors").await, flow.client.message());
    let stranger = flow.client_with("a-key-that-nobody-has-made");
    refused(stranger.application().get(app.clone()).await, 401, "authentication_failed");
    let unknown = "msg_2srOrx2ZWZBpBUvZwXKQmoEYga2".to_owned();
    refused(api.get(app.clone(), unknown, None).await, 404, "not_found");
    refused(api.create("unknown".to_owned(), message_in(), None).await, 404, "not_found");
    let iterator = Some("no iterator".to_owned());
    let options = MessageListOptions { iterator, ..Default::default() };
    refused(api.list(app.clone(), Some(options)).await, 400, "invalid_request");
    let bad = MessageIn { event_type: "not valid".to_owned(), ..message_in() };
    refused(api.create(app.clone(), bad, None).await, 422, "eventType");
    let bad = MessageIn { event_id: Some("not valid".to_owned()), ..message_in() };
    refused(api.create(app.clone(), bad, None).await, 422, "eventId");
    let bad = MessageIn { payload: serde_json::json!([1]), ..message_in() };
    refused(api.create(app, bad, None).await, 422, "payload");
}
