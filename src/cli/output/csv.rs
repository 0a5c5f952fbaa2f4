use super::{Cell, Row};

/// A line of headings, and one for each row. Values are as they are, also those that a spreadsheet would take for a
/// formula: who reads the data has to get it unchanged.
pub(super) fn rows<T: Row>(rows: &[T]) -> String {
    headings::<T>() + &records(rows)
}

/// The line of headings.
pub(in crate::cli) fn headings<T: Row>() -> String {
    text(|writer| writer.write_record(T::HEADINGS))
}

/// The lines below it.
pub(in crate::cli) fn records<T: Row>(rows: &[T]) -> String {
    text(|writer| rows.iter().try_for_each(|row| writer.write_record(row.cells().iter().map(Cell::plain))))
}

fn text(write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail.
    let _ = write(&mut writer);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
