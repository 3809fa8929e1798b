//! The words of a service that is ready.

use sd_notify::NotifyState;
use serde_json::json;
use webhooks_admin::ApiKeyText;

use crate::context::Context;
use crate::failure::Failure;
use crate::log_options::LogOptions;
use crate::store::Database;

/// The facts about a service that is ready.
pub(super) struct Ready<'r> {
    pub(super) url: Option<&'r str>,
    pub(super) took: u128,
    pub(super) database: &'r Database,
    pub(super) is_new: bool,
    pub(super) key: Option<&'r ApiKeyText>,
}

pub(super) fn tell_ready(
    (context, log): (&Context, &LogOptions),
    ready: &Ready<'_>,
) -> Result<(), Failure> {
    // Nothing listens if systemd did not start it.
    let _not_systemd = sd_notify::notify(&[NotifyState::Ready]);
    let output = context.output;
    let Ready { url, took, database, is_new, key } = ready;
    if output.is_json() {
        let key = key.map(ApiKeyText::reveal);
        return Ok(output.json(
            &json!({ "url": url, "database": database.to_string(), "new": is_new, "key": key }),
        )?);
    }
    let at = url.map_or_else(|| "as a worker".to_owned(), |url| format!("at {url}"));
    let new = if *is_new { " (new)" } else { "" };
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "webhooks {version} is ready {at} after {took} ms, with {database}{new}; Ctrl-C ends it"
    );
    log.tell(output, &text);
    if let (Some(key), Some(url)) = (key, url) {
        log.tell(output, "the key of the administrator, shown this once:");
        output.line(key.reveal())?;
        if log.is_json() {
            return Ok(());
        }
        output.note(format!(
            "first steps, in another terminal:\n  export WEBHOOKS_SERVER={url} WEBHOOKS_KEY={}\n  webhooks app create 'Acme Inc' --uid acme\n  webhooks endpoint create https://example.com/hook\n  webhooks publish invoice.paid '{{\"invoice\": 17}}' --wait",
            "…the key above…"
        ));
    }
    Ok(())
}
