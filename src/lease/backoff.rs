use std::time::Duration;

use fastrand::Rng;

/// How long to wait before the next attempt: full jitter over a span that doubles with every failure, up to a
/// cap, so that clients that failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The span after the first failure.
    pub const FIRST: Duration = Duration::from_millis(250);

    /// Never waits for longer than `cap`.
    #[must_use]
    pub fn capped_at(cap: Duration) -> Self {
        Self { cap, failures: 0 }
    }

    /// The time to wait after one more failure: anything up to the span.
    pub fn next(&mut self, rng: &mut Rng) -> Duration {
        let span = Self::FIRST.saturating_mul(1 << self.failures.min(20)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    proptest! {
        #[test]
        fn a_wait_stays_within_its_span_and_the_cap(seed: u64, cap_ms in 1_u64..200_000, failures in 1_u32..60) {
            let cap = Duration::from_millis(cap_ms);
            let (mut backoff, mut rng) = (Backoff::capped_at(cap), Rng::with_seed(seed));
            let mut span = Backoff::FIRST;
            for _ in 0..failures {
                let wait = backoff.next(&mut rng);
                prop_assert!(wait <= cap && wait <= span);
                span = span.saturating_mul(2);
            }
        }
    }

    #[test]
    fn clients_that_fail_together_come_back_apart() {
        let first = |seed| Backoff::capped_at(Duration::from_secs(9)).next(&mut Rng::with_seed(seed));
        let waits: std::collections::BTreeSet<_> = (0..100).map(first).collect();
        assert!(waits.len() > 90);
    }
}
