//! What has to come true before the service is listed, as it is written.

use std::fmt;
use std::os::fd::RawFd;
use std::str::FromStr;
use std::time::Duration;

use crate::command_line;
use crate::message::Hint;
use crate::wrapper::probe::{Target, TargetError};

/// The descriptors that can be chosen for the command to write to.
pub(in crate::wrapper) const DESCRIPTORS: std::ops::RangeInclusive<RawFd> = 3..=255;

/// One condition. Once it has held, it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::wrapper) enum Condition {
    /// The command runs.
    Started,
    /// It has said `READY=1` to its service manager.
    Notify,
    /// It has written a line to this descriptor.
    Descriptor(RawFd),
    /// It has been running for so long.
    After(Duration),
    /// A look at it says so.
    Looks(Target),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let descriptor = |number: &str| number.parse().ok().filter(|number| DESCRIPTORS.contains(number));
        match text.split_once(':') {
            None if text == "started" => Ok(Self::Started),
            None if text == "notify" => Ok(Self::Notify),
            Some(("fd", number)) => descriptor(number)
                .map(Self::Descriptor)
                .ok_or_else(|| ConditionError::Descriptor(number.to_owned())),
            Some(("after", span)) => {
                command_line::span(span).map(Self::After).map_err(|_| ConditionError::Time(span.to_owned()))
            }
            _ => match text.parse() {
                Err(TargetError::Unknown(text)) => Err(ConditionError::Unknown(text)),
                target => Ok(Self::Looks(target?)),
            },
        }
    }
}

/// As it was written, but for credentials.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Notify => f.write_str("notify"),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::After(span) => write!(f, "after:{}", humantime::format_duration(*span)),
            Self::Looks(target) => target.fmt(f),
        }
    }
}

/// Why there is nothing to wait for.
#[derive(Debug, thiserror::Error)]
pub(in crate::wrapper) enum ConditionError {
    #[error("`{}` is not known", crate::model::printable(.0))]
    Unknown(String),
    #[error("`{}` is no descriptor from {} to {}", crate::model::printable(.0), DESCRIPTORS.start(), DESCRIPTORS.end())]
    Descriptor(String),
    #[error("`{}` is no time", crate::model::printable(.0))]
    Time(String),
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Hint for ConditionError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(_) => Some(
                r"try `started`, `listening`, `tcp:8000`, `http://localhost:8000/`, `exec:COMMAND`, `notify`, `fd:3` or `after:5s`; write a comma within one as `\,`"
                    .to_owned(),
            ),
            Self::Time(_) => Some("write 5, 5s or 1m 30s".to_owned()),
            Self::Descriptor(_) => None,
            Self::Target(error) => error.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_shown_as_it_is_written() {
        for text in ["started", "notify", "fd:3", "after:5s", "listening", "tcp:80", "exec:true"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        for text in ["", "ready", "started:1", "fd:", "fd:2", "fd:256", "fd:x", "after:", "after:soon", "fd"]
        {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }
}
