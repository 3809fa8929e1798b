// The README's examples need these features.
#![cfg_attr(all(feature = "axum", feature = "sqlite"), doc = include_str!("../README.md"))]
#![cfg_attr(
    not(all(feature = "axum", feature = "sqlite")),
    doc = "Send and receive webhooks: what an application needs, by features. See the README."
)]
#![no_std]

// The public interface is: what an application uses here, and each crate as a module.
#[doc(inline)]
pub use webhooks_core::{
    Channel, DeliveryId, DeliveryResult, DeliveryStatus, EndpointId, Event, EventError, EventId,
    EventType, Payload, RetryPolicy, Tag, TenantId, Timestamp,
};

#[cfg(all(feature = "direct", feature = "tracing"))]
#[doc(inline)]
pub use webhooks_dispatch::LogObserver;
#[cfg(feature = "direct")]
#[doc(inline)]
pub use webhooks_dispatch::{
    BoxedStore, BreakerSettings, Conflict, Dispatcher, Endpoints, Engine, EngineSettings,
    FnTransport, Jobs, MemoryStore, OperationError, Publication, PublishError, PublishStatus,
    Published, Replay, Replaying, ShutdownReport, Store, StoreError, Undelivered, Worker,
};
#[cfg(feature = "direct")]
#[doc(inline)]
pub use webhooks_http::{AddressPolicy, HttpTransport, Proxy, Roots};
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use webhooks_postgres::{PostgresOptions, PostgresStore, publish_in};
#[cfg(feature = "direct")]
#[doc(inline)]
pub use webhooks_registry::{
    BodyFormat, Endpoint, EndpointLimits, EndpointQuery, EndpointState, EndpointStoreError,
    EndpointUrl, EndpointView, HeaderProfile, RateLimit, Registered, Registration, Registry,
    Secret, Subscription,
};
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use webhooks_sqlite::{SqliteOptions, SqliteStore};

// Each crate whole: its errors, its ports, and all that fewer applications need.
pub use webhooks_core as types;
#[cfg(feature = "direct")]
pub use webhooks_dispatch as dispatch;
#[cfg(feature = "direct")]
pub use webhooks_http as http;
#[cfg(feature = "postgres")]
pub use webhooks_postgres as postgres;
#[cfg(feature = "receive")]
pub use webhooks_receive as receive;
#[cfg(feature = "direct")]
pub use webhooks_registry as registry;
pub use webhooks_sign as sign;
#[cfg(feature = "sqlite")]
pub use webhooks_sqlite as sqlite;
