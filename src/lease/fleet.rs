//! Several leases for one service: a registry each, failing alone, and how they stand together.
//!
//! No lease knows of another. What their owner acts on is an [`Overview`]: the worst of them where the service has to
//! be in every registry, the best where one is enough.

use std::sync::Arc;
use std::task::Poll;

use super::Standing;
use super::driver::{Keeper, Status, Wish};
use crate::model::Registration;
use crate::registry::Error;

/// How many of the registries it takes for the service to count as registered, or as refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Require {
    /// It is registered where one has it, and refused where all refuse.
    Any,
    /// It is registered where all have it, and refused where one refuses.
    All,
}

/// How the leases stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overview {
    /// The standing that counts. While the service is to leave, be it to return, it is [`Standing::Withdrawing`] until
    /// every registry has answered that was all right when that began.
    pub standing: Standing,
    /// Whether any registry can be expected to answer at once, be it that it fails: so that a withdrawal is worth waiting
    /// for.
    pub answers: bool,
    /// Whether any registry has the service, so that those who look it up may have been told of it.
    pub holds: bool,
}

impl Overview {
    /// That of leases which stand like this and are to be held.
    #[must_use]
    pub fn of(standings: &[Standing], require: Require) -> Self {
        let by_rank = standings.iter().copied();
        let standing = match require {
            Require::Any => by_rank.max_by_key(|standing| rank(*standing)),
            Require::All => by_rank.min_by_key(|standing| rank(*standing)),
        };
        Self {
            standing: standing.unwrap_or(Standing::Idle),
            answers: standings.iter().any(|standing| answers(*standing)),
            holds: standings.contains(&Standing::Held),
        }
    }

    /// That of leases which are to leave, and to return; `awaited` are those that are waited for. One that may be listed still
    /// is not out, even if it is not waited for.
    fn suspending(standings: &[Standing], awaited: &[bool]) -> Self {
        const OVER: [Standing; 3] = [Standing::Failing, Standing::Suspended, Standing::Withdrawn];
        let is_outstanding = |(standing, awaited): (&Standing, &bool)| *awaited && !OVER.contains(standing);
        let answers = standings.iter().zip(awaited).any(is_outstanding);
        let over = OVER.into_iter().find(|over| standings.contains(over)).unwrap_or(Standing::Withdrawn);
        let standing = if answers { Standing::Withdrawing } else { over };
        Self { standing, answers, holds: standings.contains(&Standing::Held) }
    }

    /// That of leases which are to leave; `awaited` are those that are waited for.
    fn leaving(standings: &[Standing], awaited: &[bool]) -> Self {
        let is_outstanding =
            |(standing, awaited): (&Standing, &bool)| *awaited && *standing != Standing::Withdrawn;
        let answers = standings.iter().zip(awaited).any(is_outstanding);
        Self {
            standing: if answers { Standing::Withdrawing } else { Standing::Withdrawn },
            answers,
            holds: standings.contains(&Standing::Held),
        }
    }
}

/// From the worst to the best.
fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Refused => 0,
        Standing::Failing => 1,
        Standing::Waiting => 2,
        Standing::Withdrawn => 3,
        Standing::Suspended => 4,
        Standing::Withdrawing => 5,
        Standing::Idle => 6,
        Standing::Registering => 7,
        // As it is to be: for nobody a reason to worry, or to wait.
        Standing::Drained => 8,
        Standing::Held => 9,
    }
}

/// Whether the registry was all right when last heard of.
fn answers(standing: Standing) -> bool {
    matches!(
        standing,
        Standing::Held
            | Standing::Suspended
            | Standing::Registering
            | Standing::Drained
            | Standing::Withdrawing
    )
}

/// Whether the service may be in the registry as one that is not healthy, and the registry is quick.
fn is_in_and_quick(status: &Status) -> bool {
    matches!(status.standing, Standing::Suspended | Standing::Failing) && is_quick(status)
}

/// Likewise; or whether it is quick to fail. It may be back by now, which the next try would show; and where it is not,
/// that is known at once.
fn is_quick(status: &Status) -> bool {
    let is_silent = status.failure.as_ref().is_some_and(|failure| failure.is_silence());
    answers(status.standing) || (status.standing == Standing::Failing && !is_silent)
}

