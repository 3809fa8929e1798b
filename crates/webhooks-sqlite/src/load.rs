//! Reading endpoints into memory when the store is opened. A row that cannot be read makes only its own
//! endpoint inactive.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use webhooks_core::{EndpointId, TenantId};
use webhooks_dispatch::store::StoreError;
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointState, Registration, Revision, seal::SealError,
    store::StoredEndpoint,
};

use crate::OpenError;
use crate::error::{BadRow, UnreadableEndpoint};
use crate::inner::{SqliteInner, Unreadable};
use crate::row;
use crate::write_connection::WriteConnection;

/// A placeholder for signing secrets that are not known. Nothing is ever signed with it.
const NO_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// The readable parts of an endpoint's row.
struct EndpointRow {
    number: i64,
    key: EndpointKey,
    settings: String,
    sealed: Vec<u8>,
    state: EndpointState,
    blocked_until: i64,
    revision: Revision,
}

impl EndpointRow {
    /// Reads a row. Wrong values of most columns become errors later, when they are decrypted or parsed;
    /// the endpoint is then known by its id.
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
            revision: Revision {
                version: row::unsigned(row.get(8).unwrap_or_default()),
                created_at: row::time(row.get(9).unwrap_or_default()),
                updated_at: row::time(row.get(10).unwrap_or_default()),
                state_since: row::time(row.get(11).unwrap_or_default()),
            },
        })
    }
}

/// Reads the endpoints into memory, and encrypts secrets anew that the first key did not encrypt.
pub(crate) fn endpoints(
    connection: &mut WriteConnection,
    inner: &SqliteInner,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: inner.path.clone(), source };
    let (mut opened, mut wrong_key) = (0, None);
    let mut to_seal = Vec::new();
    for row in endpoint_rows(connection.sqlite(), inner).map_err(failed)? {
        let key = row.key.to_string();
        let stored = match connection.keys.open(&key, &row.sealed) {
            Ok(secrets) => {
                opened += 1;
                StoredEndpoint { settings: row.settings.clone(), secrets }
            }
            Err(source) => {
                pass_over(inner, &row, source.to_string());
                wrong_key.get_or_insert_with(|| (row.key.id.to_string(), source));
                continue;
            }
        };
        match stored.to_endpoint() {
            Ok(endpoint) => open(connection, inner, &row, endpoint).map_err(failed)?,
            Err(why) => {
                pass_over(inner, &row, why.to_string());
                continue;
            }
        }
        if !connection.keys.is_current(&key, &row.sealed) {
            to_seal.push((row.number, key, stored.secrets));
        }
    }
    // A missing key, or one that opens nothing, is a mistake in the configuration. If the store opened,
    // events would be accepted for nobody.
    if let Some((endpoint, source)) = wrong_key
        && (opened == 0 || source == SealError::NoKey)
    {
        return Err(OpenError::Seal { path: inner.path.clone(), endpoint, source });
    }
    if to_seal.is_empty() {
        return Ok(());
    }
    connection.begin().map_err(failed)?;
    for (number, endpoint, secrets) in to_seal {
        let update = "UPDATE endpoints SET secrets = ? WHERE number = ?";
        let sealed = connection
            .keys
            .seal(&endpoint, &secrets)
            .map_err(|source| OpenError::Seal { path: inner.path.clone(), endpoint, source })?;
        connection.execute(update, params![sealed, number]).map_err(failed)?;
    }
    connection.commit().map_err(failed)
}

fn endpoint_rows(
    connection: &Connection,
    inner: &SqliteInner,
) -> rusqlite::Result<Vec<EndpointRow>> {
    const ENDPOINTS: &str = "
        SELECT number, tenant, id, settings, secrets, state, disabled, blocked_until,
               version, created_at, updated_at, state_since
        FROM endpoints WHERE is_current = 1 ORDER BY number";
    let mut statement = connection.prepare(ENDPOINTS)?;
    let mut rows = statement.query(())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match EndpointRow::read(row) {
            Ok(row) => found.push(row),
            Err(error) => {
                let id: String = row.get(2).unwrap_or_default();
                report(inner, id, error.to_string());
            }
        }
    }
    Ok(found)
}

fn open(
    connection: &WriteConnection,
    inner: &SqliteInner,
    row: &EndpointRow,
    endpoint: Endpoint,
) -> rusqlite::Result<()> {
    let number = row::endpoint_number(row.number);
    let registration = Registration::new(number, row.key.id.clone(), endpoint);
    // Ids are unique among current rows, and bounds were checked by `to_endpoint`.
    let _none = inner.registry.restore(registration.restored(row.state, row.revision));
    if let Some(registration) = inner.registry.get_of(&row.key) {
        let first = connection.first_key(number)?;
        let mut backlog = inner.backlog();
        backlog.open(&registration, first, row::time(row.blocked_until));
        backlog.set_failing(number, connection.failing.contains_key(&number));
    }
    Ok(())
}

/// Leaves an endpoint's row as it is, with the deliveries that wait for it.
fn pass_over(inner: &SqliteInner, row: &EndpointRow, why: String) {
    if let Some(known) = known(row) {
        let unreadable = Unreadable { known: Arc::new(known), why: why.clone() };
        inner.unreadable().insert(row.key.clone(), unreadable);
    }
    report(inner, row.key.id.to_string(), why);
}

/// Returns as much of an endpoint as its row gives.
fn known(row: &EndpointRow) -> Option<Registration> {
    let secrets = format!(r#"[{{"text":"{NO_SECRET}","expires_at":null}}]"#);
    let secrets = secrets.into_bytes().into();
    let stored = StoredEndpoint { settings: row.settings.clone(), secrets };
    let known = stored.to_endpoint().ok();
    let known = known.or_else(|| Endpoint::new("https://unreadable.invalid/", NO_SECRET).ok());
    let endpoint = known?.tenant(row.key.tenant.clone());
    let number = row::endpoint_number(row.number);
    let known = Registration::new(number, row.key.id.clone(), endpoint);
    Some(known.restored(row.state, row.revision))
}

fn report(inner: &SqliteInner, endpoint: String, why: String) {
    let source = UnreadableEndpoint { endpoint, why };
    inner.deferred_errors.add(StoreError::Corrupt { source: source.into() });
}
