//! Maintenance by hand: a service that is out of the registry, and stays out, while its command runs on.

use std::time::Duration;

use clap::Args;
use nix::unistd::{User, geteuid, gethostname};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::output::{Cell, Output, Row, print};
use super::part::Part;
use super::services::Which;
use super::{Error, configuration, note};
use crate::model::{Drained, Namespace, ServiceId, Timestamp, escaped};
use crate::registry::{self, Object, Owner, Registry, drained};

/// Whoever was about to register when the service was drained has done so by then.
const SETTLING: Duration = Duration::from_millis(500);
/// How long it may be listed after that, and be taken out again.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever wonders: at most 255 characters
    #[arg(long, value_name = "TEXT", value_parser = Drained::reason)]
    reason: Option<String>,
}

/// Keeps a service out, and returns when it is out.
pub(super) async fn drain(drain: Drain, registry: &dyn Registry) -> Result<(), Error> {
    let Some(service) = drain.which.id() else { return Ok(()) };
    let before = drained(registry, &service).await?;
    let since = before.and_then(|before| before.since).unwrap_or_else(Timestamp::now);
    let drained =
        Drained { service: service.clone(), reason: drain.reason, since: Some(since), by: Some(ourselves()) };
    registry.configuration()?.set(&drained.value().map_err(Error::Value)?).await?;
    let was_there = match take_out(registry, &service).await {
        Ok(was_there) => was_there,
        Err(error) => {
            note(&format!(
                "{service} is drained, but may still be registered: it stays out once it is taken out"
            ));
            return Err(error);
        }
    };
    print(&if was_there {
        format!("Service \"{service}\" is drained, and out of the registry\n")
    } else {
        format!("Service \"{service}\" is drained; it was not registered\n")
    })?;
    Ok(())
}

/// Whoever is it, in words.
fn ourselves() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
    format!("{user}@{}", gethostname().unwrap_or_default().to_string_lossy())
}

/// Takes a service out, returns when it is listed no more, and tells whether it was there.
async fn take_out(registry: &dyn Registry, service: &ServiceId) -> Result<bool, Error> {
    let began = Instant::now();
    let was_there = match registry.deregister(service, Owner::Anyone).await {
        Ok(()) => true,
        Err(registry::Error::NotFound { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    loop {
        sleep(SETTLING).await;
        match registry.service(service).await {
            Err(registry::Error::NotFound { .. }) => return Ok(was_there),
            Err(error) => return Err(error.into()),
            Ok(_) if began.elapsed() > PATIENCE => return Err(Error::StillListed(service.clone())),
            // Where the list lags behind, there is nothing to take out.
            Ok(_) => drop(registry.deregister(service, Owner::Anyone).await),
        }
    }
}

/// Lets a service in again.
pub(super) async fn undrain(which: Which, registry: &dyn Registry) -> Result<(), Error> {
    let Some(service) = which.id() else { return Ok(()) };
    match registry.configuration()?.remove(&Drained::key(&service)).await {
        Ok(()) => {}
        Err(registry::Error::NotFound { object: Object::ConfigurationValue, .. }) => {
            return Err(Error::NotDrained(service));
        }
        Err(error) => return Err(error.into()),
    }
    print(&format!(
        "Service \"{service}\" is not drained any more: a wrapper registers it within a third of its interval\n"
    ))?;
    Ok(())
}

/// All that are drained.
pub(super) async fn list(registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    output.list(&everybody(registry).await?)?;
    Ok(())
}

/// All that are drained, by id.
pub(super) async fn everybody(registry: &dyn Registry) -> Result<Vec<Drained>, Error> {
    let namespace = Namespace::new(Drained::NAMESPACE).map_err(Error::Value)?;
    let page = configuration::page(registry.configuration()?, Some(namespace), &Part::whole()).await?;
    Ok(page.values.iter().filter_map(Drained::read).collect())
}

/// Says why a service that was looked for in vain may not be there.
pub(super) async fn explain(registry: &dyn Registry, service: &ServiceId) {
    let Ok(Some(Drained { reason, since, by, .. })) = drained(registry, service).await else { return };
    let mut text = format!("{service} is drained");
    for (before, said) in [(" since ", since.map(|since| since.to_string())), (" by ", by), (": ", reason)] {
        text.extend(said.map(|said| format!("{before}{}", escaped(&said))));
    }
    note(&text);
}

impl Row for Drained {
    const HEADINGS: &'static [&'static str] = &["Service ID", "Since", "By", "Reason"];

    fn cells(&self) -> Vec<Cell> {
        let text = |text: &Option<String>| Cell::Text(text.clone().unwrap_or_default());
        vec![Cell::text(&self.service), Cell::Time(self.since), text(&self.by), text(&self.reason)]
    }

    fn data(&self) -> impl Serialize {
        Data {
            id: &self.service,
            since: self.since.map(|since| since.to_string()),
            by: self.by.as_deref(),
            reason: self.reason.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a ServiceId,
    since: Option<String>,
    by: Option<&'a str>,
    reason: Option<&'a str>,
}
