//! Runs a [`Lease`] against a [`Registry`]: sends what it says, one request at a time, and tells it what came
//! of it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::journal::Journal;
use super::{Action, Call, Clock, Credentials, Event, Lease, Policy, Request, Standing};
use crate::message::chain;
use crate::model::{Drained, InstanceId, Registration};
use crate::registry::{self, Cause, Claim, Error, Owner, Recourse, Registry};

/// What is to be kept registered, where, and how.
#[derive(Clone)]
pub struct Task {
    /// Where.
    pub registry: Arc<dyn Registry>,
    /// What.
    pub registration: Registration,
    /// By whom: this life of this wrapper.
    pub instance: InstanceId,
    /// The same in words, for whoever finds the id taken.
    pub holder: String,
    /// How.
    pub policy: Policy,
}

/// What the owner of a lease wants of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing yet.
    Idle,
    /// That the service be in the registry.
    Listed,
    /// That nobody be shown it, because of this, until it is to be listed again: out of the registry, or, if that can say so,
    /// [in it as unhealthy](Registry::suspend).
    Suspended(Arc<str>),
    /// That it be out of it.
    Unlisted,
}

/// Where a lease stands, and why.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it stands.
    pub standing: Standing,
    /// The last failure, while it stands as it does because of it.
    pub failure: Option<Arc<Error>>,
}

/// A lease that is being kept. Dropped, its service is left to expire.
#[derive(Debug)]
pub struct Keeper {
    wish: watch::Sender<Wish>,
    registration: watch::Sender<Registration>,
    status: watch::Receiver<Status>,
}

impl Keeper {
    /// Says what is wanted from now on.
    pub fn wish(&self, wish: Wish) {
        self.wish.send_replace(wish);
    }

    /// Has the next registration be this, of the same id and heartbeat timeout; what is listed stays as it is.
    pub fn amend(&self, registration: Registration) {
        self.registration.send_replace(registration);
    }

    /// Where the lease stands now.
    #[must_use]
    pub fn status(&mut self) -> Status {
        self.status.borrow_and_update().clone()
    }

    /// The same, and still to be looked at.
    pub(super) fn glance(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Returns when the status has changed since it was last looked at.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            // Only a runtime that is shutting down ends the keeping.
            std::future::pending::<()>().await;
        }
    }
}

/// Starts keeping a lease, on the current runtime.
///
/// A panic in it is told and answered with a new start: the child lives, so its registration has to.
pub fn keep<C: Clock>(task: Task, clock: C) -> Keeper {
    let (wish, wishes) = watch::channel(Wish::Idle);
    let (registration, amendments) = watch::channel(task.registration.clone());
    let (statuses, status) = watch::channel(Status { standing: Standing::Idle, failure: None });
    let clock = Arc::new(clock);
    tokio::spawn(async move {
        loop {
            let lease = Lease::new(task.policy.clone(), Rng::with_seed(seed(task.instance)));
            let mut driver =
                Driver::new(task.clone(), Arc::clone(&clock), wishes.clone(), statuses.clone(), lease);
            driver.amendments = Some(amendments.clone());
            match tokio::spawn(driver.run()).await {
                Ok(()) => return,
                Err(panic) => {
                    tracing::error!(service = %task.registration.id, error = %panic, "starting the lease anew");
                }
            }
            let pause = task.registration.heartbeat_timeout.as_duration() / 3;
            clock.sleep_until(clock.now() + pause).await;
        }
    });
    Keeper { wish, registration, status }
}

/// What a driver asks for what to do: a [`Lease`], or one that a test has spoilt.
pub(super) trait Decide {
    /// See [`Lease::deadline`].
    fn deadline(&self) -> Option<Instant>;
    /// See [`Lease::standing`].
    fn standing(&self) -> Standing;
    /// See [`Lease::on`].
    fn on(&mut self, event: Event, now: Instant) -> Action;
}

impl Decide for Lease {
    fn deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn standing(&self) -> Standing {
        self.standing()
    }

    fn on(&mut self, event: Event, now: Instant) -> Action {
        self.on(event, now)
    }
}

type Answer = Result<Event, Error>;

pub(super) struct Driver<C, L> {
    task: Task,
    clock: Arc<C>,
    wishes: watch::Receiver<Wish>,
    /// What is to be known of the service, where that can change.
    amendments: Option<watch::Receiver<Registration>>,
    statuses: watch::Sender<Status>,
    lease: L,
    journal: Journal,
    /// Why the service is not healthy, where it is not.
    reason: Arc<str>,
    /// What the last look said, if that kept the service out.
    drained: Option<Drained>,
    under_way: Option<UnderWay>,
}

/// A request whose answer is outstanding.
struct UnderWay {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    timeout: Duration,
    /// On the same clock as everything else: one timer is enough, as nothing is due while a request is under way.
    give_up_at: Instant,
}

