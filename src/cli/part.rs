use clap::Args;

use super::output::Extent;
use crate::model::{Limit, Marker, PageRequest};

/// Which part of a list is wanted.
#[derive(Debug, Clone, Args)]
pub(super) struct Part {
    /// How many at most, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value = "100")]
    limit: Limit,
    /// The id to begin at, as the page before told
    #[arg(long, value_name = "ID")]
    marker: Option<Marker>,
    /// All of them, from the marker on
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Part {
    /// All of it, from its beginning.
    pub(super) fn whole() -> Self {
        Self { limit: Limit::MAX, marker: None, all: true }
    }

    pub(super) fn extent(&self) -> Extent {
        if self.all { Extent::Whole } else { Extent::Page(self.limit) }
    }

    pub(super) fn first_page(&self) -> PageRequest<Marker> {
        let limit = if self.all { Limit::MAX } else { self.limit };
        PageRequest { marker: self.marker.clone(), limit }
    }
}
