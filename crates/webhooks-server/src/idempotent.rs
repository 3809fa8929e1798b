//! Requests with an idempotency key: the first answer again.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use webhooks_admin::{
    Actor, AdminError, Answer, Begin, Collection, End, Entry, IdKind, IdempotentRequest, Resource,
    Run, number_of,
};

use crate::auth::Caller;
use crate::deadline::timed;
use crate::error::ApiError;
use crate::extract::read_body;
use crate::service::Service;

/// The start of the paths of health.
const HEALTH: &str = "/api/v1/health";

/// The path at which one-time tokens are exchanged, by those who have no key yet.
pub(crate) const EXCHANGE: &str = "/api/v1/auth/one-time-token";

const KEY: &str = "idempotency-key";

/// The longest key in bytes.
const MAX_KEY: usize = 256;

/// Tells that an answer was given before.
const REPLAYED: &str = "idempotency-replayed";

/// The number that a request has in common with its repetitions, if it has an idempotency key. The ids of what
/// it makes follow from the number, so that a repetition finds what a process made that was killed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestNumber(Option<Run>);

impl RequestNumber {
    pub(crate) fn number(self) -> Option<u128> {
        self.0.map(|run| run.number)
    }

    /// Returns the id of what the request makes.
    pub(crate) fn id(self, kind: IdKind) -> String {
        self.number().map_or_else(|| kind.generate(), |number| kind.id(number))
    }

    /// Returns the number of a part of the request.
    pub(crate) fn of_part(self, part: usize) -> Option<u128> {
        self.number().map(|number| number_of(&[&number.to_string(), &part.to_string()]))
    }

    /// Returns whether what the request makes may be there already.
    pub(crate) fn is_again(self) -> bool {
        self.0.is_some_and(|run| run.is_again)
    }

    /// Adds what the request makes, or returns it if it is there already.
    pub(crate) async fn add<R: Resource>(
        self,
        collection: Collection<'_, R>,
        kind: IdKind,
        value: R,
        actor: &Actor,
    ) -> Result<Entry<R>, AdminError> {
        let (id, now) = (self.id(kind), Service::now());
        match collection.add(id.clone(), value, actor, now).await {
            // Another run of the request may have been faster.
            Err(taken @ AdminError::Exists { .. }) if self.0.is_some() => {
                collection.look_up(&id, now).await?.ok_or(taken)
            }
            added => added,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestNumber {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Answers a POST with an idempotency key, by the answer that its first one got; refuses requests beyond those
/// that may be in work.
///
/// Requests that change something are carried out to their end even if the caller hangs up: half of one
/// could leave an endpoint without its entry, or a change without its row in the audit log.
pub(crate) async fn answer_once(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    // Those who watch must see a service that is busy, and strangers hold no place of a request.
    let is_exchange = path == EXCHANGE;
    let needs_no_place = is_exchange || path.starts_with(HEALTH);
    let place = if needs_no_place { Ok(None) } else { service.place().map(Some) };
    let place = match place {
        Ok(place) => place,
        Err(error) => return error.into_response(),
    };
    let timeout = service.settings().body_timeout;
    let request = request.map(|body| timed(body, timeout));
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let is_post = request.method() == Method::POST;
    let key = request.headers().get(KEY).cloned().filter(|_| is_post && !is_exchange);
    let answer = tokio::spawn(async move {
        let _until_done = place;
        match key {
            Some(key) => {
                once(&service, &key, request, next).await.unwrap_or_else(ApiError::into_response)
            }
            None => next.run(request).await,
        }
    });
    // It ends early only by a panic, which is a bug and was reported.
    answer.await.unwrap_or_else(|_panic| ApiError::unavailable().into_response())
}

async fn once(
    service: &Service,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = key.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let key = key.ok_or_else(|| {
        ApiError::bad_request("Idempotency-Key: it is not 1 to 256 visible ASCII characters.")
    })?;
    let (mut parts, body) = request.into_parts();
    // A stranger is refused before anything is read or kept.
    let caller = Caller::from_request_parts(&mut parts, service).await?;
    let makes_key = makes_key(parts.uri.path());
    if (tells_secrets(parts.uri.path()) && !makes_key) || is_read(parts.uri.path()) {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let scope = format!("{} {}", caller.actor().who, parts.uri);
    if is_publish(parts.uri.path()) {
        let run = Run { number: number_of(&[&scope, key]), is_again: false, version: 0 };
        parts.extensions.insert(RequestNumber(Some(run)));
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let body = read_body(body, service.settings().max_request).await?;
    let asked = IdempotentRequest { scope: &scope, key, body: &body };
    let run = match service.admin().begin(asked, Service::now()).await? {
        Begin::Run(run) => run,
        Begin::Answered(answer) => return Ok(again(answer)),
        Begin::InProgress => {
            return Err(ApiError::conflict(
                "A request with this idempotency key is being answered; try again.",
            ));
        }
        Begin::OtherBody => {
            return Err(ApiError::conflict(
                "A request with this idempotency key had another body.",
            ));
        }
    };
    parts.extensions.insert(RequestNumber(Some(run)));
    let response = next.run(Request::from_parts(parts, Body::from(body.clone()))).await;
    let (parts, told) = response.into_parts();
    let told = told.collect().await.map_err(|_unreadable| ApiError::unavailable())?.to_bytes();
    // Another run may have made the thing already: the number stays for further ones.
    let is_again_in_conflict = run.is_again && parts.status == StatusCode::CONFLICT;
    let end = if parts.status.is_client_error() && !is_again_in_conflict {
        End::Refused
    } else if makes_key || !parts.status.is_success() {
        End::Open
    } else {
        let body = String::from_utf8_lossy(&told).into_owned();
        End::Answered(Answer { status: parts.status.as_u16(), body })
    };
    match service.admin().finish(asked, run, end, Service::now()).await {
        // Another run of the request has its place, or gave its answer.
        Ok(()) | Err(AdminError::Changed) => {}
        Err(error) => {
            // It is done all the same.
            tracing::warn!(error = &error as &dyn std::error::Error, "an answer was not kept");
        }
    }
    Ok(Response::from_parts(parts, Body::from(told)))
}

/// Returns whether a request publishes a message. It needs no record: its number is the message's id, and
/// publishing one again answers the same. Client libraries of Svix send a key with every request, and each
/// would cost two commits more.
fn is_publish(path: &str) -> bool {
    matches!(path.split('/').collect::<Vec<_>>()[..], ["", "api", "v1", "app", _, "msg"])
}

/// Returns whether the answers at a path hold a key or a secret. They are not kept: a store has the hash of a
/// key alone.
fn tells_secrets(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "auth" | "management" | "secret"))
}

/// Returns whether a request makes an API key. Its answer is not kept, but its number is.
fn makes_key(path: &str) -> bool {
    path.starts_with("/api/v1/management/") && path.ends_with("/api-token")
}

/// Returns whether the answer of a request is not kept, because it only reads, or shows a payload or a response
/// that may be deleted meanwhile.
fn is_read(path: &str) -> bool {
    const READS: [&str; 5] = [
        "/environment/export",
        "/event-type/export/openapi",
        "/msg/precheck/active",
        "/msg/search",
        "/msg/test-attempt",
    ];
    READS.iter().any(|read| path.ends_with(read))
}

fn again(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (status, json, answer.body).into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
