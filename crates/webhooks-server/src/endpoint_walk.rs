//! All endpoints of all applications.

use std::sync::Arc;

use webhooks_admin::IdKind;
use webhooks_registry::store::PagePlace;
use webhooks_registry::{EndpointQuery, EndpointStoreError, Registration};

use crate::service::Service;

/// The endpoints of a page.
const STEP: usize = 1_000;

/// The pages that one walk reads: it passes over the endpoints behind them.
const MAX_PAGES: usize = 200;

/// A walk over all endpoints, page by page, in the order of their applications. It reads 200,000 at most.
pub(crate) struct EndpointWalk {
    query: Option<EndpointQuery>,
    pages: usize,
}

impl EndpointWalk {
    pub(crate) fn new() -> Self {
        let query = EndpointQuery { limit: STEP, ..EndpointQuery::default() };
        Self { query: Some(query), pages: 0 }
    }

    /// Returns the endpoints of the next page; `None` after the last.
    pub(crate) async fn next(
        &mut self,
        service: &Service,
    ) -> Result<Option<Vec<Arc<Registration>>>, EndpointStoreError> {
        let Some(query) = self.query.take().filter(|_| self.pages < MAX_PAGES) else {
            return Ok(None);
        };
        let page = service.engine().endpoints().list(query.clone()).await?;
        self.pages += 1;
        let place = page.next.map(PagePlace::After);
        self.query = place.map(|place| EndpointQuery { place: Some(place), ..query });
        // The service may have endpoints of its own under other tenants.
        let is_of_application = |found: &Arc<Registration>| {
            IdKind::Application.number(found.endpoint.tenant.as_str()).is_ok()
        };
        Ok(Some(page.items.into_iter().filter(is_of_application).collect()))
    }
}
