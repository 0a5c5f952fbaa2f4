//! The network interfaces of this machine, and which of their addresses to prefer.

use std::fmt::Write as _;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use super::address::Network;
use crate::model::printable;

/// How many addresses a message has room for.
const SHOWN: usize = 16;

/// Names and addresses, in the kernel's order.
#[derive(Debug)]
pub(super) struct Interfaces(Vec<(String, Option<IpAddr>)>);

impl Interfaces {
    /// Those there are now.
    pub(super) fn read() -> nix::Result<Self> {
        let entry = |entry: InterfaceAddress| {
            let address = address(&entry);
            (entry.interface_name, address)
        };
        Ok(Self(getifaddrs()?.map(entry).collect()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The best address of an interface that can be used without naming the interface, too.
    pub(super) fn reachable(&self, name: &str) -> Option<IpAddr> {
        let addresses = self.addresses().filter(|(known, _)| *known == name).map(|(_, address)| address);
        addresses.filter(|address| Scope::of(*address) != Scope::Zone).min_by_key(preference)
    }

    /// The best address that other machines may reach.
    pub(super) fn global(&self) -> Option<IpAddr> {
        let addresses = self.addresses().map(|(_, address)| address);
        addresses.filter(|address| Scope::of(*address) == Scope::Global).min_by_key(preference)
    }

    /// The best address in a network.
    pub(super) fn within(&self, network: Network) -> Option<IpAddr> {
        let addresses = self.addresses().map(|(_, address)| address);
        addresses.filter(|address| network.contains(*address)).min_by_key(preference)
    }

    /// All addresses, for a message.
    pub(super) fn known(&self) -> String {
        let count = self.addresses().count();
        if count == 0 {
            return "this machine has no addresses: is its network up?".to_owned();
        }
        let list = self.addresses().take(SHOWN);
        let list: Vec<_> = list.map(|(name, address)| format!("{address} ({})", printable(name))).collect();
        let mut text = format!("this machine has {}", list.join(", "));
        if count > SHOWN {
            let _ = write!(text, " and {} more", count - SHOWN);
        }
        text
    }

    fn addresses(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.0.iter().filter_map(|(name, address)| address.map(|address| (name.as_str(), address)))
    }
}

/// From where an address can be reached, the widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Global,
    Machine,
    Link,
    /// The link, by who also knows which interface that is.
    Zone,
}

impl Scope {
    fn of(address: IpAddr) -> Self {
        match address {
            _ if address.is_loopback() => Self::Machine,
            IpAddr::V4(address) if address.is_link_local() => Self::Link,
            IpAddr::V6(address) if address.is_unicast_link_local() => Self::Zone,
            _ => Self::Global,
        }
    }
}

/// The smallest is the best.
fn preference(address: &IpAddr) -> impl Ord + use<> {
    (Scope::of(*address), address.is_ipv6())
}

/// None for what is no IP address: each interface also has an entry for its hardware.
fn address(entry: &InterfaceAddress) -> Option<IpAddr> {
    let address = entry.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(list: &[(&str, &str)]) -> Interfaces {
        let entry = |(name, address): &(&str, &str)| ((*name).to_owned(), address.parse().ok());
        Interfaces(list.iter().map(entry).collect())
    }

    #[test]
    fn other_machines_reach_what_is_neither_on_the_link_nor_the_machine_alone() {
        let addresses = ["127.0.0.1", "169.254.1.1", "fe80::1", "fd00::1", "10.0.0.1"];
        let some = interfaces(&addresses.map(|address| ("eth0", address)));
        assert_eq!(some.global(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(interfaces(&[("lo", "::1"), ("eth0", "")]).global(), None);
    }

    #[test]
    fn an_interface_has_its_widest_address_and_ipv4_before_ipv6() {
        let some = interfaces(&[
            ("lo", ""),
            ("lo", "::1"),
            ("lo", "127.0.0.1"),
            ("eth0", "fe80::1"),
            ("eth0", "169.254.1.1"),
            ("eth0", "fd00::2"),
            ("eth0", "10.0.0.2"),
            ("eth0", "10.0.0.3"),
            ("eth1", "fe80::2"),
            ("eth1", "fd00::3"),
            ("eth2", "169.254.1.2"),
            ("eth3", "fe80::3"),
            ("eth4", ""),
        ]);
        for (name, expected) in [
            ("lo", Some("127.0.0.1")),
            ("eth0", Some("10.0.0.2")),
            ("eth1", Some("fd00::3")),
            ("eth2", Some("169.254.1.2")),
            ("eth3", None),
            ("eth4", None),
        ] {
            assert!(some.has(name));
            assert_eq!(some.reachable(name), expected.map(|text| text.parse().unwrap()), "{name}");
        }
        assert!(!some.has("eth"));
    }

    #[test]
    fn a_message_has_the_addresses_there_are_and_an_end() {
        let few = interfaces(&[("lo", "127.0.0.1"), ("eth0", ""), ("eth0", "fd00::2")]);
        assert_eq!(few.known(), "this machine has 127.0.0.1 (lo), fd00::2 (eth0)");
        assert!(interfaces(&[("eth0", "")]).known().starts_with("this machine has no addresses"));
        let many = interfaces(&[("lo", "127.0.0.1"); 20]);
        assert!(many.known().ends_with("127.0.0.1 (lo) and 4 more"));
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        assert!(Interfaces::read().unwrap().has("lo"));
    }
}
