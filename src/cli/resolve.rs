//! Where services are, for a script or a template.

use std::fmt::Write as _;
use std::net::IpAddr;

use clap::Args;
use serde::Serialize;

use super::output::{Cell, Format, Output, Row, print};
use super::part::Part;
use super::{Error, services, warn};
use crate::model::{Endpoint, Registration, ServiceId, Tag, Tags, printable};
use crate::registry::Registry;

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The service's id
    #[arg(value_name = "NAME", required_unless_present = "tag", conflicts_with = "tag")]
    name: Option<ServiceId>,
    /// All services with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
}

/// A service that says where it is.
struct Found {
    registration: Registration,
    endpoint: Endpoint,
}

pub(super) async fn run(resolve: Resolve, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    let wanted = match (&resolve.name, &resolve.tag) {
        (Some(name), _) => name.to_string(),
        (None, Some(tag)) => tag.as_str().to_owned(),
        (None, None) => String::new(),
    };
    let registrations = match resolve {
        Resolve { name: Some(name), .. } => vec![registry.service(&name).await?.registration],
        Resolve { tag, .. } => {
            let page = services::page(registry, tag, &Part::whole()).await?;
            page.values.into_iter().map(|service| service.registration).collect()
        }
    };
    let found: Vec<Found> = registrations.into_iter().filter_map(found).collect();
    if found.is_empty() {
        return Err(Error::NoAddress { wanted });
    }
    match output.format {
        Format::Env => print(&env(&wanted, &found))?,
        Format::Hosts => print(&hosts(&found))?,
        Format::Haproxy => print(&lines(&found, |id, address| format!("server {id} {address} check")))?,
        Format::Nginx => print(&lines(&found, |_, address| format!("server {address};")))?,
        _ => output.list(&found)?,
    }
    Ok(())
}

/// Templates and scripts get only what is an address and nothing else.
fn found(registration: Registration) -> Option<Found> {
    let Some(endpoint) = registration.endpoint() else {
        warn(&format!("{} does not say where it is: left out", registration.id));
        return None;
    };
    if !endpoint.is_plain() {
        let shown = printable(&endpoint.to_string());
        warn(&format!("`{shown}` of {} is no address: left out", registration.id));
        return None;
    }
    Some(Found { registration, endpoint })
}

/// Shell variables, named after what was asked for.
fn env(wanted: &str, found: &[Found]) -> String {
    let mut prefix: String = wanted
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    if prefix.starts_with(|first: char| first.is_ascii_digit()) {
        prefix.insert(0, '_');
    }
    let mut text = String::new();
    for (number, Found { endpoint, .. }) in found.iter().enumerate() {
        // The first one is also there without a number.
        for name in
            (number == 0).then(|| prefix.clone()).into_iter().chain([format!("{prefix}_{}", number + 1)])
        {
            let _ = writeln!(text, "{name}_ADDRESS='{endpoint}'\n{name}_HOST='{}'", endpoint.host);
            if let Some(port) = &endpoint.port {
                let _ = writeln!(text, "{name}_PORT='{port}'");
            }
        }
    }
    let addresses: Vec<String> = found.iter().map(|found| found.endpoint.to_string()).collect();
    let _ = writeln!(text, "{prefix}_ADDRESSES='{}'\n{prefix}_COUNT='{}'", addresses.join(","), found.len());
    text
}

/// As in `/etc/hosts`: only IP addresses can stand there.
fn hosts(found: &[Found]) -> String {
    let mut text = String::new();
    for Found { registration, endpoint } in found {
        if endpoint.host.parse::<IpAddr>().is_ok() {
            let _ = writeln!(text, "{}\t{}", endpoint.host, registration.id);
        } else {
            warn(&format!("{} of {} is no IP address: left out", endpoint.host, registration.id));
        }
    }
    text
}

fn lines(found: &[Found], line: impl Fn(&ServiceId, &Endpoint) -> String) -> String {
    found.iter().map(|found| line(&found.registration.id, &found.endpoint) + "\n").collect()
}

impl Row for Found {
    const HEADINGS: &'static [&'static str] = &["Service ID", "Address", "Host", "Port", "Tags"];

    fn cells(&self) -> Vec<Cell> {
        let Self { registration, endpoint } = self;
        vec![
            Cell::text(&registration.id),
            Cell::text(endpoint),
            Cell::text(&endpoint.host),
            Cell::Text(endpoint.port.clone().unwrap_or_default()),
            Cell::Text(services::tags(registration)),
        ]
    }

    fn data(&self) -> impl Serialize {
        Data {
            id: &self.registration.id,
            address: self.endpoint.to_string(),
            host: &self.endpoint.host,
            port: self.endpoint.port.as_deref(),
            tags: &self.registration.tags,
        }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a ServiceId,
    address: String,
    host: &'a str,
    port: Option<&'a str>,
    tags: &'a Tags,
}
