/// The items of `a,b\,c`: `a` and `b,c`. Empty ones do not count; a backslash before anything but a comma is a
/// backslash.
pub(super) fn items(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(',')) => characters.next().into_iter().for_each(|comma| push(&mut items, comma)),
            (',', _) => items.push(String::new()),
            _ => push(&mut items, character),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn push(items: &mut [String], character: char) {
    if let Some(item) = items.last_mut() {
        item.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commas_separate_unless_escaped() {
        assert_eq!(items("api,www"), ["api", "www"]);
        assert_eq!(items(r"a\,b,c"), ["a,b", "c"]);
        assert_eq!(items(r"C:\x,\\,"), [r"C:\x", r"\,"]);
        assert_eq!(items(r"end\"), [r"end\"]);
        assert!(items("").is_empty() && items(",,").is_empty());
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(list in prop::collection::vec("[^\\\\]{1,9}", 0..9)) {
            let written = list.iter().map(|item| item.replace(',', r"\,")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(items(&written), list);
        }
    }
}
