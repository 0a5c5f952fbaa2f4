//! The wrapper's own troubles: it is stopped, starved, robbed of its clock or its descriptors, or one of very many.
//! In each of them its command does not notice, and its registration is kept or back soon.

mod cgroup;
mod clock;
mod descriptors;
mod many;
mod starved;
mod stopped;
