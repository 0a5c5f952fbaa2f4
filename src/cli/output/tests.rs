use super::*;
use proptest::prelude::*;

struct Item(String);

impl Row for Item {
    const HEADINGS: &'static [&'static str] = &["Value", "Seen"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::text(&self.0), Cell::Time(Some(Timestamp::from_millis(1_700_000_000_000)))]
    }

    fn data(&self) -> impl Serialize {
        serde_json::json!({"value": self.0})
    }
}

fn page(values: Vec<Item>, stale_since: Option<Timestamp>) -> Page<Item, String> {
    Page { values, next_marker: None, stale_since }
}

fn text(format: Format, value: &str) -> String {
    let extent = Extent::Page(Limit::default());
    Output::new(format).page_text(&page(vec![Item(value.to_owned())], None), extent)
}

#[test]
fn a_list_says_since_when_it_is_stale_and_only_then() {
    let text = |stale_since| {
        let text = Output::new(Format::Json).page_text(&page(vec![], stale_since), Extent::Whole);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert!(text(None)["metadata"].get("stale_since").is_none());
    let stale = text(Some(Timestamp::from_millis(1_700)));
    assert_eq!(stale["metadata"]["stale_since"], "1970-01-01T00:00:01.700Z");
}

#[test]
fn a_spreadsheets_formula_is_only_text_in_html_and_a_value_in_csv() {
    assert_eq!(text(Format::Csv, "=cmd()"), "Value,Seen\n=cmd(),2023-11-14T22:13:20.000Z\n");
    assert!(text(Format::Html, "<b>=cmd()</b>").contains("<td>&lt;b&gt;=cmd()&lt;/b&gt;</td>"));
}

proptest! {
    #[test]
    fn any_value_comes_back_from_every_data_format(value in "[\\PC\\n\\r\\t\"',;=<>&|:#{}\\[\\]\u{0}\u{1b}😀-]{0,40}") {
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json, &value)).unwrap();
        prop_assert_eq!(&json["values"][0]["value"], &value);
        let yaml: serde_json::Value = yaml_serde::from_str(&text(Format::Yaml, &value)).unwrap();
        prop_assert_eq!(&yaml["values"][0]["value"], &value);
        let csv = text(Format::Csv, &value);
        let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
        let record = reader.records().next().unwrap().unwrap();
        prop_assert_eq!(&record[0], &value);
    }

    #[test]
    fn no_value_leaves_its_place_in_a_table_or_a_page(value in any::<String>()) {
        let table = text(Format::Table, &value);
        prop_assert!(table.chars().all(|character| character == '\n' || !character.is_control()));
        let html = text(Format::Html, &value);
        prop_assert_eq!(html.matches("<td>").count(), 2);
        prop_assert!(html.chars().all(|character| matches!(character, '\n' | '\t') || !character.is_control()));
    }
}
