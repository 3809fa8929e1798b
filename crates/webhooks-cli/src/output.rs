//! What a command prints: data on standard output, all else on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::{ColorChoice, stderr, stdout};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::Value;

use crate::global::{Color, Global};
use crate::table::{Column, Table};

/// The style of headings.
const HEADING: Style = Style::new().bold();

/// The form of a command's output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    is_quiet: bool,
    /// Whether people read the output: then tables are aligned.
    is_terminal: bool,
    /// Whether people read the messages: then hints and progress are shown.
    pub(crate) is_watched: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        // Otherwise anstream decides, by NO_COLOR, CLICOLOR, TERM and whether it is a terminal.
        match global.color {
            Color::Always => ColorChoice::Always.write_global(),
            Color::Never => ColorChoice::Never.write_global(),
            Color::Auto => {}
        }
        Self {
            is_json: global.json,
            is_quiet: global.quiet,
            is_terminal: io::stdout().is_terminal(),
            is_watched: io::stderr().is_terminal() && !global.quiet,
        }
    }

    /// Prints a line of data.
    pub(crate) fn line(self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(stdout(), "{}", text.as_ref())
    }

    /// Prints a text as it is, with a line break after it for people alone.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if self.is_terminal { writeln!(out) } else { out.flush() }
    }

    /// Prints one object as JSON, on one line if programs read it.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        let pretty = self.is_terminal && !self.is_json;
        let text = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        self.line(text(value)?)
    }

    /// Prints rows: each as an object on its line for `--json`, as an aligned table on a terminal, and with
    /// tabs and without headings otherwise.
    pub(crate) fn rows(self, columns: &[Column], rows: &[Value]) -> io::Result<()> {
        if self.is_json {
            return rows.iter().try_for_each(|row| self.json(row));
        }
        let table = Table::new(columns, rows);
        if self.is_terminal {
            table.print(&mut stdout(), HEADING)
        } else {
            table.print_tabs(&mut stdout())
        }
    }

    /// Prints one thing: as an object for `--json`, with a line for each field otherwise.
    pub(crate) fn thing(self, columns: &[Column], thing: &Value) -> io::Result<()> {
        if self.is_json {
            return self.json(thing);
        }
        Table::new(columns, std::slice::from_ref(thing)).print_fields(&mut stdout())
    }

    /// Tells people something beside the data.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.is_quiet {
            // Nobody reads the messages if this fails.
            let _unread = writeln!(stderr(), "{}", text.as_ref());
        }
    }

    /// Asks a question, whose answer follows on the same line.
    pub(crate) fn ask(self, question: impl AsRef<str>) {
        let _unread = write!(stderr(), "{} ", question.as_ref());
    }

    /// Shows progress in place of the progress before, to people at a terminal.
    pub(crate) fn progress(self, text: impl AsRef<str>) {
        if self.is_watched {
            let _unread = write!(stderr(), "\r\x1b[2K{}", text.as_ref());
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
            self.note(format!("{style}{}{style:#}", text.as_ref()));
        }
    }

    /// Warns, also if only errors are to be printed.
    pub(crate) fn warn(text: impl AsRef<str>) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        let _unread = writeln!(stderr(), "{style}warning:{style:#} {}", text.as_ref());
    }

    /// Prints why the command failed.
    pub(crate) fn error(text: impl AsRef<str>) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let _unread = writeln!(stderr(), "{style}error:{style:#} {}", text.as_ref());
    }
}