/// How one of several leases stands, and where.
#[derive(Debug, Clone)]
pub struct Member {
    /// The registry's URL, without credentials.
    pub registry: String,
    /// Where it stands.
    pub standing: Standing,
    /// Where it stood when it was last looked at.
    pub before: Standing,
    /// Whether the registry has ever said that it has the service.
    pub has_been_held: bool,
    /// The last failure, while it stands as it does because of it.
    pub failure: Option<Arc<Error>>,
}

/// Leases that are being kept. Dropped, the service is left to expire.
#[derive(Debug)]
pub struct Fleet {
    leases: Vec<Lease>,
    require: Require,
    /// What is wanted of them.
    wish: Wish,
    /// Once the service is to leave: which registries were all right when that began.
    awaited: Vec<bool>,
}

#[derive(Debug)]
struct Lease {
    registry: String,
    keeper: Keeper,
    /// Where it stood when it was last looked at.
    known: Standing,
    has_been_held: bool,
}

impl Fleet {
    /// The `keepers`, each with its registry's URL.
    #[must_use]
    pub fn new(keepers: Vec<(String, Keeper)>, require: Require) -> Self {
        let lease =
            |(registry, keeper)| Lease { registry, keeper, known: Standing::Idle, has_been_held: false };
        Self {
            leases: keepers.into_iter().map(lease).collect(),
            require,
            wish: Wish::Idle,
            awaited: Vec::new(),
        }
    }

    /// Says what is wanted from now on, everywhere.
    pub fn wish(&mut self, wish: Wish) {
        let statuses = self.leases.iter().map(|lease| lease.keeper.glance());
        match (&self.wish, &wish) {
            (Wish::Idle | Wish::Listed, _) => {
                self.awaited = statuses.map(|status| is_quick(&status)).collect();
            }
            (Wish::Suspended(_), Wish::Unlisted) => {
                let awaited = statuses.zip(&self.awaited);
                self.awaited = awaited.map(|(status, before)| *before || is_in_and_quick(&status)).collect();
            }
            _ => {}
        }
        for lease in &self.leases {
            lease.keeper.wish(wish.clone());
        }
        self.wish = wish;
    }

    /// Has the next registration in each registry be this, in their order.
    pub fn amend(&self, registrations: impl IntoIterator<Item = Registration>) {
        for (lease, registration) in self.leases.iter().zip(registrations) {
            lease.keeper.amend(registration);
        }
    }

    /// Keeps none of them any more: the service is left to expire.
    pub fn abandon(&mut self) {
        self.leases.clear();
    }

    /// How the leases stand together now, and each of them.
    #[must_use]
    pub fn status(&mut self) -> (Overview, Vec<Member>) {
        let member = |lease: &mut Lease| {
            let Status { standing, failure } = lease.keeper.status();
            let before = std::mem::replace(&mut lease.known, standing);
            lease.has_been_held |= standing == Standing::Held;
            let (registry, has_been_held) = (lease.registry.clone(), lease.has_been_held);
            Member { registry, standing, before, has_been_held, failure }
        };
        let statuses: Vec<Status> = self.leases.iter().map(|lease| lease.keeper.glance()).collect();
        let members: Vec<Member> = self.leases.iter_mut().map(member).collect();
        let standings: Vec<Standing> = members.iter().map(|member| member.standing).collect();
        let overview = match &self.wish {
            Wish::Unlisted => Overview::leaving(&standings, &self.awaited),
            Wish::Suspended(_) => {
                let overview = Overview::suspending(&standings, &self.awaited);
                Overview { answers: overview.answers || statuses.iter().any(is_in_and_quick), ..overview }
            }
            Wish::Idle | Wish::Listed => {
                let answers = statuses.iter().any(is_quick);
                Overview { answers, ..Overview::of(&standings, self.require) }
            }
        };
        (overview, members)
    }

