//! What happens in a registry that keeps no log: from the moment on when it is first watched, across its outages.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use super::show::Printer;
use super::{Error, Follower};
use crate::cli;
use crate::registry::Watch;

impl<'a> Follower<'a> {
    /// Watches until nobody reads any more, which is looked for every `interval`.
    pub(super) async fn watch(&mut self, interval: Duration) -> Result<(), cli::Error> {
        if self.wanted.is_some() {
            return Err(Error::NoLog { registry: self.registry.url().to_owned() }.into());
        }
        let (mut watch, mut rng) = (None, Rng::new());
        loop {
            let wait = match self.look(&mut watch, interval).await {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(cli::Error::Registry(error)) => self.outage(error).await?.next(&mut rng),
                Err(error) => return Err(error),
            };
            sleep(wait).await;
        }
    }

    /// Shows what happens next.
    async fn look(
        &mut self,
        watch: &mut Option<Box<dyn Watch + 'a>>,
        interval: Duration,
    ) -> Result<ControlFlow<()>, cli::Error> {
        let watch = match watch {
            Some(watch) => watch,
            None => watch.insert(self.registry.watch().await?),
        };
        let mut next = pin!(watch.next());
        let events = loop {
            if self.printer.is_some() && Printer::is_unread() {
                return Ok(ControlFlow::Break(()));
            }
            tokio::select! {
                events = &mut next => break events?,
                () = sleep(interval) => {}
            }
        };
        self.answered();
        for event in events {
            if self.kind.is_none_or(|kind| kind == event.body.kind()) {
                self.tell(&event).await?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
