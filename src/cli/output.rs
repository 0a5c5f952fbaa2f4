//! Showing what a registry answered: a tidy table on a terminal, stable bytes in a pipe.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::model::{Limit, Page, Timestamp, escaped};

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs, as the API has it.
    Json,
}

/// What can stand in a table.
pub(super) trait Row: Serialize {
    /// The columns.
    const HEADINGS: &'static [&'static str];
    /// What stands in them.
    fn cells(&self) -> Vec<String>;
}

/// A page as the API has it.
#[derive(Serialize)]
struct Listing<'a, T, M> {
    values: &'a [T],
    metadata: Paging<'a, M>,
}

#[derive(Serialize)]
struct Paging<'a, M> {
    count: usize,
    limit: usize,
    next_marker: Option<&'a M>,
    /// In milliseconds, as every time in JSON; there only when the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<Timestamp>,
}

pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// One page of a list, and where the next one begins.
    pub(super) fn page<T: Row, M: Serialize + Display>(
        &self,
        page: &Page<T, M>,
        limit: Limit,
    ) -> io::Result<()> {
        print(&self.page_text(page, limit))
    }

    fn page_text<T: Row, M: Serialize + Display>(&self, page: &Page<T, M>, limit: Limit) -> String {
        let mut text = match self.format {
            Format::Json => json(&Listing {
                values: &page.values,
                metadata: Paging {
                    count: page.values.len(),
                    limit: limit.get(),
                    next_marker: page.next_marker.as_ref(),
                    stale_since: page.stale_since,
                },
            }),
            Format::Table => table(&page.values),
        };
        if let (Format::Table, Some(marker)) = (self.format, &page.next_marker) {
            let _ = write!(text, "\nLimit: {}\nNext marker: {marker}\n", limit.get());
        }
        text
    }

    /// One item.
    pub(super) fn item<T: Row>(&self, item: &T) -> io::Result<()> {
        print(&match self.format {
            Format::Json => json(item),
            Format::Table => table(std::slice::from_ref(item)),
        })
    }
}

fn json(value: &impl Serialize) -> String {
    // The types shown have string keys and no failing parts.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

fn table<T: Row>(rows: &[T]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED).set_header(T::HEADINGS.iter().copied());
    if let Some((width, _)) = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.0);
    }
    table.add_rows(rows.iter().map(|row| row.cells().into_iter().map(|cell| escaped(&cell))));
    format!("{table}\n")
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Service, ServiceId};

    #[test]
    fn json_says_since_when_a_list_is_stale_and_only_then() {
        let output = Output::new(Format::Json);
        let text = |stale_since| {
            let page = Page::<Service, ServiceId> { values: vec![], next_marker: None, stale_since };
            serde_json::from_str::<serde_json::Value>(&output.page_text(&page, Limit::default())).unwrap()
        };
        assert!(text(None)["metadata"].get("stale_since").is_none());
        assert_eq!(text(Some(Timestamp::from_millis(1_700)))["metadata"]["stale_since"], 1_700);
    }
}
