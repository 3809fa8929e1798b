//! Endpoints, read from their rows when the store is opened. A row that cannot be read hurts only
//! itself.

use std::sync::Arc;

use rusqlite::{Row, params};
use webhooks_core::{EndpointId, TenantId};
use webhooks_dispatch::store::StoreError;
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointState, Registration, seal::SealError, store::StoredEndpoint,
};

use crate::OpenError;
use crate::error::{BadRow, UnreadableEndpoint};
use crate::row;
use crate::store::Shared;
use crate::tables::Tables;

/// Stands for signing secrets that are not known. Nothing is ever signed with it.
const NO_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// An endpoint's row, as far as it can be read.
struct EndpointRow {
    number: i64,
    key: EndpointKey,
    settings: String,
    sealed: Vec<u8>,
    state: EndpointState,
    blocked_until: i64,
}

/// An endpoint whose row cannot be read: it gets nothing until it is registered anew, or the store
/// is opened with the right key.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// As much of it as is known, with a secret that is none.
    pub(crate) known: Arc<Registration>,
    pub(crate) why: String,
}

impl Unreadable {
    fn new(row: &EndpointRow, why: String) -> Option<Self> {
        let secrets = format!(r#"[{{"text":"{NO_SECRET}","expires_at":null}}]"#);
        let secrets = secrets.into_bytes().into();
        let stored = StoredEndpoint { settings: row.settings.clone(), secrets };
        let known = stored.to_endpoint().ok();
        let known = known.or_else(|| Endpoint::new("https://unreadable.invalid/", NO_SECRET).ok());
        let endpoint = known?.tenant(row.key.tenant.clone());
        let number = row::endpoint_number(row.number);
        let known = Registration::new(number, row.key.id.clone(), endpoint).in_state(row.state);
        Some(Self { known: Arc::new(known), why })
    }
}

impl EndpointRow {
    /// Reads a row. Columns that hold what they should not are found out later, as what they say.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes = |column: usize| -> rusqlite::Result<Vec<u8>> {
            let found = row.get_ref(column)?.as_bytes_or_null();
            Ok(found.ok().flatten().unwrap_or_default().to_vec())
        };
        let text = |column: usize| -> rusqlite::Result<String> { row.get(column) };
        let id = EndpointId::new(&text(2)?);
        let id = id.map_err(|_why| BadRow::of("the id of an endpoint").in_column(2))?;
        let tenant = TenantId::new(&text(1)?);
        let tenant = tenant.map_err(|_why| BadRow::of("the tenant of an endpoint").in_column(1))?;
        let disabled: Option<String> = row.get(6).unwrap_or_default();
        Ok(Self {
            number: row.get(0)?,
            key: EndpointKey::new(tenant, id),
            settings: String::from_utf8_lossy(&bytes(3)?).into_owned(),
            sealed: bytes(4)?,
            state: EndpointState::from_words(&text(5)?, disabled.as_deref()),
            blocked_until: row.get(7).unwrap_or_default(),
        })
    }
}

impl Tables {
    /// Reads the endpoints into memory, and seals secrets anew where that is due.
    pub(crate) fn load_endpoints(&mut self, shared: &Shared) -> Result<(), OpenError> {
        let failed = |source| OpenError::Sqlite { path: shared.path.clone(), source };
        let (mut opened, mut wrong_key) = (0, None);
        let mut to_seal = Vec::new();
        for row in self.endpoint_rows(shared).map_err(failed)? {
            let key = row.key.to_string();
            let stored = match self.keys.open(&key, &row.sealed) {
                Ok(secrets) => {
                    opened += 1;
                    StoredEndpoint { settings: row.settings.clone(), secrets }
                }
                Err(source) => {
                    pass_over(shared, &row, source.to_string());
                    wrong_key.get_or_insert_with(|| (row.key.id.to_string(), source));
                    continue;
                }
            };
            match stored.to_endpoint() {
                Ok(endpoint) => self.open(shared, &row, endpoint).map_err(failed)?,
                Err(why) => {
                    pass_over(shared, &row, why.to_string());
                    continue;
                }
            }
            if !self.keys.is_current(&key, &row.sealed) {
                to_seal.push((row.number, key, stored.secrets));
            }
        }
        // A missing key, or one that opens nothing, is a mistake in the configuration: events would
        // be accepted for nobody.
        if let Some((endpoint, source)) = wrong_key
            && (opened == 0 || source == SealError::NoKey)
        {
            return Err(OpenError::Seal { path: shared.path.clone(), endpoint, source });
        }
        if to_seal.is_empty() {
            return Ok(());
        }
        self.begin().map_err(failed)?;
        for (number, endpoint, secrets) in to_seal {
            let update = "UPDATE endpoints SET secrets = ? WHERE number = ?";
            let sealed = self.keys.seal(&endpoint, &secrets).map_err(|source| OpenError::Seal {
                path: shared.path.clone(),
                endpoint,
                source,
            })?;
            self.execute(update, params![sealed, number]).map_err(failed)?;
        }
        self.commit().map_err(failed)
    }

    fn endpoint_rows(&self, shared: &Shared) -> rusqlite::Result<Vec<EndpointRow>> {
        const ENDPOINTS: &str = "
            SELECT number, tenant, id, settings, secrets, state, disabled, blocked_until
            FROM endpoints WHERE is_current = 1 ORDER BY number";
        let mut statement = self.connection().prepare(ENDPOINTS)?;
        let mut rows = statement.query(())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            match EndpointRow::read(row) {
                Ok(row) => found.push(row),
                Err(error) => {
                    let id: String = row.get(2).unwrap_or_default();
                    tell(shared, id, error.to_string());
                }
            }
        }
        Ok(found)
    }

    fn open(
        &mut self,
        shared: &Shared,
        row: &EndpointRow,
        endpoint: Endpoint,
    ) -> rusqlite::Result<()> {
        let number = row::endpoint_number(row.number);
        let registration = Registration::new(number, row.key.id.clone(), endpoint);
        // Ids are unique among current rows, and bounds were checked by `to_endpoint`.
        let _none = shared.registry.restore(registration.in_state(row.state));
        if let Some(registration) = shared.registry.get_of(&row.key) {
            let first = self.first_place(number)?;
            let mut backlog = shared.backlog();
            backlog.open(&registration, first, row::time(row.blocked_until));
            backlog.set_failing(number, self.failing.contains_key(&number));
        }
        Ok(())
    }
}

/// Leaves an endpoint's row as it is, with what waits for it.
fn pass_over(shared: &Shared, row: &EndpointRow, why: String) {
    if let Some(unreadable) = Unreadable::new(row, why.clone()) {
        shared.unreadable().insert(row.key.clone(), unreadable);
    }
    tell(shared, row.key.id.to_string(), why);
}

fn tell(shared: &Shared, endpoint: String, why: String) {
    let source = UnreadableEndpoint { endpoint, why };
    shared.troubles.add(StoreError::Corrupt { source: source.into() });
}
