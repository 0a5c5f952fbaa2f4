//! Which fault comes next.

use std::fmt;

use fastrand::Rng;

use crate::support::lab::{Fault, Kind, Laboratory, Proxy, Shock};

/// Something that goes wrong.
#[derive(Clone, Copy)]
pub(crate) enum Mishap {
    OnTheWay(Fault),
    AtTheRegistry(Shock),
}

impl Mishap {
    /// Any that can happen to a registry of this kind.
    pub(crate) fn any(kind: Kind, rng: &mut Rng) -> Self {
        let at_the_registry = Shock::of(kind).iter().map(|&shock| Self::AtTheRegistry(shock));
        let all: Vec<_> =
            Fault::on_the_way_to(kind).into_iter().map(Self::OnTheWay).chain(at_the_registry).collect();
        all[rng.usize(..all.len())]
    }

    pub(crate) fn begin(self, laboratory: &Laboratory, proxy: Option<&Proxy>) {
        match (self, proxy) {
            (Self::OnTheWay(fault), Some(proxy)) => proxy.strike(fault),
            (Self::OnTheWay(_), None) => {}
            (Self::AtTheRegistry(shock), _) => laboratory.strike(shock),
        }
    }

    pub(crate) fn end(self, laboratory: &Laboratory, proxy: Option<&Proxy>) {
        match (self, proxy) {
            (Self::OnTheWay(_), Some(proxy)) => proxy.heal(),
            (Self::OnTheWay(_), None) => {}
            (Self::AtTheRegistry(shock), _) => laboratory.relieve(shock),
        }
    }

    /// Whether a service stays listed through it if it is short.
    pub(crate) fn spares_the_services_of(self, kind: Kind) -> bool {
        match self {
            Self::OnTheWay(_) => true,
            Self::AtTheRegistry(shock) => shock.spares_the_services_of(kind),
        }
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnTheWay(fault) => write!(f, "{fault:?}"),
            Self::AtTheRegistry(shock) => write!(f, "{shock:?}"),
        }
    }
}
