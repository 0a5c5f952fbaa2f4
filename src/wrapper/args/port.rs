//! A port, as it is given, or chosen.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::num::NonZeroU16;
use std::str::FromStr;

/// What --port can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// The one that the command listens on.
    Auto,
    Number(NonZeroU16),
}

impl FromStr for Port {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Number).map_err(|_| "it has to be 1 to 65535, or `auto`"),
        }
    }
}

/// A TCP port that nobody listens on, on any address.
pub(super) fn free() -> io::Result<u16> {
    // Where there is IPv6, that is also for IPv4.
    let taken = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
    let taken = taken.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    Ok(taken.local_addr()?.port())
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Result<String, &'static str> {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_name = text.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit());
    if is_name && text.bytes().next().is_some_and(is_letter) {
        Ok(text.to_owned())
    } else {
        Err("it has to be letters, digits and `_`, and not begin with a digit")
    }
}
