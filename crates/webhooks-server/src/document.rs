//! The parts of the document that follow from others: what all operations of a kind have in common.

use http::Method;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema, SecurityRequirement, Type,
};
use utoipa::{PartialSchema as _, ToSchema};

use crate::error::{FieldErrors, PlainError};
use crate::schema::{EventTypeName, Name, all};

const BEARER: &str = "bearer";

const BAD_REQUEST: u16 = 400;
const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
const TOO_SLOW: u16 = 408;
const TOO_LARGE: u16 = 413;
const INVALID: u16 = 422;
const TOO_MANY: u16 = 429;
const UNAVAILABLE: u16 = 503;

/// The errors, with the names and descriptions that the document has for them.
const ERRORS: [(u16, &str, &str); 10] = [
    (BAD_REQUEST, "BadRequest", "A parameter or a header is not valid."),
    (UNAUTHORIZED, "Unauthorized", "The key is missing, or is not accepted."),
    (FORBIDDEN, "Forbidden", "The key may not do this."),
    (NOT_FOUND, "NotFound", "There is no such thing, or the key may not know of it."),
    (CONFLICT, "Conflict", "Another thing or another request is in the way."),
    (TOO_SLOW, "TooSlow", "The body took too long to arrive."),
    (TOO_LARGE, "TooLarge", "The body is too large."),
    (INVALID, "Invalid", "The body is no JSON, or a field is not valid."),
    (
        TOO_MANY,
        "TooMany",
        "Too many keys of this address were refused, or the application publishes faster than its throttleRate.",
    ),
    (
        UNAVAILABLE,
        "Unavailable",
        "The store is not available, or too many requests are in work; try again.",
    ),
];

/// Adds to each operation all that follows from its path, its method and its body: the names in the path,
/// the idempotency key, and the errors.
pub(crate) fn complete(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let names: Vec<&str> =
            path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        // Ids are unique also where one handler answers two methods.
        if let (Some(put), Some(patch)) = (&item.put, &mut item.patch)
            && put.operation_id == patch.operation_id
        {
            patch.operation_id = put.operation_id.as_ref().map(|id| format!("{id}-fields"));
        }
        for (method, operation) in operations(item) {
            let parameters = operation.parameters.get_or_insert_default();
            parameters.extend(names.iter().map(|name| RefOr::T(name_parameter(name))));
            if method == Method::POST {
                parameters.push(RefOr::T(idempotency_key()));
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && body.required.is_none()
            {
                make_optional(body);
            }
            // Programs that show one of the two find it.
            operation.description =
                operation.description.take().or_else(|| operation.summary.clone());
            add_errors(&method, operation);
            describe(operation);
        }
    }
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas = all();
    schemas.push((PlainError::name().into_owned(), PlainError::schema()));
    schemas.push((FieldErrors::name().into_owned(), FieldErrors::schema()));
    FieldErrors::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (status, name, description) in ERRORS {
        components.responses.insert(name.to_owned(), RefOr::T(error(status, description)));
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, or the token of a session."));
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    document.security = Some(vec![SecurityRequirement::new(BEARER, [""; 0])]);
}

/// Describes a body of the type `Option<T>`: it may be absent, and a body that is there is a `T` and not `null`.
fn make_optional(body: &mut RequestBody) {
    body.required = Some(Required::False);
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &mut content.schema
        {
            content.schema =
                either.items.iter().find(|part| matches!(part, RefOr::Ref(_))).cloned();
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    let operations = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::PATCH, patch),
        (Method::DELETE, delete),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn name_parameter(name: &str) -> Parameter {
    let any = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let (description, schema) = match name {
        "event_type_name" => ("Its name.", reference(&EventTypeName::name())),
        "attempt_id" => ("The id of the attempt.", reference(&Name::name())),
        "environment_id" => ("Any text: there is one environment.", any().into()),
        "key_id" => ("The id of the key.", reference(&Name::name())),
        "consumer_id" => ("A name that the reader chose.", reference(&Name::name())),
        "sink_id" => ("The id or uid of the poller.", reference(&Name::name())),
        "task_id" => ("The id of the task.", reference(&Name::name())),
        "app_id" => ("The id or uid of the application.", reference(&Name::name())),
        "endpoint_id" => ("The id or uid of the endpoint.", reference(&Name::name())),
        _ => ("The id or eventId of the message.", reference(&Name::name())),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn idempotency_key() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[\\t -~]{1,256}$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A text of the caller's own. A request that has the key of an earlier one does nothing, and \
             gets the answer of the earlier one.",
        ))
        .schema(Some(text))
        .build()
}

fn add_errors(method: &Method, operation: &mut Operation) {
    let has = |place: ParameterIn| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.parameter_in == place,
            RefOr::Ref(_) => false,
        })
    };
    let (has_query, has_names) = (has(ParameterIn::Query), has(ParameterIn::Path));
    let has_body = operation.request_body.is_some();
    // An operation with security of its own has none.
    let is_public = operation.security.is_some();
    let (is_post, is_change) = (method == Method::POST, method != Method::GET);
    for (status, name, _) in ERRORS {
        let can_be = match status {
            BAD_REQUEST => has_query || is_post,
            NOT_FOUND => has_names,
            CONFLICT => is_change,
            TOO_LARGE | TOO_SLOW => has_body || is_post,
            INVALID => has_body,
            _ => !is_public,
        };
        let (status, responses) = (status.to_string(), &mut operation.responses.responses);
        // An operation may name further ones by the status alone.
        if can_be || responses.contains_key(&status) {
            responses.insert(status, RefOr::Ref(Ref::from_response_name(name)));
        }
    }
}

/// Describes the statuses that need no words of their own.
fn describe(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let description = match status.as_str() {
                "201" => "It was made.",
                "202" => "It was accepted, and goes on after the answer.",
                "204" => "It was done.",
                _ => "The answer.",
            };
            description.clone_into(&mut response.description);
        }
    }
}

fn error(status: u16, description: &str) -> Response {
    let body = if status == INVALID { FieldErrors::name() } else { PlainError::name() };
    let content = ContentBuilder::new().schema(Some(reference(&body))).build();
    let response =
        ResponseBuilder::new().description(description).content("application/json", content);
    let header = |text: &str| {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build()
    };
    match status {
        UNAUTHORIZED => response.header("WWW-Authenticate", header("`Bearer`.")),
        TOO_MANY | UNAVAILABLE => response.header("Retry-After", header("Seconds to wait.")),
        _ => response,
    }
    .build()
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}
