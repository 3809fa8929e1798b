//! The output of a command: data on standard output, all else on standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use anstream::{ColorChoice, stderr, stdout};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Failure, not_a_service};
use crate::global::{Color, Global};
use crate::table::{Column, Table};
use crate::visible::{visible_json, visible_lines};

/// The style of headings.
const HEADING: Style = Style::new().bold();

/// The form of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A JSON object on each line, as `--json` asks for.
    Json,
    /// A table for people at a terminal.
    Table,
    /// A line with tabs for each row, for other programs.
    Tabs,
}

/// The way in which a command prints.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Output {
    form: Form,
    is_quiet: bool,
    /// Whether a terminal gets the data.
    is_terminal: bool,
    /// Whether people read the messages: then hints and progress are shown.
    pub(crate) is_watched: bool,
    /// Whether the terminal can take a line away.
    redraws: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        // Otherwise anstream decides, by NO_COLOR, CLICOLOR, TERM and whether it is a terminal.
        match global.color {
            Color::Always => ColorChoice::Always.write_global(),
            Color::Never => ColorChoice::Never.write_global(),
            Color::Auto => {}
        }
        let is_terminal = io::stdout().is_terminal();
        let form = match (global.json, is_terminal) {
            (true, _) => Form::Json,
            (false, true) => Form::Table,
            (false, false) => Form::Tabs,
        };
        Self {
            form,
            is_quiet: global.quiet,
            is_terminal,
            is_watched: io::stderr().is_terminal() && !global.quiet,
            redraws: std::env::var_os("TERM").is_none_or(|name| name != "dumb"),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.form == Form::Json
    }

    /// Prints a line of data.
    pub(crate) fn line(self, text: impl AsRef<str>) -> io::Result<()> {
        self.headed_line(Style::new(), "", text)
    }

    /// Prints a line of data with a styled text before it.
    pub(crate) fn headed_line(
        self,
        style: Style,
        head: &str,
        text: impl AsRef<str>,
    ) -> io::Result<()> {
        let text = self.for_reader(text.as_ref());
        writeln!(stdout(), "{style}{head}{style:#}{text}")
    }

    /// Prints a text as it is, with a line break after it for people alone.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.for_reader(text).as_bytes())?;
        if self.form == Form::Table { writeln!(out) } else { out.flush() }
    }

    /// Prints bytes as they are.
    #[expect(clippy::unused_self, reason = "all data is printed in one way")]
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Prints one object as a line of JSON.
    #[expect(clippy::unused_self, reason = "all data is printed in one way")]
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        writeln!(stdout(), "{}", visible_json(serde_json::to_string(value)?))
    }

    /// Returns a text as its reader may have it: programs get it unchanged, and a terminal gets nothing that it obeys.
    fn for_reader(self, text: &str) -> Cow<'_, str> {
        match self.form {
            _ if !self.is_terminal => text.into(),
            Form::Json => visible_json(text.to_owned()).into(),
            Form::Table | Form::Tabs => visible_lines(text).into(),
        }
    }

    /// Prints rows: each as an object on its line for `--json`, as an aligned table on a terminal, and with
    /// tabs and without headings otherwise.
    pub(crate) fn rows(self, columns: &[Column], rows: &[Value]) -> io::Result<()> {
        let table = Table::new(columns, rows);
        match self.form {
            Form::Json => rows.iter().try_for_each(|row| self.json(row)),
            Form::Table => table.print(&mut stdout(), HEADING),
            Form::Tabs => table.print_rows(&mut stdout(), "\t"),
        }
    }

    /// Prints a row of a list that has no end, at once: without a heading, and aligned with nothing.
    pub(crate) fn row(self, columns: &[Column], row: &Value) -> io::Result<()> {
        let between = match self.form {
            Form::Json => return self.json(row),
            Form::Table => "  ",
            Form::Tabs => "\t",
        };
        Table::new(columns, std::slice::from_ref(row)).print_rows(&mut stdout(), between)
    }

    /// Says that an action was done that has no other answer: as an object for `--json`, to people otherwise.
    pub(crate) fn done(self, id: &str, done: &str, text: impl AsRef<str>) -> io::Result<()> {
        if self.is_json() {
            return self.json(&json!({ "id": id, "done": done }));
        }
        self.note(text);
        Ok(())
    }

    /// Prints one thing: as an object for `--json`, with a line for each field otherwise. An answer without
    /// the first column is none of the API: it must not pass for a success.
    pub(crate) fn thing(self, columns: &[Column], thing: &Value) -> Result<(), Failure> {
        if columns.first().is_none_or(|column| thing.pointer(column.1).is_none()) {
            return Err(not_a_service("the server answered without what was asked for"));
        }
        if self.is_json() {
            return Ok(self.json(thing)?);
        }
        Ok(Table::new(columns, std::slice::from_ref(thing)).print_fields(&mut stdout())?)
    }

    /// Tells people something beside the data.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.is_quiet {
            // Nobody reads the messages if this fails.
            let _unread = writeln!(stderr(), "{}", visible_lines(text.as_ref()));
        }
    }

    /// Asks a question, whose answer follows on the same line.
    #[expect(clippy::unused_self, reason = "all questions are asked in one way")]
    pub(crate) fn ask(self, question: impl AsRef<str>) {
        let _unread = write!(stderr(), "{} ", visible_lines(question.as_ref()));
    }

    /// Shows progress in place of the progress before, to people at a terminal.
    pub(crate) fn progress(self, text: impl AsRef<str>) {
        if self.is_watched && self.redraws {
            // Without anstream, which takes away all sequences where colour is off.
            let _unread = write!(io::stderr(), "\r\x1b[2K{}", visible_lines(text.as_ref()));
        }
    }

    /// Takes the progress away.
    pub(crate) fn end_progress(self) {
        self.progress("");
    }

    /// Suggests the next command, to people at a terminal.
    pub(crate) fn hint(self, text: impl AsRef<str>) {
        if self.is_watched {
            let style = Style::new().dimmed();
            let _unread = writeln!(stderr(), "{style}{}{style:#}", visible_lines(text.as_ref()));
        }
    }

    /// Warns, also if only errors are to be printed.
    pub(crate) fn warn(text: impl AsRef<str>) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        let _unread =
            writeln!(stderr(), "{style}warning:{style:#} {}", visible_lines(text.as_ref()));
    }

    /// Prints why the command failed, unless people were told already: an object for programs.
    pub(crate) fn failure(failure: &Failure, is_json: bool) {
        if is_json {
            let _unread = writeln!(stderr(), "{}", failure.json());
        } else if !failure.is_told() {
            let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            let text = failure.to_string();
            let _unread = writeln!(stderr(), "{style}error:{style:#} {}", visible_lines(&text));
        }
    }
}
