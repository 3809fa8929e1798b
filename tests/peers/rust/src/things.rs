//! Health, applications, event types and endpoints.

use std::collections::BTreeMap;

use js_option::JsOption;
use serde_json::json;
use svix::api::{
    ApplicationListOptions, EndpointListOptions, EventTypeDeleteOptions, EventTypeListOptions,
};
use svix::models::{
    ApplicationIn, ApplicationPatch, EndpointHeadersIn, EndpointHeadersPatchIn, EndpointPatch,
    EndpointSecretRotateIn, EndpointUpsertIn, EventTypeIn, EventTypePatch, EventTypeUpsertIn,
    Ordering,
};

use crate::flow::{Flow, message_in, new_secret, pages, refused, set, verifying};

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

pub async fn health(flow: &Flow) {
    println!("-- health");
    flow.client.health().get().await.unwrap();
}

pub async fn applications(flow: &Flow) {
    println!("-- applications");
    let (api, uid) = (flow.client.application(), format!("{}-app", flow.run));
    let new = |name: &str| ApplicationIn {
        uid: Some(uid.clone()),
        ..ApplicationIn::new(name.to_owned())
    };
    let metadata = Some(map([("plan", "gold")]));
    let one = ApplicationIn { metadata, throttle_rate: Some(90), ..new("One") };
    let made = api.create(one, None).await.unwrap();
    assert_eq!((&*made.name, made.throttle_rate), ("One", Some(90)));
    assert_eq!((made.uid.as_ref(), &made.metadata), (Some(&uid), &map([("plan", "gold")])));
    assert_eq!(api.get(made.id.clone()).await.unwrap(), made);
    assert_eq!(api.get(uid.clone()).await.unwrap(), made);
    assert_eq!(api.get_or_create(new("Two"), None).await.unwrap(), made);
    refused(api.create(new("X"), None).await, 409, "conflict");
    let bad = ApplicationIn { uid: Some("not valid".to_owned()), ..new("X") };
    refused(api.create(bad, None).await, 422, "uid");
    let put = api.upsert(uid.clone(), new("Put")).await.unwrap();
    assert_eq!((put.id, &*put.name, put.throttle_rate), (made.id.clone(), "Put", None));
    let metadata = Some(map([("plan", "blue")]));
    let patch = ApplicationPatch { metadata, ..ApplicationPatch::new() };
    let patched = api.patch(uid, patch).await.unwrap();
    assert_eq!((&*patched.name, patched.metadata), ("Put", map([("plan", "blue")])));
    api.delete(made.id.clone()).await.unwrap();
    refused(api.get(made.id).await, 404, "not_found");
    let mut seven = Vec::new();
    for number in 0..7 {
        seven.push(flow.application(&number.to_string()).await);
    }
    for order in [Ordering::Ascending, Ordering::Descending] {
        let found = pages(3, async |limit, iterator| {
            let (limit, order) = (Some(limit), Some(order));
            let options = ApplicationListOptions { limit, iterator, order, ..Default::default() };
            let page = api.list(Some(options)).await.unwrap();
            (page.data, page.iterator, page.done)
        });
        let found: Vec<String> = found.await.into_iter().map(|app| app.id).collect();
        let mut found: Vec<String> = found.into_iter().filter(|id| seven.contains(id)).collect();
        if order == Ordering::Descending {
            found.reverse();
        }
        assert_eq!(found, seven, "each once, in order");
    }
}

