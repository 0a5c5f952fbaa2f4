use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::model::{Page, Service, ServiceId, Timestamp};

/// How many pages are kept: a registry with a few tags, or a walk through a large one.
const CAPACITY: usize = 64;

type Query = [(&'static str, String)];

/// What the registry last said about services, for when it cannot be asked.
#[derive(Default)]
pub(super) struct Stale {
    /// The latest at the back.
    pages: Mutex<VecDeque<Kept>>,
}

struct Kept {
    query: Vec<(&'static str, String)>,
    page: Page<Service, ServiceId>,
    since: Timestamp,
}

impl Stale {
    /// Keeps a page, in the place of the oldest where there are too many.
    pub(super) fn keep(&self, query: &Query, page: &Page<Service, ServiceId>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|kept| kept.query != query);
        if pages.len() == CAPACITY {
            pages.pop_front();
        }
        pages.push_back(Kept { query: query.to_vec(), page: page.clone(), since: Timestamp::now() });
    }

    /// What was last said, marked as stale.
    pub(super) fn page(&self, query: &Query) -> Option<Page<Service, ServiceId>> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pages.iter().find(|kept| kept.query == query)?;
        Some(Page { stale_since: Some(kept.since), ..kept.page.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_page_makes_room() {
        let stale = Stale::default();
        let page = Page { values: vec![], next_marker: None, stale_since: None };
        let query = |number: usize| [("limit", number.to_string())];
        for number in 0..=CAPACITY {
            stale.keep(&query(number), &page);
        }
        assert!(stale.page(&query(0)).is_none());
        assert!(stale.page(&query(1)).unwrap().stale_since.is_some());
        stale.keep(&query(1), &page);
        stale.keep(&query(0), &page);
        assert!(stale.page(&query(1)).is_some() && stale.page(&query(2)).is_none());
    }
}
