//! The driver on a clock that the test moves, against a registry in memory that expires the silent.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::*;
use crate::lease::{OnConflict, TokioClock};
use crate::model::{
    ConfigurationId, ConfigurationValue, HeartbeatTimeout, Metadata, Page, Service, ServiceId, ServiceUpdate,
    Tags, Token,
};
use crate::registry::{ConfigurationQuery, ConfigurationStore, EventLog, Object, Result, ServiceQuery};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What the registry does with the next call, instead of its work.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Fail,
    Hang,
    Panic,
    /// Does it, and loses the answer.
    LoseAnswer,
}

#[derive(Default)]
struct Memory {
    held: Mutex<Option<Held>>,
    trouble: Mutex<VecDeque<Trouble>>,
    calls: Mutex<Vec<&'static str>>,
    configuration: Configuration,
}

/// Whether the service is drained.
#[derive(Default)]
struct Configuration {
    text: Mutex<Option<&'static str>>,
    trouble: Mutex<Option<Trouble>>,
}

impl Configuration {
    fn says(&self, text: Option<&'static str>) {
        *self.text.lock().unwrap() = text;
    }

    fn is_in(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap() = trouble;
    }
}

struct Held {
    instance: InstanceId,
    tokens: Vec<Token>,
    expires_at: Instant,
}

impl Memory {
    fn is_listed(&self) -> bool {
        self.held.lock().unwrap().as_ref().is_some_and(|held| held.expires_at > Instant::now())
    }

    fn forget(&self) {
        *self.held.lock().unwrap() = None;
    }

    fn expects(&self, trouble: impl IntoIterator<Item = Trouble>) {
        self.trouble.lock().unwrap().extend(trouble);
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    async fn call<T>(&self, name: &'static str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.calls.lock().unwrap().push(name);
        let trouble = self.trouble.lock().unwrap().pop_front();
        match trouble {
            None => work(),
            Some(Trouble::Fail) => Err(unavailable()),
            Some(Trouble::LoseAnswer) => work().and(Err(unavailable())),
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Panic) => panic!("a bug in the backend"),
        }
    }

    fn issue(held: &mut Held) -> Token {
        held.expires_at = Instant::now() + TIMEOUT;
        held.tokens.push(Token::new(held.tokens.len().to_string()));
        held.tokens.last().unwrap().clone()
    }
}

fn unavailable() -> Error {
    Error::Unavailable { registry: "memory".to_owned(), source: Cause::Internal("as told".to_owned()) }
}

fn not_found(id: &ServiceId) -> Error {
    Error::NotFound { registry: "memory".to_owned(), object: Object::Service, id: id.to_string() }
}

#[async_trait]
impl Registry for Memory {
    #[expect(clippy::unnecessary_literal_bound, reason = "the trait's signature")]
    fn url(&self) -> &str {
        "memory"
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        self.call("register", || {
            let mut held = self.held.lock().unwrap();
            match &*held {
                Some(held) if held.instance != claim.instance && held.expires_at > Instant::now() => {
                    let (id, holder) = (registration.id.clone(), "somebody".to_owned());
                    Err(Error::Conflict { id, holder, frees_in: None })
                }
                _ => {
                    let instance = claim.instance;
                    let new = Held { instance, tokens: Vec::new(), expires_at: Instant::now() };
                    Ok(Self::issue(held.insert(new)))
                }
            }
        })
        .await
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, _: Owner) -> Result<Token> {
        self.call("heartbeat", || match &mut *self.held.lock().unwrap() {
            Some(held)
                if held.expires_at > Instant::now()
                    && held.tokens.iter().rev().take(2).any(|t| t == token) =>
            {
                Ok(Self::issue(held))
            }
            _ => Err(not_found(id)),
        })
        .await
    }

    async fn deregister(&self, id: &ServiceId, _: Owner) -> Result<()> {
        self.call("deregister", || self.held.lock().unwrap().take().map(drop).ok_or_else(|| not_found(id)))
            .await
    }

    async fn update(&self, id: &ServiceId, _: &ServiceUpdate) -> Result<()> {
        Err(not_found(id))
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        Err(not_found(id))
    }

    async fn services(&self, _: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        Ok(Page { values: Vec::new(), next_marker: None, stale_since: None })
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Err(Error::Unsupported { operation: "the event log", kind: "memory", supported_by: "" })
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(&self.configuration)
    }
}

#[async_trait]
impl ConfigurationStore for Configuration {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            None => {}
            Some(Trouble::Hang) => std::future::pending().await,
            Some(_) => return Err(unavailable()),
        }
        let text = *self.text.lock().unwrap();
        let object = Object::ConfigurationValue;
        let missing = || Error::NotFound { registry: "memory".to_owned(), object, id: id.to_string() };
        text.map(|text| ConfigurationValue::new(id.clone(), text).unwrap()).ok_or_else(missing)
    }

    async fn values(&self, _: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        Ok(Page { values: Vec::new(), next_marker: None, stale_since: None })
    }

    async fn set(&self, _: &ConfigurationValue) -> Result<()> {
        Err(unavailable())
    }

    async fn remove(&self, _: &ConfigurationId) -> Result<()> {
        Err(unavailable())
    }
}

fn kept(registry: &Arc<Memory>) -> Keeper {
    let registration = Registration {
        id: "service".parse().unwrap(),
        heartbeat_timeout: HeartbeatTimeout::from_secs(TIMEOUT.as_secs()).unwrap(),
        tags: Tags::default(),
        metadata: Metadata::default(),
    };
    let policy = Policy {
        timeout: registration.heartbeat_timeout,
        on_conflict: OnConflict::Wait,
        give_up_after: None,
    };
    let holder = "the test".to_owned();
    let registry: Arc<dyn Registry> = Arc::clone(registry) as _;
    keep(Task { registry, registration, instance: InstanceId::unique(), holder, policy }, TokioClock)
}

