//! The fault lab: one registry of each kind, and what can go wrong on the way to it and in it.

mod file;
mod names;
mod observer;
mod patient;
mod proxy;
mod registry;
mod shock;

use self::file::{Lock, SmallDisk};
pub(crate) use self::names::{NAME, Names, Says};
pub(crate) use self::observer::Observer;
pub(crate) use self::patient::Patient;
pub(crate) use self::proxy::{Fault, Proxy, Strike};
pub(crate) use self::registry::{Kind, Laboratory};
pub(crate) use self::shock::Shock;