pub async fn event_types(flow: &Flow) {
    println!("-- event types");
    let api = flow.client.event_type();
    let [alpha, beta] = ["alpha", "beta"].map(|name| format!("{}.{name}", flow.run));
    let schemas = json!({ "1": { "type": "object", "title": "Alpha" } });
    let new = EventTypeIn::new(alpha.clone(), "First".to_owned());
    let new = EventTypeIn { schemas: Some(schemas.clone()), ..new };
    let made = api.create(new.clone(), None).await.unwrap();
    assert_eq!((&made.name, &made.schemas), (&alpha, &Some(schemas.clone())));
    assert_eq!(api.get(alpha.clone()).await.unwrap(), made);
    refused(api.create(new, None).await, 409, "conflict");
    let bad = EventTypeIn::new("not valid".to_owned(), String::new());
    refused(api.create(bad, None).await, 422, "name");
    let put = api.upsert(beta.clone(), EventTypeUpsertIn::new("New".to_owned())).await.unwrap();
    assert_eq!((put.name, &*put.description), (beta.clone(), "New"));
    let description = Some("Patched".to_owned());
    let patch = EventTypePatch { description, ..EventTypePatch::new() };
    let patched = api.patch(alpha.clone(), patch).await.unwrap();
    assert_eq!((&*patched.description, patched.schemas), ("Patched", Some(schemas)));
    api.delete(beta.clone(), None).await.unwrap();
    assert!(api.get(beta.clone()).await.unwrap().archived.unwrap_or_default());
    for (archived, expected) in [(false, vec![&alpha]), (true, vec![&alpha, &beta])] {
        let found = pages(1, async |limit, iterator| {
            let (limit, include_archived) = (Some(limit), Some(archived));
            let options =
                EventTypeListOptions { limit, iterator, include_archived, ..Default::default() };
            let page = api.list(Some(options)).await.unwrap();
            (page.data, page.iterator, page.done)
        });
        let found: Vec<String> = found.await.into_iter().map(|found| found.name).collect();
        let own = found.iter().filter(|name| name.starts_with(&flow.run));
        assert_eq!(own.collect::<Vec<_>>(), expected);
    }
    for name in [alpha.clone(), beta] {
        let options = EventTypeDeleteOptions { expunge: Some(true) };
        api.delete(name, Some(options)).await.unwrap();
    }
    refused(api.get(alpha).await, 404, "not_found");
}

pub async fn endpoints(flow: &Flow) {
    println!("-- endpoints");
    let (app, api) = (flow.application("endpoints").await, flow.client.endpoint());
    let (uid, secret) = (Some("mine".to_owned()), Some(new_secret()));
    let (channels, event_types) = (Some(set(["blue", "red"])), Some(set(["a.created"])));
    let mut new = flow.endpoint_in("/x");
    new.description = Some("Mine".to_owned());
    (new.uid, new.secret) = (uid.clone(), secret.clone());
    (new.channels, new.event_types) = (channels.clone(), event_types.clone());
    (new.metadata, new.throttle_rate) = (Some(map([("team", "a")])), Some(50));
    let made = flow.endpoint(&app, new.clone()).await;
    assert_eq!((&*made.description, &made.url, &made.uid), ("Mine", &new.url, &uid));
    assert_eq!((&made.channels, &made.event_types), (&channels, &event_types));
    assert_eq!((&made.metadata, made.throttle_rate), (&map([("team", "a")]), Some(50)));
    for name in [&made.id, "mine"] {
        assert_eq!(api.get(app.clone(), name.to_owned()).await.unwrap(), made);
    }
    refused(api.create(app.clone(), new, None).await, 409, "conflict");
    let mut bad = flow.endpoint_in("/x");
    bad.throttle_rate = Some(0);
    refused(api.create(app.clone(), bad, None).await, 422, "throttleRate");
    let put = EndpointUpsertIn { uid, ..EndpointUpsertIn::new(made.url.clone()) };
    let put = api.upsert(app.clone(), "mine".to_owned(), put).await.unwrap();
    assert_eq!((&put.id, &*put.description, put.channels), (&made.id, "", None));
    let kept = api.get_secret(app.clone(), made.id.clone()).await.unwrap();
    assert_eq!(Some(kept.key), secret);
    let channels = JsOption::Some(set(["green"]));
    let patch = EndpointPatch { disabled: Some(true), channels, ..EndpointPatch::new() };
    let patched = api.patch(app.clone(), made.id.clone(), patch).await.unwrap();
    assert_eq!((patched.disabled, patched.channels), (Some(true), Some(set(["green"]))));
    let patch = EndpointPatch { channels: JsOption::Null, ..EndpointPatch::new() };
    let patched = api.patch(app.clone(), made.id.clone(), patch).await.unwrap();
    assert_eq!(patched.channels, None, "null clears");
    let mut ids = vec![made.id.clone()];
    for number in 0..4 {
        ids.push(flow.endpoint(&app, flow.endpoint_in(&format!("/{number}"))).await.id);
    }
    let found = pages(2, async |limit, iterator| {
        let options = EndpointListOptions { limit: Some(limit), iterator, order: None };
        let page = api.list(app.clone(), Some(options)).await.unwrap();
        (page.data, page.iterator, page.done)
    });
    let mut found: Vec<String> = found.await.into_iter().map(|found| found.id).collect();
    found.reverse();
    assert_eq!(found, ids, "each once, the newest first");
    api.delete(app.clone(), made.id.clone()).await.unwrap();
    refused(api.get(app, made.id).await, 404, "not_found");
}

