//! Showing what a registry answered: for people a table that fits their terminal, for programs the same in a format of
//! their choice.
//!
//! Times are local in tables and RFC 3339 in UTC everywhere else. Whatever a value holds, the text stays well-formed:
//! on a terminal it cannot do anything, in a data format it comes back as it was.

pub(super) mod csv;
mod html;
pub(super) mod table;

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use clap::parser::ValueSource;
use clap::{ArgMatches, ValueEnum};
use serde::Serialize;

use crate::model::{Limit, Page, Timestamp};

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// A line for each item (RFC 4180), a line of headings first.
    Csv,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// For a web page: one table.
    Html,
    /// Shell variables; of `services resolve` only, as are the following.
    Env,
    /// Lines of /etc/hosts.
    Hosts,
    /// `server` lines of a backend of HAProxy.
    Haproxy,
    /// `server` lines of an nginx upstream.
    Nginx,
}

impl Format {
    /// As it is typed.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A format, and by whom it was chosen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// On the command line.
    For(Format),
    /// By the environment or by default.
    Otherwise(Format),
}

impl Asked {
    pub(super) fn of(format: Format, matches: &ArgMatches) -> Self {
        match matches.value_source("format") {
            Some(ValueSource::CommandLine) => Self::For(format),
            _ => Self::Otherwise(format),
        }
    }
}

/// What can be shown.
pub(super) trait Row {
    /// The columns.
    const HEADINGS: &'static [&'static str];

    /// What stands in them.
    fn cells(&self) -> Vec<Cell>;

    /// The same for JSON and YAML.
    fn data(&self) -> impl Serialize;
}

/// What stands in one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    /// One below the other.
    Lines(Vec<String>),
    Number(u64),
    Time(Option<Timestamp>),
}

impl Cell {
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// As it goes into a data format.
    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Lines(lines) => lines.join("\n"),
            Self::Number(number) => number.to_string(),
            Self::Time(time) => time.map(|time| time.to_string()).unwrap_or_default(),
        }
    }
}

/// A page of a list as programs read it.
#[derive(Serialize)]
struct Listing<T> {
    values: Vec<T>,
    metadata: Paging,
}

#[derive(Serialize)]
struct Paging {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    next_marker: Option<String>,
    /// There only when the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
}

/// How much of a list was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent {
    /// A page of it.
    Page(Limit),
    /// All of it.
    Whole,
}

pub(super) struct Output {
    pub(super) format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// One page of a list, and where the next one begins.
    pub(super) fn page<T: Row, M: Display>(&self, page: &Page<T, M>, extent: Extent) -> io::Result<()> {
        print(&self.page_text(page, extent))
    }

    fn page_text<T: Row, M: Display>(&self, page: &Page<T, M>, extent: Extent) -> String {
        let limit = match extent {
            Extent::Page(limit) => Some(limit.get()),
            Extent::Whole => None,
        };
        let next_marker = page.next_marker.as_ref().map(M::to_string);
        let listing = || Listing {
            values: page.values.iter().map(T::data).collect(),
            metadata: Paging {
                count: page.values.len(),
                limit,
                next_marker: next_marker.clone(),
                stale_since: page.stale_since.map(|time| time.to_string()),
            },
        };
        match self.format {
            Format::Json => json(&listing()),
            Format::Yaml => yaml(&listing()),
            Format::Csv => csv::rows(&page.values),
            Format::Html => html::rows(&page.values),
            _ => {
                let mut text = table::rows(&page.values);
                // Writing into a string cannot fail.
                let _ = limit.map(|limit| write!(text, "\nLimit: {limit}\n"));
                let _ = next_marker.map(|marker| writeln!(text, "Next marker: {marker}"));
                text
            }
        }
    }

    /// A short list that is always whole.
    pub(super) fn list<T: Row>(&self, rows: &[T]) -> io::Result<()> {
        let data = || rows.iter().map(T::data).collect::<Vec<_>>();
        print(&match self.format {
            Format::Json => json(&data()),
            Format::Yaml => yaml(&data()),
            Format::Csv => csv::rows(rows),
            Format::Html => html::rows(rows),
            _ => table::rows(rows),
        })
    }

    /// One item.
    pub(super) fn item<T: Row>(&self, item: &T) -> io::Result<()> {
        let rows = std::slice::from_ref(item);
        print(&match self.format {
            Format::Json => json(&item.data()),
            Format::Yaml => yaml(&item.data()),
            Format::Csv => csv::rows(rows),
            Format::Html => html::rows(rows),
            _ => table::fields(item),
        })
    }
}

pub(super) fn json(value: &impl Serialize) -> String {
    // The types shown have string keys and no failing parts.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

pub(super) fn yaml(value: &impl Serialize) -> String {
    yaml_serde::to_string(value).unwrap_or_default()
}

/// Writes to standard output, at once.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests;
