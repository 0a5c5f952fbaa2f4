//! What a service is, and where it can be reached: options that end up in its metadata.

use clap::Args;

use super::address::{self, AddressError};
use crate::model::{self, Metadata};
use crate::registry::RegistryUrl;

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

    /// The port it can be reached at: 1 to 65535
    ///
    /// The command is not told: it has to be given the same. It is the metadata `port`, and beats the `port` of
    /// --metadata. A variable of the form `tcp://...` counts as none: Kubernetes sets it where there is a service
    /// called service-registry.
    #[arg(
        long,
        help_heading = "Service",
        env = "SERVICE_REGISTRY_PORT",
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    port: Option<u16>,
}

/// What these options came to.
pub(super) struct Endpoint {
    name: Option<String>,
    /// An address, or a host's name.
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
}

impl EndpointArguments {
    pub(super) fn resolved(self, registries: &[&RegistryUrl]) -> Result<Endpoint, AddressError> {
        let host = self.address.map(|what| address::resolve(&what, registries)).transpose()?;
        Ok(Endpoint { name: self.name, host, port: self.port })
    }
}

impl Endpoint {
    /// Puts what was said behind the pairs of --metadata: the last value of a key counts.
    pub(super) fn add_to(&self, pairs: &mut Vec<(String, String)>) {
        let mut add = |key: &str, value: String| pairs.push((key.to_owned(), value));
        if let Some(name) = &self.name {
            add("name", name.clone());
        }
        if let Some(port) = self.port {
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
