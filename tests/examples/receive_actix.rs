//! Receives webhooks in actix-web, which has its own types in place of those of `http`: `cargo run
//! --example receive_actix`, and send some to the URL that it prints, signed with the secret below.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload, post};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures_util::TryStreamExt as _;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use serde_json::Value;
use webhooks_receive::{BoxError, MemorySeenStore, Receiver, Rejection, ReplayGuard, Webhook};
use webhooks_sign::Key;
use webhooks_sign::standard::STANDARD;

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// The adaptor: the head, and the body that still streams in, as types of `http`.
fn to_http(
    request: &HttpRequest,
    payload: Payload,
) -> Result<Request<impl Body<Error: Into<BoxError>>>, http::Error> {
    let uri = request.uri().to_string();
    let mut builder = Request::builder().method(request.method().as_str()).uri(uri);
    for (name, value) in request.headers() {
        builder = builder.header(name.as_str(), value.as_bytes());
    }
    builder.body(StreamBody::new(payload.map_ok(Frame::data)))
}

async fn hook(
    receiver: Data<Receiver>,
    guard: Data<ReplayGuard<MemorySeenStore>>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let Ok(request) = to_http(&request, payload) else {
        return HttpResponse::BadRequest().finish();
    };
    let received = async {
        let webhook = receiver.receive(request).await?.into_body();
        Ok::<_, Rejection>(guard.run(&webhook, async { handle(&webhook) }).await?.status())
    };
    let status = received.await.unwrap_or_else(|rejection| rejection.status());
    let status = StatusCode::from_u16(status.as_u16());
    HttpResponse::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

fn handle(webhook: &Webhook) -> Result<(), Rejection> {
    let event: Value = webhook.json()?;
    println!("invoice {} is paid", event["payload"]["number"]);
    Ok(())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let receiver = Receiver::new(STANDARD, Key::standard(SECRET)?)?;
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new())?;

    let server = HttpServer::new(move || {
        let (receiver, guard) = (Data::new(receiver.clone()), Data::new(guard.clone()));
        App::new().app_data(receiver).app_data(guard).route("/hook", post().to(hook))
    });
    let server = server.workers(1).bind("127.0.0.1:0")?;
    for address in server.addrs() {
        println!("http://{address}/hook");
    }
    server.run().await?;
    Ok(())
}
