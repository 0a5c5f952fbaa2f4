use super::Row;

/// One table, to be put into a page.
pub(super) fn rows<T: Row>(rows: &[T]) -> String {
    let mut text = "<table>\n".to_owned();
    line(&mut text, "th", T::HEADINGS.iter().copied());
    for row in rows {
        let cells: Vec<String> = row.cells().iter().map(super::Cell::plain).collect();
        line(&mut text, "td", cells.iter().map(String::as_str));
    }
    text + "</table>\n"
}

fn line<'a>(text: &mut String, tag: &str, cells: impl Iterator<Item = &'a str>) {
    text.push_str("<tr>");
    for cell in cells {
        text.extend(["<", tag, ">", &safe(cell), "</", tag, ">"]);
    }
    text.push_str("</tr>\n");
}

/// Text that is only text: no markup, and none of the characters that HTML does not have.
fn safe(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            '\n' => text.push_str("<br>"),
            '\t' => text.push('\t'),
            control if control.is_control() => text.push(char::REPLACEMENT_CHARACTER),
            other => text.push(other),
        }
    }
    text
}
