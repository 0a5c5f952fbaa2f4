//! What came of it.

use comfy_table::{CellAlignment, Table, presets};

use crate::ward::Report;

const HEADINGS: [&str; 13] = [
    "registry",
    "wrappers",
    "faults",
    "beats",
    "failed",
    "troubles",
    "missed",
    "lost",
    "slowest return",
    "KiB",
    "descriptors",
    "threads",
    "CPU/beat",
];

/// `missed` counts beats without which a service was gone although it should not have been; `lost` those times that it
/// had to be.
#[expect(clippy::print_stdout, reason = "it is what the program is for")]
pub(crate) fn print(reports: &[Report]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADINGS);
    table.add_rows(reports.iter().map(row));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

fn row(report: &Report) -> Vec<String> {
    let range = |of: fn(&crate::ward::Sample) -> u64| {
        let first = report.early.iter().map(of).max().unwrap_or_default();
        let last = report.late.iter().map(of).max().unwrap_or_default();
        if first == last { last.to_string() } else { format!("{first} → {last}") }
    };
    vec![
        format!("{:?}", report.kind),
        report.late.len().to_string(),
        report.faults.to_string(),
        report.beats.to_string(),
        report.failures.to_string(),
        report.troubles.to_string(),
        report.missed.len().to_string(),
        report.losses.to_string(),
        format!("{:.1} s", report.slowest_return.as_secs_f64()),
        range(|sample| sample.memory),
        range(|sample| sample.descriptors),
        range(|sample| sample.threads),
        format!("{:.2} ms", report.cpu.as_secs_f64() * 1e3 / report.beats.max(1) as f64),
    ]
}