pub async fn endpoint_headers(flow: &Flow) {
    println!("-- headers of endpoints");
    let (app, api, path) = (flow.application("headers").await, flow.client.endpoint(), "/headers");
    let id = flow.endpoint(&app, flow.endpoint_in(path)).await.id;
    let sent = async || {
        let request = flow.received(path, &flow.send(&app, message_in()).await, 1).await;
        ["x-one", "x-two", "authorization"].map(|name| {
            let value = request.headers.get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        })
    };
    let headers = map([("X-One", "1"), ("X-Two", "2"), ("Authorization", "Bearer hidden")]);
    api.set_headers(app.clone(), id.clone(), EndpointHeadersIn::new(headers)).await.unwrap();
    let told = api.get_headers(app.clone(), id.clone()).await.unwrap();
    let names: Vec<String> = told.headers.keys().map(|name| name.to_lowercase()).collect();
    assert_eq!(names, ["x-one", "x-two"], "the sensitive value is hidden");
    assert_eq!(told.sensitive.len(), 1);
    assert_eq!(sent().await, ["1", "2", "Bearer hidden"]);
    let mut patch = EndpointHeadersPatchIn::new(map([("X-One", "3")]));
    patch.delete_headers = Some(vec!["X-Two".to_owned()]);
    api.patch_headers(app.clone(), id.clone(), patch).await.unwrap();
    assert_eq!(sent().await, ["3", "", "Bearer hidden"]);
    let bad = EndpointHeadersPatchIn::new(map([("X-Bad", "a\nb")]));
    refused(api.patch_headers(app.clone(), id.clone(), bad).await, 422, "headers");
    assert_eq!(sent().await, ["3", "", "Bearer hidden"], "what is refused changes nothing");
}

pub async fn endpoint_secrets(flow: &Flow) {
    println!("-- secrets of endpoints");
    let (app, api, path) = (flow.application("secrets").await, flow.client.endpoint(), "/secrets");
    let [old, new, third] = [(); 3].map(|()| new_secret());
    let secrets = [old.clone(), new.clone(), third.clone()];
    let endpoint = svix::models::EndpointIn { secret: Some(old.clone()), ..flow.endpoint_in(path) };
    let id = flow.endpoint(&app, endpoint).await.id;
    let signing = async || {
        let request = flow.received(path, &flow.send(&app, message_in()).await, 1).await;
        verifying(&request, &secrets)
    };
    let rotate = async |key: Option<&String>, grace_period_seconds: Option<u32>| {
        let to = EndpointSecretRotateIn { key: key.cloned(), grace_period_seconds };
        api.rotate_secret(app.clone(), id.clone(), to, None).await.unwrap();
        api.get_secret(app.clone(), id.clone()).await.unwrap().key
    };
    assert_eq!(rotate(Some(&new), None).await, new);
    assert_eq!(signing().await, [old, new], "the old and the new one sign");
    rotate(Some(&third), Some(0)).await;
    assert_eq!(signing().await, [third], "without grace, no older one signs");
    let made = rotate(None, None).await;
    assert!(made.starts_with("whsec_") && !secrets.contains(&made));
}
