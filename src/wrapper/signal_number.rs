use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

/// A signal by number, real-time ones included: 1 to 64, without the two that are the C library's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SignalNumber(i32);

/// Why a text names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a signal: expected a name or a number, such as `TERM`, `SIGTERM`, `15` or `RTMIN+3`")]
pub(super) struct NoSignal;

impl SignalNumber {
    pub(super) const CONT: Self = Self(libc::SIGCONT);
    pub(super) const HUP: Self = Self(libc::SIGHUP);
    pub(super) const INT: Self = Self(libc::SIGINT);
    pub(super) const QUIT: Self = Self(libc::SIGQUIT);
    pub(super) const TERM: Self = Self(libc::SIGTERM);

    /// The signal of this number, if there is one.
    pub(super) fn new(number: i32) -> Option<Self> {
        let is_real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        (is_real_time || Signal::try_from(number).is_ok()).then_some(Self(number))
    }

    /// As system calls have it.
    pub(super) fn get(self) -> i32 {
        self.0
    }
}

impl FromStr for SignalNumber {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
        let number = if let Ok(number) = name.parse() {
            number
        } else if let Some(above) = name.strip_prefix("RTMIN") {
            libc::SIGRTMIN() + offset(above).ok_or(NoSignal)?
        } else if let Some(below) = name.strip_prefix("RTMAX") {
            libc::SIGRTMAX() + offset(below).ok_or(NoSignal)?
        } else {
            Signal::from_str(&format!("SIG{name}")).map_err(|_| NoSignal)? as i32
        };
        Self::new(number).ok_or(NoSignal)
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "SIGRTMIN+{}", self.0 - libc::SIGRTMIN()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_as_everywhere() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(SignalNumber::TERM), "{text}");
        }
        assert_eq!("RTMIN+3".parse::<SignalNumber>().unwrap().get(), libc::SIGRTMIN() + 3);
        assert_eq!("SIGRTMAX-1".parse::<SignalNumber>().unwrap().get(), 63);
        for bad in ["", "SIG", "TERMINATE", "0", "65", "-1", "32", "RTMIN+99", "RTMAXx"] {
            assert!(bad.parse::<SignalNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_signal_reads_back_from_its_name() {
        for signal in (1..=64).filter_map(SignalNumber::new) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
