//! What `--address` means, and which address that is here and now.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::errno::Errno;
use url::Host;

use super::interfaces::Interfaces;
use crate::message::Hint;
use crate::model::printable;
use crate::registry::RegistryUrl;

/// The longest host name there can be (RFC 1035).
const LONGEST_NAME: usize = 253;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("`{}` is not a network", printable(.0))]
    Network(String),
    #[error("`{}` is not an address, nor an interface of this machine, nor a host name", printable(.0))]
    Unknown(String),
    #[error("nobody can connect to `{0}`")]
    Unspecified(IpAddr),
    #[error("interface `{}` has no address to be reached at", printable(interface))]
    NoAddress { interface: String, known: String },
    #[error("no address of this machine is in `{}`", printable(network))]
    Outside { network: String, known: String },
    #[error("there is no interface `{}`", printable(interface))]
    NoInterface { interface: String, known: String },
    #[error("this machine has no address at which others can reach it")]
    Alone { known: String },
    #[error("cannot list the addresses of this machine")]
    Interfaces(#[from] Errno),
    #[error("`route` leads to the registry's host, and {0} has none")]
    NoHost(String),
    #[error("`route` needs the registry's IP address, and `{}` is a name", printable(.0))]
    HostName(String),
    #[error("`route`: no way to {host}")]
    NoRoute {
        host: IpAddr,
        #[source]
        source: io::Error,
    },
}

impl Hint for AddressError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Network(_) => "write it as 10.0.0.0/8 or fd00::/8".to_owned(),
            Self::Unknown(_) => "host names have letters, digits, `.`, `-` and `_`".to_owned(),
            Self::Unspecified(_) => "name the interface instead, as in --address=eth0".to_owned(),
            Self::NoAddress { known, .. }
            | Self::Outside { known, .. }
            | Self::NoInterface { known, .. }
            | Self::Alone { known } => known.clone(),
            Self::Interfaces(_) => "give an IP address".to_owned(),
            Self::NoHost(_) | Self::HostName(_) | Self::NoRoute { .. } => {
                "name the interface or the network instead, as in --address=eth0 or --address=10.0.0.0/8"
                    .to_owned()
            }
        })
    }
}

/// The address, or the host name, that `what` means.
///
/// # Errors
/// When it means nothing, or nothing that is there.
pub(super) fn resolve(what: &str, registries: &[&RegistryUrl]) -> Result<String, AddressError> {
    let address = match Wanted::parse(what)? {
        Wanted::Address(address) => address,
        Wanted::Network(network) => {
            let interfaces = Interfaces::read()?;
            interfaces.within(network).ok_or_else(|| AddressError::Outside {
                network: what.to_owned(),
                known: interfaces.known(),
            })?
        }
        Wanted::Route => route(registries)?,
        Wanted::Named(name) => return named(name, &Interfaces::read()?),
    };
    Ok(address.to_string())
}

/// Where this machine is for those who look in `registry`, as long as nobody has said it: its address towards that, or
/// where that is only a name, the first that other machines may reach.
pub(super) fn presumed(registry: &RegistryUrl) -> Option<IpAddr> {
    let towards = route(&[registry]).ok();
    towards.or_else(|| Interfaces::read().ok()?.global())
}

/// Where this machine is for others: its address towards the first registry on another machine, or else the first that
/// other machines may reach.
pub(super) fn own(registries: &[&RegistryUrl]) -> Result<IpAddr, AddressError> {
    if let Some(towards) = route(registries).ok().filter(|address| !address.is_loopback()) {
        return Ok(towards);
    }
    let interfaces = Interfaces::read()?;
    interfaces.global().ok_or_else(|| AddressError::Alone { known: interfaces.known() })
}

/// The address of this interface.
pub(super) fn of_interface(name: &str) -> Result<IpAddr, AddressError> {
    let interfaces = Interfaces::read()?;
    let (interface, known) = (name.to_owned(), interfaces.known());
    if !interfaces.has(name) {
        return Err(AddressError::NoInterface { interface, known });
    }
    interfaces.reachable(name).ok_or(AddressError::NoAddress { interface, known })
}

