//! What a service is, and where it can be reached: options that end up in its metadata.

use std::io;
use std::num::NonZeroU16;

use clap::Args;

use super::address::{self, AddressError};
use super::port::{self, Port};
use crate::model::{self, Metadata};
use crate::registry::RegistryUrl;
use crate::wrapper::fitness::PortRule;

const ADDRESS_HELP: &str = "\
Where it can be reached: an address, or where to take one from

The first of these that WHAT is:
  192.0.2.7, fd00::7    this IP address
  10.0.0.0/8, fd00::/8  this machine's first address in this network
  route                 this machine's address towards the registry
  eth0                  this interface's first address
  web1.example          this host name: nobody looks it up

IPv4 comes before IPv6, and what other machines can reach before what they cannot. `route` needs a registry that is \
named by its IP address, or as localhost; of several registries, it leads to the first that is on another machine.

The address is looked up once, before the command is started; when there is none, nothing is started. It is the \
metadata `host`, and beats the `host` of --metadata (and its `address`, which would come first for who looks the \
service up). Without it, etcd, ZooKeeper and Consul agents on other machines are told this machine's address towards \
them, or the first that other machines can reach; a Consul agent of this machine has that of its own.";

#[derive(Debug, Args)]
pub(super) struct EndpointArguments {
    /// What kind of service it is: what all services that do the same have in common
    ///
    /// For consumers that look for `api`, whichever of web1-api and web2-api is there. It is the metadata `name`,
    /// and beats the `name` of --metadata. Without it, Consul, etcd and ZooKeeper are told the first tag, or else the
    /// command.
    #[arg(
        long,
        help_heading = "Service",
        env = "SERVICE_REGISTRY_NAME",
        value_name = "NAME",
        value_parser = name
    )]
    name: Option<String>,

    /// Where it can be reached: an address, or where to take one from
    #[arg(
        long,
        help_heading = "Service",
        env = "SERVICE_REGISTRY_ADDRESS",
        value_name = "WHAT",
        long_help = ADDRESS_HELP
    )]
    address: Option<String>,

    /// The port it can be reached at: 1 to 65535, or `auto`
    ///
    /// The command is not told (but see --port-env): it has to be given the same. It is the metadata `port`, and beats
    /// the `port` of --metadata. With `auto`, it is the TCP port that the command listens on, as the kernel has it; the
    /// service is registered when there is one, and again when it is another. Of several ports it is the lowest of those
    /// that other machines can reach, or else the lowest. A variable of the form `tcp://...` counts as none: Kubernetes
    /// sets it where there is a service called service-registry.
    #[arg(long, help_heading = "Service", env = "SERVICE_REGISTRY_PORT", value_name = "PORT")]
    port: Option<Port>,

    /// Tell the command its port in this environment variable
    ///
    /// It is that of --port, or else a free one that is chosen (and registered). Chosen ports are free on all addresses
    /// when the command is started: in the moment until it listens, another process could take it.
    #[arg(
        long,
        help_heading = "Service",
        env = "SERVICE_REGISTRY_PORT_ENV",
        value_name = "NAME",
        value_parser = port::variable
    )]
    port_env: Option<String>,
}

/// What is said of the port.
pub(super) struct Ports {
    pub(super) rule: PortRule,
    /// The variable that tells the command, and what it tells.
    pub(super) variable: Option<(String, u16)>,
    /// The same, if nobody named it.
    pub(super) chosen: Option<u16>,
}

/// What these options came to.
pub(super) struct Endpoint {
    name: Option<String>,
    /// An address, or a host's name.
    pub(super) host: Option<String>,
    pub(super) port: Option<Port>,
}

impl EndpointArguments {
    /// Which port it is, as far as that is known before the command runs. One may be chosen.
    ///
    /// # Errors
    /// When there is no free one.
    pub(super) fn ports(&mut self) -> io::Result<Ports> {
        let rule = if self.port == Some(Port::Auto) { PortRule::Found } else { PortRule::Named };
        let Some(name) = self.port_env.clone() else {
            return Ok(Ports { rule, variable: None, chosen: None });
        };
        if let Some(Port::Number(number)) = self.port {
            return Ok(Ports { rule, variable: Some((name, number.get())), chosen: None });
        }
        let number = port::free()?;
        if self.port.is_none() {
            self.port = NonZeroU16::new(number).map(Port::Number);
        }
        Ok(Ports { rule, variable: Some((name, number)), chosen: Some(number) })
    }

    pub(super) fn resolved(&self, registries: &[&RegistryUrl]) -> Result<Endpoint, AddressError> {
        let host = self.address.as_ref().map(|what| address::resolve(what, registries)).transpose()?;
        Ok(Endpoint { name: self.name.clone(), host, port: self.port })
    }
}

impl Endpoint {
    /// Puts what was said behind the pairs of --metadata: the last value of a key counts. A port that is to be found
    /// comes later.
    pub(super) fn add_to(&self, pairs: &mut Vec<(String, String)>) {
        let mut add = |key: &str, value: String| pairs.push((key.to_owned(), value));
        if let Some(name) = &self.name {
            add("name", name.clone());
        }
        if let Some(Port::Number(port)) = self.port {
            add("port", port.to_string());
        }
        if let Some(host) = &self.host {
            add("host", host.clone());
            // `Registration::endpoint` reads `address` first.
            if pairs.iter().any(|(key, _)| key == "address") {
                pairs.push(("address".to_owned(), host.clone()));
            }
        }
    }
}

fn name(text: &str) -> Result<String, model::Error> {
    Metadata::new([("name".to_owned(), text.to_owned())]).map(|_| text.to_owned())
}
