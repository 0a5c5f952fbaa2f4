//! Whether the service can serve, and so is to be listed: ready, up for long enough, healthy.
//!
//! Where any of this was asked for, a task of its own looks, and says what has changed. It waits for nothing but the
//! time and its looks, each of which is cut off, and so holds up neither heartbeats nor the end.

mod condition;
mod health;
mod readiness;
mod watch;

use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::Instant;

pub(super) use self::condition::{Condition, ConditionError};
use self::watch::Watch;
use super::descriptor::Line;
use super::probe::{Surroundings, Target};

/// Whether the service can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It can.
    Fit,
    /// It cannot: not yet, or for the time being.
    Unfit,
    /// It is elsewhere than its entry says, which has to leave first.
    Moved,
    /// It cannot, and the command has to end because of it.
    Hopeless,
}

/// What makes the service fit.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What all has to have held once.
    pub(super) ready_when: Vec<Condition>,
    /// How long that may take before something is said or done.
    pub(super) ready_timeout: Duration,
    pub(super) if_late: IfLate,
    pub(super) min_uptime: Duration,
    pub(super) check: Option<Check>,
    pub(super) port: PortRule,
}

/// What to do about a command that does not get ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfLate {
    Wait,
    Stop,
}

/// Which port is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortRule {
    /// The one that was named, if any.
    Named,
    /// The one that the command listens on.
    Found,
}

/// How it is seen whether the service is healthy.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// What all has to be well.
    pub(super) targets: Vec<Target>,
    /// From the end of one look to the next.
    pub(super) interval: Duration,
    /// How long a look may take.
    pub(super) timeout: Duration,
    pub(super) rise: NonZeroU32,
    pub(super) fall: NonZeroU32,
    pub(super) on_unhealthy: OnUnhealthy,
}

/// What becomes of a command that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OnUnhealthy {
    /// It goes on, not listed until it is healthy.
    Withdraw,
    /// It is stopped, as one that cannot be registered.
    Stop,
}

impl Plan {
    /// Whether the service is fit as soon as its command runs.
    pub(super) fn is_empty(&self) -> bool {
        self.ready_when.is_empty()
            && self.min_uptime.is_zero()
            && self.check.is_none()
            && self.port == PortRule::Named
    }

    /// Whether the command is to have a service manager's socket.
    pub(super) fn wants_notify(&self) -> bool {
        self.ready_when.contains(&Condition::Notify)
    }

    /// The descriptor that the command is to have.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.ready_when.iter().find_map(|condition| match condition {
            Condition::Descriptor(number) => Some(*number),
            _ => None,
        })
    }

    /// Whether names may have to be looked up, which can take long, and takes a thread.
    pub(super) fn names_a_host(&self) -> bool {
        let of_conditions = self.ready_when.iter().filter_map(|condition| match condition {
            Condition::Looks(target) => Some(target),
            _ => None,
        });
        let of_check = self.check.iter().flat_map(|check| &check.targets);
        of_conditions.chain(of_check).any(Target::names_a_host)
    }
}

/// What is known of the command.
#[derive(Debug, Clone, Copy)]
struct Known {
    pid: Pid,
    has_said_ready: bool,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) fitness: Fitness,
    /// Why it is unfit, where it has been healthy.
    pub(super) reason: Arc<str>,
    /// The port to be registered, where it had to be found.
    pub(super) port: Option<u16>,
}

/// The task that looks, if there is one.
pub(super) struct Observer {
    known: latest::Sender<Known>,
    news: mpsc::UnboundedReceiver<News>,
}

impl Observer {
    /// Starts to look at the command, which has just been started; without a plan, there is nobody to look.
    pub(super) fn start(
        plan: &Plan,
        surroundings: Surroundings,
        line: Option<Line>,
        pid: Pid,
    ) -> Option<Self> {
        if plan.is_empty() {
            return None;
        }
        let (known, of_command) = latest::channel(Known { pid, has_said_ready: false });
        let (says, news) = mpsc::unbounded_channel();
        let started_at = Instant::now();
        let watch = Watch::new(plan.clone(), surroundings, line, of_command, says, started_at);
        tokio::spawn(watch.run());
        Some(Self { known, news })
    }

    /// What changes next.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// The command has said that it is ready.
    pub(super) fn heard_ready(&self) {
        self.known.send_modify(|known| known.has_said_ready = true);
    }

    /// A daemon has taken the command's place.
    pub(super) fn follow(&self, pid: Pid) {
        self.known.send_modify(|known| known.pid = pid);
    }
}
