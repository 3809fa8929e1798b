//! The router of a service.

use axum::middleware::from_fn_with_state;
use axum::{Router, response::IntoResponse as _};

use crate::api;
use crate::error::ApiError;
use crate::idempotent::answer_once;
use crate::service::Service;

impl Service {
    /// Returns the routes of the API, all under `/api/v1/`, to be served or to be nested into an
    /// application's own.
    ///
    /// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that the audit log has the
    /// addresses of callers.
    pub fn router(&self) -> Router {
        api::routes()
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .fallback(async || ApiError::unknown("path").into_response())
            .layer(from_fn_with_state(self.clone(), answer_once))
            .with_state(self.clone())
    }
}
