//! Tables of JSON objects.

use std::io::{self, Write};

use anstyle::Style;
use serde_json::Value;

use crate::visible::visible;

/// A column: its heading, and the JSON pointer of its value in a row (RFC 6901).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column(pub(crate) &'static str, pub(crate) &'static str);

/// The texts of a table.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[Column], rows: &[Value]) -> Self {
        let cells = |row| columns.iter().map(|column| cell(row, column.1)).collect();
        Self {
            headings: columns.iter().map(|column| column.0).collect(),
            rows: rows.iter().map(cells).collect(),
        }
    }

    /// Prints the table with aligned columns. The last one is never padded.
    pub(crate) fn print(&self, out: &mut impl Write, heading: Style) -> io::Result<()> {
        let widths: Vec<usize> = (self.headings.iter().enumerate())
            .map(|(index, text)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells.map(|cell| width(cell)).chain([width(text)]).max().unwrap_or(0)
            })
            .collect();
        let headings: Vec<String> = self.headings.iter().map(|&text| text.to_owned()).collect();
        writeln!(out, "{heading}{}{heading:#}", aligned(&headings, &widths))?;
        self.rows.iter().try_for_each(|row| writeln!(out, "{}", aligned(row, &widths)))
    }

    /// Prints the rows alone, with a text such as a tab between the cells.
    pub(crate) fn print_rows(&self, out: &mut impl Write, between: &str) -> io::Result<()> {
        self.rows.iter().try_for_each(|row| writeln!(out, "{}", row.join(between)))
    }

    /// Prints a line for each cell that has a value.
    pub(crate) fn print_fields(&self, out: &mut impl Write) -> io::Result<()> {
        let longest = self.headings.iter().map(|text| width(text)).max().unwrap_or(0);
        for row in &self.rows {
            for (heading, cell) in self.headings.iter().zip(row).filter(|(_, cell)| *cell != "-") {
                writeln!(out, "{:longest$}  {cell}", heading.to_lowercase())?;
            }
        }
        Ok(())
    }
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, &wide) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell)) + 2));
    }
    line.truncate(line.trim_end().len());
    line
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Returns the text of a value for people. Control characters, which a stranger may have stored, do not reach the
/// terminal.
fn cell(row: &Value, pointer: &str) -> String {
    let text = match row.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(Value::Object(fields)) if fields.is_empty() => "-".to_owned(),
        // The word of queries: an attempt that got no response has the code 0.
        Some(code) if pointer == "/responseStatusCode" && *code == 0 => "none".to_owned(),
        Some(value) => value.to_string(),
    };
    visible(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: [Column; 2] = [Column("ID", "/id"), Column("TYPES", "/types")];

    fn printed(print: impl Fn(&Table, &mut Vec<u8>) -> io::Result<()>, rows: &[Value]) -> String {
        let mut out = Vec::new();
        print(&Table::new(&COLUMNS, rows), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn print_tabs(table: &Table, out: &mut Vec<u8>) -> io::Result<()> {
        table.print_rows(out, "\t")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [json!({"id": "ep_1", "types": ["a", "b"]}), json!({"id": "ü"})];
        let text = printed(|table, out| table.print(out, Style::new()), &rows);
        assert_eq!(text, "ID    TYPES\nep_1  a,b\nü     -\n");
    }

    #[test]
    fn cells_have_tabs_between_them_for_programs() {
        assert_eq!(printed(print_tabs, &[json!({"id": "a", "types": []})]), "a\t-\n");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        assert_eq!(printed(Table::print_fields, &[json!({"id": "a", "types": ""})]), "id     a\n");
    }

    #[test]
    fn a_code_of_no_response_is_a_word() {
        let code = |code: i32| cell(&json!({ "responseStatusCode": code }), "/responseStatusCode");
        assert_eq!((code(0), code(503)), ("none".to_owned(), "503".to_owned()));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = printed(print_tabs, &[json!({"id": "a\u{1b}[2J\tb\n"})]);
        assert_eq!(text, "a\u{fffd}[2J\u{fffd}b\u{fffd}\t-\n");
    }
}
