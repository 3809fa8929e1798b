//! The router of a service.

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::error::ApiError;
use crate::idempotent::answer_once;
use crate::openapi;
use crate::service::Service;
use crate::unoffered;

impl Service {
    /// Returns the routes of the API, all under `/api/v1/` except the reference page `/docs` and `/metrics`, after
    /// the base path of the settings, to be served or to be nested into an application's own. `/api/v1/openapi.json` describes them.
    ///
    /// Serve it with [`serve`](fn@crate::serve), or in another way with
    /// `into_make_service_with_connect_info::<SocketAddr>()`: the audit log has the addresses of callers, and
    /// keys that are refused are counted by them. Call it within a runtime: it also goes on with deletions
    /// and jobs that an earlier process began.
    pub fn router(&self) -> Router {
        // An earlier life may not have finished some.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.finish_deletions();
            self.follow_changes();
            self.follow_overrides();
            self.follow_content_ends();
            self.follow_jobs();
            self.start_telling();
        }
        let routes = Router::from(openapi::routes())
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .fallback(unoffered::answer)
            .layer(from_fn_with_state(self.clone(), answer_once))
            .with_state(self.clone());
        let base = &self.settings().base_path;
        if base.is_root() {
            return routes;
        }
        Router::new().nest(base.as_str(), routes).fallback(async || ApiError::unknown_path())
    }
}
