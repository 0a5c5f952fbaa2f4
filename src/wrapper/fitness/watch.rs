//! The task that looks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::health::{Health, Sight, Verdict};
use super::readiness::{Pauses, Readiness, within};
use super::{Check, Condition, Fitness, IfLate, Known, News, OnUnhealthy, Plan, PortRule};
use crate::wrapper::descriptor::Line;
use crate::wrapper::probe::{self, Ports, Probe, Reason, Surroundings, Target};

/// How often it is seen whether a port that was found is still the one.
const PORT_LOOK: Duration = Duration::from_secs(1);
/// How long the ports have to stay the same to be all of them.
const SETTLED: Duration = Duration::from_millis(100);

pub(super) struct Watch {
    plan: Plan,
    surroundings: Surroundings,
    line: Option<Line>,
    known: latest::Receiver<Known>,
    says: mpsc::UnboundedSender<News>,
    started_at: Instant,
    /// What is said last.
    fitness: Fitness,
    reason: Arc<str>,
    port: Option<u16>,
}

impl Watch {
    pub(super) fn new(
        plan: Plan,
        surroundings: Surroundings,
        line: Option<Line>,
        known: latest::Receiver<Known>,
        says: mpsc::UnboundedSender<News>,
        started_at: Instant,
    ) -> Self {
        let (fitness, reason, port) = (Fitness::Unfit, Arc::default(), None);
        Self { plan, surroundings, line, known, says, started_at, fitness, reason, port }
    }

    pub(super) async fn run(mut self) {
        if self.get_ready().await == Fitness::Hopeless {
            return self.say(Fitness::Hopeless);
        }
        let up_at = self.started_at + self.plan.min_uptime;
        if up_at > Instant::now() {
            debug!(min_uptime = ?self.plan.min_uptime, "ready, waiting until it has been up for long enough");
            sleep_until(up_at).await;
        }
        if self.plan.port == PortRule::Found {
            self.port = Some(self.find_port().await);
        }
        if let Some(check) = self.plan.check.take() {
            self.check(check).await;
        } else {
            self.say(Fitness::Fit);
            self.follow_port().await;
        }
    }

    fn say(&mut self, fitness: Fitness) {
        self.fitness = fitness;
        let _ = self.says.send(News { fitness, reason: Arc::clone(&self.reason), port: self.port });
    }

    /// Waits until it is ready, or is not going to be.
    async fn get_ready(&mut self) -> Fitness {
        let mut conditions = std::mem::take(&mut self.plan.ready_when);
        let listening = Condition::Looks(Target::Listening(None));
        if self.plan.port == PortRule::Found && !conditions.contains(&listening) {
            conditions.push(listening);
        }
        if conditions.is_empty() {
            return Fitness::Fit;
        }
        let (missing, what_is_missing) = latest::channel(String::new());
        let readiness = Readiness {
            conditions,
            surroundings: self.surroundings.clone(),
            line: self.line.take(),
            known: self.known.clone(),
            started_at: self.started_at,
            missing,
        };
        let mut wait = Box::pin(readiness.wait());
        let limit = self.plan.ready_timeout;
        if timeout(limit, &mut wait).await.is_err() {
            let missing = what_is_missing.borrow().clone();
            if self.plan.if_late == IfLate::Stop {
                error!(missing, within = ?limit, "is not ready in time: stopping the child");
                return Fitness::Hopeless;
            }
            warn!(missing, within = ?limit, "is not ready in time, and not registered before it is");
            wait.await;
            warn!(after = ?self.started_at.elapsed(), "is ready at last");
        }
        info!(after = ?self.started_at.elapsed(), "ready");
        Fitness::Fit
    }

    /// The port to be registered: that which it is when there have been no others for a moment.
    async fn find_port(&self) -> u16 {
        let ports = Ports::new(self.surroundings.wards.clone());
        let (mut before, mut pauses) = (vec![], Pauses::new());
        loop {
            let start = Instant::now();
            let found = ports.look().ports();
            if let Some(port) = found.first().filter(|_| found == before) {
                tell_port(*port, &found);
                return *port;
            }
            sleep(if found.is_empty() { pauses.after(start.elapsed()) } else { SETTLED }).await;
            before = found;
        }
    }

    /// Another port, once the command listens on that one only.
    async fn moved(&self) -> u16 {
        let Some(port) = self.port else { return std::future::pending().await };
        let ports = Ports::new(self.surroundings.wards.clone());
        loop {
            let start = Instant::now();
            let found = ports.look().ports();
            // One that listens nowhere is on its way, or in trouble: that is for a check to see.
            if !found.is_empty() && !found.contains(&port) {
                return self.find_port().await;
            }
            sleep(PORT_LOOK.max(start.elapsed() * 100)).await;
        }
    }

    async fn follow_port(&mut self) {
        loop {
            let port = self.moved().await;
            if self.port != Some(port) {
                self.move_to(port);
            }
        }
    }