/// What may be asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Address(IpAddr),
    Network(Network),
    Route,
    /// An interface if there is one of that name, otherwise a host.
    Named(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let is_one = !address.is_unspecified();
            return is_one.then_some(Self::Address(address)).ok_or(AddressError::Unspecified(address));
        }
        if text.contains('/') {
            let network = Network::parse(text).ok_or_else(|| AddressError::Network(text.to_owned()))?;
            return Ok(Self::Network(network));
        }
        Ok(if text == "route" { Self::Route } else { Self::Named(text) })
    }
}

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    /// How many bits that are.
    length: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`; bits behind the length do not matter.
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse().ok()?);
        let bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        (length <= bits).then_some(Self { address, length })
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        let common = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        common >= self.length
    }
}

fn named(name: &str, interfaces: &Interfaces) -> Result<String, AddressError> {
    if interfaces.has(name) {
        return Ok(of_interface(name)?.to_string());
    }
    is_host_name(name).then(|| name.to_owned()).ok_or_else(|| AddressError::Unknown(name.to_owned()))
}

/// A name that ends in a number is an IP address with a mistake in it.
fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let labels = name.strip_suffix('.').unwrap_or(name);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= LONGEST_NAME
        && name.bytes().all(is_plain)
        && labels.split('.').all(|label| !label.is_empty())
        && !labels.rsplit('.').next().is_some_and(is_number)
}

/// Our address towards the first registry on another machine, or else on this one.
fn route(registries: &[&RegistryUrl]) -> Result<IpAddr, AddressError> {
    let mut on_this_machine = None;
    for host in registries.iter().filter_map(|registry| registry.host()) {
        let host = match host {
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
            Host::Domain("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Host::Domain(name) => return Err(AddressError::HostName(name.to_owned())),
        };
        let from = towards(host)?;
        // What is sent to one of our own addresses comes from there, or from another of them.
        if from != host && !from.is_loopback() {
            return Ok(from);
        }
        on_this_machine = on_this_machine.or(Some(from));
    }
    on_this_machine
        .ok_or_else(|| AddressError::NoHost(registries.first().map(ToString::to_string).unwrap_or_default()))
}

/// The address that the kernel would send from; nothing is sent.
fn towards(host: IpAddr) -> Result<IpAddr, AddressError> {
    let any = match host {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let sent_from = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        // Any port does: routes have none.
        socket.connect(SocketAddr::new(host, 9))?;
        socket.local_addr()
    };
    let from = sent_from().map_err(|source| AddressError::NoRoute { host, source })?;
    Ok(from.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn what_is_meant_is_told_by_its_form() {
        for (text, expected) in [
            ("192.0.2.7", Wanted::Address([192, 0, 2, 7].into())),
            ("::1", Wanted::Address(Ipv6Addr::LOCALHOST.into())),
            ("10.0.0.0/8", Wanted::Network(network("10.0.0.0/8"))),
            ("route", Wanted::Route),
            ("eth0.100", Wanted::Named("eth0.100")),
            ("web1.example", Wanted::Named("web1.example")),
        ] {
            assert_eq!(Wanted::parse(text).unwrap(), expected);
        }
        for (text, expected) in [
            ("0.0.0.0", "nobody can connect to `0.0.0.0`"),
            ("::", "nobody can connect to `::`"),
            ("10.0.0.0/33", "`10.0.0.0/33` is not a network"),
            ("fd00::/129", "`fd00::/129` is not a network"),
            ("eth0/8", "`eth0/8` is not a network"),
            ("10.0.0.0/", "`10.0.0.0/` is not a network"),
        ] {
            assert_eq!(Wanted::parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_network_contains_what_begins_as_it_does() {
        for (text, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.9.9.9/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.0", false),
            ("0.0.0.0/0", "255.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "10.0.0.1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
        ] {
            assert_eq!(network(text).contains(address.parse().unwrap()), is_in, "{text} {address}");
        }
    }

    #[test]
    fn host_names_are_told_from_mistakes() {
        for name in ["web1", "web1.example.", "a_b-c.d", "localhost", "1.2.3.x"] {
            assert!(is_host_name(name), "{name}");
        }
        let too_long = format!("{}a", "a.".repeat(127));
        for name in ["", ".", "a..b", "10.0.0.256", "80", "a b", "[::1]", "fe80::1%eth0", "ä", &too_long] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[cfg(all(feature = "sqlite", feature = "http"))]
    #[test]
    fn a_route_needs_the_address_of_the_registry() {
        let route = |url: &str| route(&[&url.parse().unwrap()]);
        for url in ["http://127.0.0.1:9/v1.0", "https://me:key@localhost/v1.0"] {
            assert_eq!(route(url).unwrap(), Ipv4Addr::LOCALHOST);
        }
        let error = route("https://me:sesame@registry.example/v1.0").unwrap_err().to_string();
        assert_eq!(error, "`route` needs the registry's IP address, and `registry.example` is a name");
        let error = route("sqlite:///a.db").unwrap_err().to_string();
        assert_eq!(error, "`route` leads to the registry's host, and sqlite:///a.db has none");
    }

    #[cfg(all(feature = "sqlite", feature = "http"))]
    #[test]
    fn of_several_registries_the_route_leads_to_the_first_on_another_machine() {
        let route = |urls: [&str; 2]| {
            let urls = urls.map(|url| url.parse().unwrap());
            route(&[&urls[0], &urls[1]])
        };
        assert_eq!(route(["sqlite:///a.db", "consul://127.0.0.9"]).unwrap(), Ipv4Addr::LOCALHOST);
        let error = route(["consul://localhost", "https://registry.example/v1.0"]).unwrap_err().to_string();
        assert_eq!(error, "`route` needs the registry's IP address, and `registry.example` is a name");
        let error = route(["sqlite:///a.db", "sqlite:///b.db"]).unwrap_err().to_string();
        assert_eq!(error, "`route` leads to the registry's host, and sqlite:///a.db has none");
    }

    proptest! {
        #[test]
        fn a_network_contains_itself_and_any_text_is_something_or_an_error(
            bits in any::<u128>(), length in 0..=128_u32, text in ".*"
        ) {
            let address = Ipv6Addr::from_bits(bits);
            let own = network(&format!("{address}/{length}"));
            prop_assert!(own.contains(address.into()));
            let _ = Wanted::parse(&text);
        }
    }
}