async fn until(keeper: &mut Keeper, standing: Standing) {
    while keeper.status().standing != standing {
        keeper.changed().await;
    }
}

async fn held(registry: &Arc<Memory>) -> Keeper {
    let mut keeper = kept(registry);
    keeper.wish(Wish::Listed);
    until(&mut keeper, Standing::Held).await;
    keeper
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_the_registry_before_it_is_wished_for() {
    let registry = Arc::new(Memory::default());
    let _keeper = kept(&registry);
    sleep(Duration::from_secs(3600)).await;
    assert!(registry.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_is_listed_for_as_long_as_it_is_kept_and_no_longer() {
    let registry = Arc::new(Memory::default());
    let keeper = held(&registry).await;
    for _ in 0..3600 {
        assert!(registry.is_listed());
        sleep(Duration::from_secs(1)).await;
    }
    let calls = registry.calls();
    assert_eq!(calls.iter().filter(|call| **call == "register").count(), 1);
    assert!((360..=460).contains(&calls.len()), "{} calls in an hour", calls.len());
    drop(keeper);
    sleep(TIMEOUT).await;
    assert!(!registry.is_listed());
    assert!(registry.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_registry_costs_a_try_and_not_the_lease() {
    let registry = Arc::new(Memory::default());
    let _keeper = held(&registry).await;
    for _ in 0..20 {
        registry.expects([Trouble::Hang, Trouble::Hang, Trouble::Fail]);
        sleep(TIMEOUT).await;
        assert!(registry.is_listed());
    }
    assert_eq!(registry.calls().iter().filter(|call| **call == "register").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_cost_the_lease() {
    let registry = Arc::new(Memory::default());
    registry.expects([Trouble::LoseAnswer]);
    let _keeper = held(&registry).await;
    for _ in 0..20 {
        registry.expects([Trouble::LoseAnswer]);
        sleep(TIMEOUT).await;
        assert!(registry.is_listed());
    }
    assert_eq!(registry.calls().iter().filter(|call| **call == "register").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_forgot_is_told_again_at_the_next_heartbeat() {
    let registry = Arc::new(Memory::default());
    let _keeper = held(&registry).await;
    for _ in 0..20 {
        registry.forget();
        sleep(TIMEOUT / 3).await;
        assert!(registry.is_listed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_once_and_its_end_as_well() {
    let registry = Arc::new(Memory::default());
    let mut keeper = held(&registry).await;
    registry.expects([Trouble::Fail; 5]);
    until(&mut keeper, Standing::Failing).await;
    assert!(keeper.status().failure.is_some());
    until(&mut keeper, Standing::Held).await;
    assert!(keeper.status().failure.is_none());
    assert!(registry.is_listed());
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_goes_out_while_a_heartbeat_hangs() {
    let registry = Arc::new(Memory::default());
    let mut keeper = held(&registry).await;
    registry.expects([Trouble::Hang]);
    registry.calls();
    while registry.calls().is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    let asked_at = Instant::now();
    keeper.wish(Wish::Unlisted);
    until(&mut keeper, Standing::Withdrawn).await;
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
    assert!(!registry.is_listed());
}

#[tokio::test(start_paused = true)]
async fn who_is_withdrawn_stays_out_until_wished_back() {
    let registry = Arc::new(Memory::default());
    let mut keeper = held(&registry).await;
    keeper.wish(Wish::Unlisted);
    until(&mut keeper, Standing::Withdrawn).await;
    sleep(Duration::from_secs(3600)).await;
    assert!(!registry.is_listed());
    keeper.wish(Wish::Listed);
    until(&mut keeper, Standing::Held).await;
    assert!(registry.is_listed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_backend_does_not_end_the_keeping() {
    let registry = Arc::new(Memory::default());
    let _keeper = held(&registry).await;
    registry.expects([Trouble::Panic]);
    sleep(2 * TIMEOUT).await;
    for _ in 0..100 {
        assert!(registry.is_listed());
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_drained_stays_out_through_an_outage_and_is_back_when_that_is_over() {
    let registry = Arc::new(Memory::default());
    let mut keeper = held(&registry).await;
    registry.configuration.says(Some("new disk"));
    registry.forget();
    until(&mut keeper, Standing::Drained).await;
    assert!(keeper.status().failure.is_none());
    registry.calls();
    for trouble in [None, Some(Trouble::Fail), Some(Trouble::Hang)] {
        registry.configuration.is_in(trouble);
        sleep(10 * TIMEOUT).await;
        assert!(registry.calls().is_empty());
    }
    registry.configuration.is_in(None);
    registry.configuration.says(None);
    // The last look may still hang.
    sleep(TIMEOUT / 2).await;
    assert!(registry.is_listed());
    assert_eq!(keeper.status().standing, Standing::Held);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_say_who_is_drained_keeps_nobody_out() {
    for trouble in [Trouble::Fail, Trouble::Hang] {
        let registry = Arc::new(Memory::default());
        registry.configuration.is_in(Some(trouble));
        let mut keeper = kept(&registry);
        let began = Instant::now();
        keeper.wish(Wish::Listed);
        until(&mut keeper, Standing::Held).await;
        assert!(began.elapsed() < TIMEOUT / 6, "{trouble:?}: {:?}", began.elapsed());
    }
}
