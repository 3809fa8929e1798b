//! Pages of lists.

use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::{ListPage, ListQuery};
use webhooks_dispatch::history::{Cursor, Page};
use webhooks_dispatch::store::StoreError;

use crate::error::{ApiError, no_page};
use crate::extract::Params;

pub(crate) const DEFAULT_LIMIT: usize = 50;
pub(crate) const MAX_LIMIT: usize = 250;

/// The mark of an iterator that leads back.
pub(crate) const BACK: &str = "prev:";

/// The number of pages of a store that one page of a filtered list looks at. Then it says that there is
/// more, and where to go on.
pub(crate) const MAX_PAGES: usize = 20;

/// A page in the form of the API.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    /// The entries of the page.
    data: Vec<T>,
    /// Whether no page follows.
    done: bool,
    /// The `iterator` of the next page; `null` if the page is empty.
    #[schema(required)]
    iterator: Option<String>,
    /// The `iterator` of the page before; `null` on the first page.
    #[schema(required)]
    prev_iterator: Option<String>,
}

impl<T> List<T> {
    /// Returns a page of records.
    pub(crate) fn new<E>(page: ListPage<E>, show: impl FnMut(E) -> T) -> Self {
        let ListPage { items, next, previous, is_last } = page;
        let data = items.into_iter().map(show).collect();
        Self { data, done: is_last, iterator: next, prev_iterator: previous }
    }

    /// Returns a page that can only be left forward.
    pub(crate) fn of(data: Vec<T>, next: Option<String>, is_last: bool) -> Self {
        Self { data, done: is_last, iterator: next, prev_iterator: None }
    }

    /// Returns a page of a list that has nothing.
    pub(crate) fn empty() -> Self {
        Self { data: Vec::new(), done: true, iterator: None, prev_iterator: None }
    }

    /// Returns the page with each entry replaced.
    pub(crate) fn with<U>(self, data: Vec<U>) -> List<U> {
        let Self { done, iterator, prev_iterator, .. } = self;
        List { data, done, iterator, prev_iterator }
    }

    /// Takes the entries out.
    pub(crate) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.data)
    }
}

/// The place of a page in a history.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) after: Option<Cursor>,
    pub(crate) before: Option<Cursor>,
    pub(crate) limit: usize,
}

/// Reads the size of a page.
pub(crate) fn limit(params: &Params) -> Result<usize, ApiError> {
    let limit = params.read("limit", "a number from 0 to 250")?.unwrap_or(DEFAULT_LIMIT);
    if limit <= MAX_LIMIT {
        return Ok(limit);
    }
    Err(ApiError::bad_request("limit: it must be a number from 0 to 250."))
}

/// Reads the page of a list of records.
pub(crate) fn list_query(params: &Params, is_descending: bool) -> Result<ListQuery, ApiError> {
    let is_descending = match params.text("order") {
        None => is_descending,
        Some("ascending") => false,
        Some("descending") => true,
        Some(_) => return Err(ApiError::bad_request("order: it must be ascending or descending.")),
    };
    let iterator = params.text("iterator").map(str::to_owned);
    Ok(ListQuery { limit: limit(params)?, iterator, is_descending })
}

/// Reads the page of a list of the history, which has the newest first.
pub(crate) fn place(params: &Params) -> Result<Place, ApiError> {
    place_of(params.text("iterator"), limit(params)?)
}

/// Reads the iterator of a page of the history.
pub(crate) fn place_of(iterator: Option<&str>, limit: usize) -> Result<Place, ApiError> {
    let Some(iterator) = iterator else { return Ok(Place { limit, ..Place::default() }) };
    let back = iterator.strip_prefix(BACK);
    let cursor = back.unwrap_or(iterator).parse();
    let cursor = cursor.map_err(|_unreadable| no_page())?;
    Ok(match back {
        Some(_) => Place { before: Some(cursor), after: None, limit },
        None => Place { after: Some(cursor), before: None, limit },
    })
}

/// Returns a page of those entries of a history that `keep` keeps. `read` reads a page at a place.
pub(crate) async fn filtered<T, F>(
    place: Place,
    read: impl Fn(Place) -> F,
    keep: impl Fn(&T) -> bool,
) -> Result<List<T>, ApiError>
where
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let back = |cursor: Cursor| format!("{BACK}{cursor}");
    if place.limit == 0 {
        let iterator = place.after.map(|cursor| cursor.to_string());
        return Ok(List { data: Vec::new(), done: false, iterator, prev_iterator: None });
    }
    let (mut place, wanted) = (place, place.limit);
    let is_first = place.after.is_none() && place.before.is_none();
    let is_back = place.before.is_some();
    let (mut data, mut previous) = (Vec::new(), None);
    for number in 0..MAX_PAGES {
        let page = read(place).await?;
        if number == 0 && !is_first {
            previous = page.previous;
        }
        let found = page.items.into_iter().filter(&keep);
        data.extend(found);
        place.after = page.next;
        place.before = None;
        if data.len() >= wanted || is_back || page.next.is_none() {
            break;
        }
        place.limit = wanted - data.len();
    }
    Ok(List {
        data,
        done: place.after.is_none(),
        iterator: place.after.map(|cursor| cursor.to_string()),
        prev_iterator: previous.map(back),
    })
}
