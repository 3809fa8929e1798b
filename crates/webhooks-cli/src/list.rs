//! Lists.

use clap::Args;
use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Column;

/// The options of a list.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ListOptions {
    /// Most rows to print
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) limit: usize,
}

impl ListOptions {
    /// Prints a list of the API.
    pub(crate) async fn run(
        self,
        client: &Client,
        output: Output,
        path: &[&str],
        query: &[(&str, String)],
        columns: &[Column],
    ) -> Result<(), Failure> {
        let rows = client.list(path, query, self.wanted()).await?;
        self.print(output, columns, rows)
    }

    /// Returns how many rows to read: one more than are printed shows whether there are more.
    pub(crate) fn wanted(self) -> usize {
        self.limit.saturating_add(1)
    }

    /// Prints as many rows as are wanted, and says whether there are more.
    pub(crate) fn print(
        self,
        output: Output,
        columns: &[Column],
        mut rows: Vec<Value>,
    ) -> Result<(), Failure> {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        output.rows(columns, &rows)?;
        if has_more {
            output.note(format!("there are more: --limit {}", self.limit.saturating_mul(10)));
        }
        Ok(())
    }
}
