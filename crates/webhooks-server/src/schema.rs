//! The schemas of texts and maps that several fields of the API have in common.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};
use utoipa::openapi::{KnownFormat, Object, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// Declares types that stand for a schema in the document. The code checks the same limits where it parses
/// the value.
macro_rules! schemas {
    ($($name:ident, $description:literal, $schema:expr;)+) => {$(
        #[doc = $description]
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let schema: ObjectBuilder = $schema;
                schema.description(Some($description)).build().into()
            }
        }

        impl ToSchema for $name {}
    )+

        /// Returns all of them, with their names. Parameters refer to them, and a route brings along the schemas
        /// of its bodies alone.
        pub(crate) fn all() -> Vec<(String, RefOr<Schema>)> {
            vec![$(($name::name().into_owned(), $name::schema()),)+]
        }
    };
}

schemas! {
    Empty, "An object without fields.", ObjectBuilder::new();
    Enforcement, "The treatment of a message that does not match the schema: it is published (`off`), it is \
                  published and counted (`warn`), or it is refused (`refuse`).",
        words(&["off", "warn", "refuse"]);
    EventTypeName, "The name of an event type: parts that are joined by single dots.",
        text(128, r"^[a-zA-Z0-9_\-]+(\.[a-zA-Z0-9_\-]+)*$");
    Headers, "Headers: values by name. At most 32.",
        map(ObjectBuilder::new().schema_type(Type::String).max_length(Some(4096)))
            .max_properties(Some(32));
    HealthState, "Whether deliveries are sent to an endpoint.",
        words(&["sending", "probing", "held", "paused", "disabled"]);
    HoldReason, "The reason why deliveries are not sent to an endpoint.",
        words(&["failures", "pause", "rateLimit", "failing", "gone", "manual"]);
    Label, "A channel or a tag.", text(128, r"^[a-zA-Z0-9_.:\-]+$");
    Metadata, "Notes for programs: texts by name, of 16 KiB together at most.",
        map(ObjectBuilder::new().schema_type(Type::String)).max_properties(Some(64));
    Name, "An id, or a name that its owner gave.", text(256, r"^[a-zA-Z0-9\-_.]+$");
    Ordering, "The order of a list.", words(&["ascending", "descending"]);
    Pattern, "An event type, or all below one: `user.created`, `user.*`, `*`.", text(130, "");
    Period, "The length of a step of time.", words(&["OneDay", "OneHour", "FiveMinutes"]);
    RateLimitWord, "Whether deliveries wait for a rate limit.", words(&["Ok", "RateLimited"]);
    Position, "The first message, or what is accepted from now on.", words(&["earliest", "latest"]);
    RoleName, "The role of a key.", words(&["admin", "operator", "viewer", "publisher", "poller", "customer"]);
    Schemas, "JSON Schemas by version, of 512 KiB together at most.", map(ObjectBuilder::new());
    SecretText, "A secret: `whsec_` and 24 to 64 bytes in base64. The prefix may be left out.",
        text(4096, "");
    StatusNumber, "The number of a status: 0 success, 1 pending, 2 fail, 3 sending, 4 canceled.",
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(4));
    StatusText, "The word for a status.",
        words(&["success", "pending", "fail", "sending", "canceled"]);
    TaskStatus, "The state of a task.", words(&["running", "finished", "failed"]);
    Time, "A time of RFC 3339, from 1970 to 9999.", ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Url, "The URL that deliveries go to: `https`, or `http` where the service allows it.",
        text(2048, "").format(Some(SchemaFormat::Custom("uri".to_owned())));
}

/// Returns the schema of a text of 1 to `max_length` characters.
fn text(max_length: usize, pattern: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let text = text.min_length(Some(1)).max_length(Some(max_length));
    text.pattern(Some(pattern).filter(|pattern| !pattern.is_empty()))
}

fn words(words: &'static [&'static str]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied()))
}

/// Returns the schema of an object whose values have a schema.
fn map(values: ObjectBuilder) -> ObjectBuilder {
    let values: Object = values.build();
    ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(values.into()))))
}