    /// The entry leaves, and comes back with the other port: nobody is led to the old one meanwhile.
    fn move_to(&mut self, port: u16) {
        self.port = Some(port);
        self.say(self.fitness);
    }

    async fn check(&mut self, check: Check) {
        let mut checker = Checker::new(check, &self.surroundings, self.known.clone());
        loop {
            let moved = async {
                match self.plan.port {
                    PortRule::Found => self.moved().await,
                    PortRule::Named => std::future::pending().await,
                }
            };
            tokio::select! {
                port = moved => self.move_to(port),
                verdict = checker.next() => match verdict {
                    Verdict::Healthy => self.say(Fitness::Fit),
                    Verdict::Unknown => {}
                    Verdict::Unhealthy if checker.check.on_unhealthy == OnUnhealthy::Stop => {
                        return self.say(Fitness::Hopeless);
                    }
                    Verdict::Unhealthy => {
                        self.reason = Arc::clone(&checker.trouble.public);
                        self.say(Fitness::Unfit);
                    }
                },
            }
        }
    }
}

fn tell_port(port: u16, all: &[u16]) {
    if all.len() > 1 {
        let others: Vec<_> = all.iter().map(u16::to_string).collect();
        let hint = "name another with --port";
        info!(port, all = others.join(", "), hint, "listens on several ports, registering one");
    } else {
        info!(port, "listens");
    }
}

/// The looks of `--check`. Between two calls of [`next`](Self::next), nothing is lost but a look under way.
struct Checker {
    check: Check,
    probes: Vec<Probe>,
    known: latest::Receiver<Known>,
    health: Health,
    next_at: Instant,
    /// Before the first good look, they are made more often, and only one in an interval counts.
    pauses: Pauses,
    counts_at: Instant,
    unhealthy_since: Option<Instant>,
    /// What was wrong last.
    trouble: Trouble,
}

/// What is wrong.
#[derive(Debug, Default)]
struct Trouble {
    /// For the log.
    whole: String,
    /// For everybody: a command line may have secrets in it.
    public: Arc<str>,
}

impl Trouble {
    fn with(target: &Target, reason: &Reason) -> Self {
        let whole = format!("{target}: {reason}");
        let public = match target {
            Target::Exec(_) => format!("exec: {reason}").into(),
            _ => whole.as_str().into(),
        };
        Self { whole, public }
    }
}

impl From<Reason> for Trouble {
    fn from(reason: Reason) -> Self {
        let whole = reason.to_string();
        Self { public: whole.as_str().into(), whole }
    }
}

impl Checker {
    fn new(check: Check, surroundings: &Surroundings, known: latest::Receiver<Known>) -> Self {
        let probes = check.targets.iter().map(|target| Probe::new(target, surroundings)).collect();
        let health = Health::new(check.rise, check.fall);
        let check_interval = check.interval;
        Self {
            check,
            probes,
            known,
            health,
            next_at: Instant::now(),
            pauses: Pauses::new(),
            counts_at: Instant::now() + check_interval,
            unhealthy_since: None,
            trouble: Trouble::default(),
        }
    }

    /// The next change of the verdict.
    async fn next(&mut self) -> Verdict {
        loop {
            sleep_until(self.next_at).await;
            let start = Instant::now();
            let seen = self.look().await;
            let now = Instant::now();
            self.next_at = now + self.check.interval;
            let sight = if seen.is_ok() { Sight::Good } else { Sight::Bad };
            if let Err(trouble) = seen {
                debug!(reason = trouble.whole, "a check failed");
                self.trouble = trouble;
            }
            let is_new = self.health.verdict() == Verdict::Unknown;
            if is_new && sight == Sight::Bad {
                self.next_at = now + self.pauses.after(now - start).min(self.check.interval);
                if now < self.counts_at {
                    continue;
                }
                self.counts_at = now + self.check.interval;
            }
            if let Some(verdict) = self.health.saw(sight) {
                self.tell(verdict);
                return verdict;
            }
        }
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let pid = self.known.borrow().pid;
        probe::is_running(pid)?;
        for (probe, target) in self.probes.iter_mut().zip(&self.check.targets) {
            within(self.check.timeout, probe).await.map_err(|reason| Trouble::with(target, &reason))?;
        }
        Ok(())
    }

    fn tell(&mut self, verdict: Verdict) {
        let reason = &self.trouble.whole;
        match verdict {
            Verdict::Unhealthy => {
                self.unhealthy_since = Some(Instant::now());
                match self.check.on_unhealthy {
                    OnUnhealthy::Withdraw => warn!(reason, "is not healthy: not listed until it is"),
                    OnUnhealthy::Stop => error!(reason, "is not healthy: stopping the child"),
                }
            }
            Verdict::Healthy => {
                let since = self.unhealthy_since.take();
                since.map_or_else(
                    || info!("is healthy"),
                    |since| warn!(after = ?since.elapsed(), "is healthy again"),
                );
            }
            Verdict::Unknown => {}
        }
    }
}