    /// Returns when the status of any of them has changed since it was last looked at.
    pub async fn changed(&mut self) {
        let mut changes: Vec<_> =
            self.leases.iter_mut().map(|lease| Box::pin(lease.keeper.changed())).collect();
        std::future::poll_fn(|context| {
            let has_changed = changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready());
            if has_changed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Standing; 10] = [
        Standing::Idle,
        Standing::Registering,
        Standing::Waiting,
        Standing::Drained,
        Standing::Held,
        Standing::Suspended,
        Standing::Failing,
        Standing::Refused,
        Standing::Withdrawing,
        Standing::Withdrawn,
    ];

    fn standing(standings: &[Standing], require: Require) -> Standing {
        Overview::of(standings, require).standing
    }

    #[test]
    fn registered_is_in_all_of_them_or_in_any() {
        use Standing::{Drained, Failing, Held, Registering, Waiting};
        for (standings, all, any) in [
            ([Drained, Held], Drained, Held),
            ([Drained, Registering], Registering, Drained),
            ([Drained, Failing], Failing, Drained),
            ([Held, Held], Held, Held),
            ([Held, Registering], Registering, Held),
            ([Failing, Held], Failing, Held),
            ([Waiting, Failing], Failing, Waiting),
            ([Registering, Failing], Failing, Registering),
        ] {
            assert_eq!(standing(&standings, Require::All), all, "{standings:?}");
            assert_eq!(standing(&standings, Require::Any), any, "{standings:?}");
        }
    }

    #[test]
    fn one_refusal_is_enough_where_all_are_needed_and_takes_all_where_one_is() {
        for other in ALL {
            let standings = [other, Standing::Refused];
            assert_eq!(standing(&standings, Require::All), Standing::Refused);
            let is_refused = standing(&standings, Require::Any) == Standing::Refused;
            assert_eq!(is_refused, other == Standing::Refused, "{other:?}");
        }
    }

    #[test]
    fn a_withdrawal_is_worth_waiting_for_where_any_registry_answers() {
        for require in [Require::Any, Require::All] {
            for trouble in [Standing::Failing, Standing::Waiting, Standing::Refused] {
                assert!(Overview::of(&[trouble, Standing::Held], require).answers);
                assert!(!Overview::of(&[trouble, trouble], require).answers);
            }
        }
    }

    #[test]
    fn a_withdrawal_is_over_when_those_have_answered_that_could() {
        use Standing::{Failing, Held, Withdrawing, Withdrawn};
        let awaited = [true, false, true];
        for (standings, expected) in [
            ([Held, Failing, Held], Withdrawing),
            ([Withdrawn, Withdrawing, Withdrawing], Withdrawing),
            ([Withdrawn, Withdrawing, Withdrawn], Withdrawn),
            ([Withdrawn, Withdrawn, Withdrawn], Withdrawn),
        ] {
            assert_eq!(Overview::leaving(&standings, &awaited).standing, expected, "{standings:?}");
        }
    }

    #[test]
    fn a_service_is_suspended_when_those_that_could_have_answered_and_one_has_it() {
        use Standing::{Failing, Held, Suspended, Withdrawing, Withdrawn};
        let awaited = [true, false, true];
        for (standings, expected) in [
            ([Held, Withdrawing, Suspended], Withdrawing),
            ([Withdrawn, Withdrawing, Suspended], Suspended),
            ([Withdrawn, Failing, Suspended], Failing),
            ([Withdrawn, Withdrawn, Withdrawn], Withdrawn),
        ] {
            assert_eq!(Overview::suspending(&standings, &awaited).standing, expected, "{standings:?}");
        }
        // From there it still has to leave.
        assert_eq!(Overview::leaving(&[Withdrawn, Withdrawn, Suspended], &awaited).standing, Withdrawing);
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        prop::sample::select(&ALL[..])
    }

    proptest! {
        #[test]
        fn one_lease_stands_for_itself(one in any_standing()) {
            for require in [Require::Any, Require::All] {
                prop_assert_eq!(standing(&[one], require), one);
            }
        }

        #[test]
        fn the_order_does_not_matter(mut standings in prop::collection::vec(any_standing(), 1..6)) {
            let overviews = |standings: &[Standing]| {
                [Require::Any, Require::All].map(|require| Overview::of(standings, require))
            };
            let before = overviews(&standings);
            standings.reverse();
            prop_assert_eq!(overviews(&standings), before);
        }
    }
}
