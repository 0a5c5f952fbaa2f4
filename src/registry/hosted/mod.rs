//! What a registry that this process hosts keeps in memory, whatever it is written to: when its services are dead
//! ([`leases`]), and how their heartbeats' tokens are known ([`token`]).

pub(super) mod leases;
pub(super) mod token;