impl<C: Clock, L: Decide> Driver<C, L> {
    pub(super) fn new(
        task: Task,
        clock: Arc<C>,
        mut wishes: watch::Receiver<Wish>,
        statuses: watch::Sender<Status>,
        lease: L,
    ) -> Self {
        wishes.mark_changed();
        let journal = Journal::new(&task.registration, task.registry.url());
        Self {
            task,
            clock,
            wishes,
            amendments: None,
            statuses,
            lease,
            journal,
            reason: Arc::default(),
            drained: None,
            under_way: None,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(event) = self.next().await {
            let now = self.clock.now();
            if event == Event::DeadlineReached {
                self.journal.woke(self.lease.deadline(), now);
            }
            match &event {
                Event::Registered(_) | Event::HeartbeatAccepted(_) | Event::Deregistered => {
                    self.drained = None;
                    self.journal.succeeded(&event);
                }
                Event::Drained(drained) => {
                    self.drained = Some(drained.clone());
                    self.journal.drained(drained, now);
                }
                Event::Failed(_) => self.drained = None,
                Event::Enlist | Event::Suspend | Event::Withdraw | Event::DeadlineReached => {}
            }
            if let Action::Send(request) = self.lease.on(event, now) {
                self.send(request, now);
            }
            self.publish();
        }
    }

    fn send(&mut self, request: Request, now: Instant) {
        let timeout = request.timeout;
        if let (Call::Register(_), Some(amendments)) = (&request.call, &self.amendments) {
            self.task.registration = amendments.borrow().clone();
        }
        let reason = Arc::clone(&self.reason);
        let answer = Box::pin(call(self.task.clone(), request, self.drained.clone(), reason));
        self.under_way = Some(UnderWay { answer, timeout, give_up_at: now + timeout });
    }

    /// What happens next; nothing any more when nobody holds the [`Keeper`].
    async fn next(&mut self) -> Option<Event> {
        let next = self.under_way.as_ref().map(|request| request.give_up_at).or(self.lease.deadline());
        loop {
            return Some(tokio::select! {
                biased;
                answer = or_never(self.under_way.as_mut().map(|request| request.answer.as_mut())) => {
                    self.under_way = None;
                    self.heard(answer)
                }
                wish = self.wishes.changed() => {
                    wish.ok()?;
                    match &*self.wishes.borrow_and_update() {
                        Wish::Idle => continue,
                        Wish::Listed => Event::Enlist,
                        Wish::Suspended(reason) if self.task.registry.can_suspend() => {
                            self.reason = Arc::clone(reason);
                            Event::Suspend
                        }
                        Wish::Suspended(_) | Wish::Unlisted => Event::Withdraw,
                    }
                }
                () = or_never(next.map(|next| self.clock.sleep_until(next))) => match self.under_way.take() {
                    Some(UnderWay { timeout, .. }) => self.heard(Err(self.no_answer_within(timeout))),
                    None => Event::DeadlineReached,
                },
            });
        }
    }

    fn no_answer_within(&self, timeout: Duration) -> Error {
        let registry = self.task.registry.url().to_owned();
        Error::Unavailable { registry, source: Cause::TimedOut(timeout) }
    }

    fn heard(&mut self, answer: Answer) -> Event {
        answer.unwrap_or_else(|error| {
            let recourse = error.recourse();
            self.journal.failed(error, self.clock.now());
            Event::Failed(recourse)
        })
    }

    fn publish(&mut self) {
        let standing = self.lease.standing();
        self.journal.note(standing, self.clock.now());
        let failure = self.journal.failure();
        self.statuses.send_if_modified(|status| {
            let is_news = status.standing != standing;
            *status = Status { standing, failure };
            is_news
        });
    }
}

/// What `future` comes to; without one, nothing, ever: for the arms of a `select!` that have nothing to wait for.
pub(crate) async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// `drained` is what the registry said last, if that kept the service out; `reason` why the service is not healthy.
async fn call(task: Task, request: Request, drained: Option<Drained>, reason: Arc<str>) -> Answer {
    let Task { registry, registration, instance, holder, .. } = task;
    if request.credentials == Credentials::Renewed {
        registry.renew_credentials().await?;
    }
    match request.call {
        Call::Register(if_taken) => {
            let claim = Claim { instance, holder, if_taken };
            // Time enough is left to register.
            let longest = request.timeout / 2;
            if let Some(drained) = look(&*registry, &registration, &claim, drained, longest).await? {
                return Ok(Event::Drained(drained));
            }
            registry.register(&registration, &claim).await.map(Event::Registered)
        }
        Call::Heartbeat(token) => {
            let ours = Owner::Instance(instance);
            registry.heartbeat(&registration.id, &token, ours).await.map(Event::HeartbeatAccepted)
        }
        Call::Suspend(token) => {
            let ours = Owner::Instance(instance);
            let answer = registry.suspend(&registration.id, &token, ours, &reason).await;
            answer.map(Event::HeartbeatAccepted)
        }
        Call::Deregister => {
            let ours = Owner::Instance(instance);
            registry.deregister(&registration.id, ours).await.map(|()| Event::Deregistered)
        }
    }
}

/// Whether somebody keeps the service out. A registry that does not say keeps nobody out; but what it said `before` outlasts
/// its outage.
///
/// # Errors
/// When we cannot log in: then we cannot register either, and need not try the login once more.
async fn look(
    registry: &dyn Registry,
    registration: &Registration,
    claim: &Claim,
    before: Option<Drained>,
    longest: Duration,
) -> registry::Result<Option<Drained>> {
    let answer = tokio::select! {
        biased;
        answer = registry.drained(registration, claim) => answer,
        // The clock's own timer is the request's.
        () = async { tokio::time::sleep(longest).await } => {
            Err(Error::Unavailable { registry: registry.url().to_owned(), source: Cause::TimedOut(longest) })
        }
    };
    let error = match answer {
        Ok(drained) => return Ok(drained),
        Err(error) => error,
    };
    if before.is_some() && error.recourse() == Recourse::Retry {
        return Ok(before);
    }
    if error.is_of_login() {
        return Err(error);
    }
    let (service, registry) = (&registration.id, registry.url());
    debug!(%service, registry, error = chain(&error), "cannot tell whether the service is drained");
    Ok(None)
}

/// Different for every life of every wrapper: what they do at random they do apart.
fn seed(instance: InstanceId) -> u64 {
    instance
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
