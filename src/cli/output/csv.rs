use super::{Cell, Row};

/// A line of headings, and one for each row. Values are as they are, also those that a spreadsheet would take for a
/// formula: who reads the data has to get it unchanged.
pub(super) fn rows<T: Row>(rows: &[T]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail.
    let _ = writer.write_record(T::HEADINGS);
    for row in rows {
        let _ = writer.write_record(row.cells().iter().map(Cell::plain));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
