//! What `raxsr` prints.

use crate::support::pty::Terminal;
use crate::support::{Place, RAXSR, still, wait_until};

/// A place with one service that has just joined.
fn with_a_service(options: &[&str]) -> (Place, crate::support::Running) {
    let place = Place::new();
    let wrapper = place.wrapper(options).start(&["sleep", "600"]);
    wait_until("the registration", || place.services().len() == 1);
    (place, wrapper)
}

/// Its output, with every time and every UUID as zeros.
fn stdout(place: &Place, words: &[&str]) -> String {
    let output = place.raxsr(words);
    assert!(output.status.success(), "{output:?}");
    still(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_page_says_where_the_next_begins() {
    let place = Place::new();
    let _wrappers = ["aaa", "bbb", "ccc"].map(|id| place.wrapper(&["--id", id]).start(&["sleep", "600"]));
    wait_until("the registrations", || place.services().len() == 3);
    let page = stdout(&place, &["services", "list", "--limit=2"]);
    assert!(page.ends_with("\nLimit: 2\nNext marker: ccc\n"), "{page}");
    let page = stdout(&place, &["services", "list", "--limit=2", "--marker=ccc"]);
    assert!(page.contains("ccc") && !page.contains("bbb") && !page.contains("Next"), "{page}");
}

#[test]
fn on_a_terminal_the_table_fits() {
    let pairs: Vec<_> = (0..20).map(|number| format!("key{number}=value{number}")).collect();
    let (place, _wrapper) = with_a_service(&["--id=wide", "--metadata", &pairs.join(",")]);
    let mut command = place.program("sh");
    command.args(["-c", &format!("stty rows 24 cols 80; {RAXSR} services list; echo done")]);
    let terminal = Terminal::start(command);
    terminal.wait_to_see("done");
    let screen = terminal.screen();
    assert!(screen.contains("key19: value19"), "{screen}");
    assert!(screen.lines().all(|line| line.trim_end().chars().count() <= 80), "{screen}");
}

#[test]
fn control_characters_in_a_value_do_not_reach_the_terminal() {
    let (place, _wrapper) = with_a_service(&["--id=evil", "--metadata", "x=a\x1b[2Jb\nc"]);
    let table = stdout(&place, &["services", "list"]);
    assert!(table.contains(r"x: a\u{1b}[2Jb\nc"), "{table}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let (place, _wrapper) = with_a_service(&["--id=web1"]);
    let script = format!("{RAXSR} services list | true; echo ${{PIPESTATUS[0]}}");
    let output = place.program("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn exit_codes_tell_what_happened() {
    let place = Place::new();
    for (words, code) in [
        (&["services", "list"][..], 0),
        (&["services", "get", "none"], 3),
        (&["services", "remove", "none"], 3),
        (&["services", "get"], 2),
        (&["services", "get", "a b"], 2),
        (&["services", "list", "--limit=0"], 2),
        (&["services", "list", "--registry=nonsense"], 2),
        (&["events", "list", "--type=service.left"], 2),
        (&["events", "list", "--marker=x"], 2),
        (&["events", "list", "--marker=00000000-0000-4000-8000-000000000000"], 1),
        (&["nonsense"], 2),
        (&[], 2),
        (&["help", "services", "list"], 0),
        (&["--version"], 0),
    ] {
        let output = place.raxsr(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), code == 0, "{words:?}: {output:?}");
    }
}
