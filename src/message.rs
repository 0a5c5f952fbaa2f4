//! How a failure is told: one line that says what and why, and a hint on the next when there is a remedy.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;

/// An error that may know its remedy.
pub trait Hint {
    /// What the user can do about it, as an imperative.
    fn hint(&self) -> Option<String>;
}

/// An error and what lies behind it, in one line: `cannot do this: the file is read-only`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A transparent error repeats what is behind it.
        if !line.ends_with(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

/// Says something on standard error. That nobody can hear it is no reason to fail.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// `program: error: cause`, and `hint: remedy` on a second line.
#[must_use]
pub fn report<E: Error + Hint + 'static>(program: &str, error: &E) -> String {
    let mut text = format!("{program}: {}\n", chain(error));
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}
