//! Endpoints, read from their rows when the store is opened. A row that cannot be read hurts only
//! itself.

use std::sync::Arc;

use rusqlite::{Row, params};
use webhooks_core::{EndpointId, TenantId};
use webhooks_dispatch::StoreError;
use webhooks_registry::{Endpoint, Registration, SealError, StoredEndpoint};

use crate::OpenError;
use crate::error::UnreadableEndpoint;
use crate::row;
use crate::store::Shared;
use crate::tables::{Tables, reason};

/// Stands for signing secrets that are not known. Nothing is ever signed with it.
const NO_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// An endpoint's row, as far as it can be read.
struct EndpointRow {
    number: i64,
    id: String,
    settings: String,
    sealed: Vec<u8>,
    is_active: bool,
    disabled: Option<String>,
    blocked_until: i64,
}

/// An endpoint whose row cannot be read: it gets nothing until it is registered anew, or the store
/// is opened with the right key.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// As much of it as is known, inactive and with a secret that is none.
    known: Option<Registration>,
    /// Whose it is, if that is known.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) is_active: bool,
    pub(crate) why: String,
}

impl Unreadable {
    fn new(id: &EndpointId, row: &EndpointRow, why: String) -> Self {
        let secrets = format!(r#"[{{"text":"{NO_SECRET}","expires_at":null}}]"#);
        let secrets = secrets.into_bytes().into();
        let stored = StoredEndpoint { settings: row.settings.clone(), secrets };
        let known = stored.to_endpoint().ok();
        let tenant = known.as_ref().map(|endpoint| endpoint.tenant.clone());
        let known = known.or_else(|| Endpoint::new("https://unreadable.invalid/", NO_SECRET).ok());
        let known = known.map(|endpoint| Registration::new(id.clone(), endpoint.inactive()));
        Self { known, tenant, is_active: row.is_active, why }
    }

    /// Returns what is known of it, to say what was unregistered.
    pub(crate) fn known(self) -> Option<Arc<Registration>> {
        self.known.map(Arc::new)
    }
}

impl EndpointRow {
    /// Reads a row. Columns that hold what they should not are found out later, as what they say.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes = |column: usize| -> rusqlite::Result<Vec<u8>> {
            let found = row.get_ref(column)?.as_bytes_or_null();
            Ok(found.ok().flatten().unwrap_or_default().to_vec())
        };
        Ok(Self {
            number: row.get(0)?,
            id: row.get(1)?,
            settings: String::from_utf8_lossy(&bytes(2)?).into_owned(),
            sealed: bytes(3)?,
            is_active: row.get(4).unwrap_or_default(),
            disabled: row.get(5).unwrap_or_default(),
            blocked_until: row.get(6).unwrap_or_default(),
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
            let secrets = self.keys.open(&row.id, &row.sealed);
            let stored = match secrets {
                Ok(secrets) => {
                    opened += 1;
                    StoredEndpoint { settings: row.settings.clone(), secrets }
                }
                Err(source) => {
                    self.pass_over(shared, &row, source.to_string());
                    wrong_key.get_or_insert((row.id, source));
                    continue;
                }
            };
            match stored.to_endpoint() {
                Ok(endpoint) => self.open(shared, &row, endpoint).map_err(failed)?,
                Err(why) => {
                    self.pass_over(shared, &row, why.to_string());
                    continue;
                }
            }
            if !self.keys.is_current(&row.id, &row.sealed) {
                to_seal.push((row.number, row.id, stored.secrets));
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
            SELECT number, id, settings, secrets, active, disabled, blocked_until
            FROM endpoints WHERE is_current = 1 ORDER BY number";
        let mut statement = self.connection().prepare(ENDPOINTS)?;
        let mut rows = statement.query(())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            match EndpointRow::read(row) {
                Ok(row) => found.push(row),
                Err(error) => {
                    let id: String = row.get(1).unwrap_or_default();
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
        let Ok(id) = EndpointId::new(&row.id) else {
            tell(shared, row.id.clone(), "its id is none".to_owned());
            return Ok(());
        };
        let mut registration = Registration::new(id.clone(), endpoint);
        registration.disabled = row.disabled.as_deref().map(reason);
        // Ids are unique among current rows, and bounds were checked by `to_endpoint`.
        let _none = shared.registry.restore(registration);
        if let Some(registration) = shared.registry.get(id.as_str()) {
            let first = self.first_place(row.number)?;
            shared.backlog().open(&registration, first, row::time(row.blocked_until));
        }
        self.set_number(&id, row.number);
        Ok(())
    }

    /// Leaves an endpoint's row as it is, with what waits for it.
    fn pass_over(&mut self, shared: &Shared, row: &EndpointRow, why: String) {
        if let Ok(id) = EndpointId::new(&row.id) {
            self.set_number(&id, row.number);
            let unreadable = Unreadable::new(&id, row, why.clone());
            shared.unreadable().insert(id, unreadable);
        }
        tell(shared, row.id.clone(), why);
    }
}

fn tell(shared: &Shared, endpoint: String, why: String) {
    let source = UnreadableEndpoint { endpoint, why };
    shared.troubles.add(StoreError::Corrupt { source: source.into() });
}
