use std::io::{self, IsTerminal};

use chrono::{DateTime, Local};
use comfy_table::{Cell as TableCell, CellAlignment, ContentArrangement, Table, presets};

use super::{Cell, Row};
use crate::model::{Timestamp, escaped};

/// A line for each.
pub(super) fn rows<T: Row>(rows: &[T]) -> String {
    let mut table = new_table(T::HEADINGS);
    table.add_rows(rows.iter().map(|row| row.cells().iter().map(shown).collect::<Vec<_>>()));
    format!("{table}\n")
}

/// A line for each of its fields.
pub(super) fn fields<T: Row>(item: &T) -> String {
    let mut table = new_table(&["Field", "Value"]);
    table.add_rows(T::HEADINGS.iter().zip(item.cells()).map(|(heading, cell)| {
        let value = shown(&cell).set_alignment(CellAlignment::Left);
        [TableCell::new(*heading), value]
    }));
    format!("{table}\n")
}

fn new_table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED).set_header(headings.iter().copied());
    if let Some((width, _)) = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.0);
    }
    table
}

fn shown(cell: &Cell) -> TableCell {
    match cell {
        Cell::Text(text) => TableCell::new(escaped(text)),
        Cell::Lines(lines) => {
            TableCell::new(lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\n"))
        }
        Cell::Number(number) => TableCell::new(number).set_alignment(CellAlignment::Right),
        Cell::Time(time) => TableCell::new(time.map(local).unwrap_or_default()),
    }
}

/// As the clock on the wall shows it.
pub(in crate::cli) fn local(time: Timestamp) -> String {
    let utc = i64::try_from(time.as_millis()).ok().and_then(DateTime::from_timestamp_millis);
    utc.map_or_else(
        || time.to_string(),
        |utc| utc.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string(),
    )
}
