//! From single looks to a verdict: it changes after so many of the same in a row.

use std::num::NonZeroU32;

/// What a series of looks comes to.
#[derive(Debug)]
pub(super) struct Health {
    rise: u32,
    fall: u32,
    verdict: Verdict,
    /// How many looks in a row have spoken against the verdict.
    against: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing has been seen yet: the first good look makes it healthy.
    Unknown,
    Healthy,
    Unhealthy,
}

/// What one look saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Good,
    Bad,
}

impl Health {
    pub(super) fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise: rise.get(), fall: fall.get(), verdict: Verdict::Unknown, against: 0 }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The verdict, if this look has changed it.
    pub(super) fn saw(&mut self, sight: Sight) -> Option<Verdict> {
        let (other, needed) = match (self.verdict, sight) {
            (Verdict::Unknown, Sight::Good) => (Verdict::Healthy, 1),
            (Verdict::Unhealthy, Sight::Good) => (Verdict::Healthy, self.rise),
            (Verdict::Unknown | Verdict::Healthy, Sight::Bad) => (Verdict::Unhealthy, self.fall),
            (Verdict::Healthy, Sight::Good) | (Verdict::Unhealthy, Sight::Bad) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = other;
        Some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(rise: u32, fall: u32) -> Health {
        Health::new(NonZeroU32::new(rise).unwrap(), NonZeroU32::new(fall).unwrap())
    }

    #[test]
    fn the_first_good_look_is_enough() {
        let mut health = health(3, 3);
        assert_eq!(health.saw(Sight::Bad), None);
        assert_eq!(health.saw(Sight::Good), Some(Verdict::Healthy));
    }

    #[test]
    fn so_many_in_a_row_change_it_and_one_between_begins_the_count_anew() {
        let mut health = health(2, 3);
        health.saw(Sight::Good);
        let looks = [Sight::Bad, Sight::Bad, Sight::Good, Sight::Bad, Sight::Bad];
        assert!(looks.iter().all(|sight| health.saw(*sight).is_none()));
        assert_eq!(health.saw(Sight::Bad), Some(Verdict::Unhealthy));
        assert_eq!(health.saw(Sight::Good), None);
        assert_eq!(health.saw(Sight::Bad), None);
        assert_eq!(health.saw(Sight::Good), None);
        assert_eq!(health.saw(Sight::Good), Some(Verdict::Healthy));
    }

    #[test]
    fn one_that_was_never_well_is_unhealthy_after_as_many() {
        let mut health = health(1, 2);
        assert_eq!(health.saw(Sight::Bad), None);
        assert_eq!(health.saw(Sight::Bad), Some(Verdict::Unhealthy));
    }
}
