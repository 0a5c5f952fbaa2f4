//! Prefix any long-running command, and it appears in your service registry, stays there exactly as long as it
//! is alive, and is gone when it is not. The command itself does not notice.
//!
//! # The rooms
//!
//! ```text
//!   bin/ ─▶ wrapper ─▶ lease ─▶ registry ─▶ model        bin/ ─▶ cli ─▶ {registry, server ─▶ registry} ─▶ model
//! ```
//!
//! | room | holds | may touch |
//! |---|---|---|
//! | [`model`] | what a registry holds, as validated values | nothing |
//! | [`registry`] | the trait [`Registry`](registry::Registry), its error, its URLs, one file for each backend | files, network |
//! | [`lease`] | keeping one service registered: a state machine, and the driver that runs it | tokio's time |
//! | [`wrapper`] | one child: start, signals, reaping, end | pids, signals |
#![cfg_attr(
    feature = "cli",
    doc = "| [`cli`] | `raxsr`: what people read and script the registry with | stdout |"
)]
#![cfg_attr(
    feature = "server",
    doc = "| [`server`] | the Service Registry HTTP API over any registry | sockets |"
)]
//!
//! Beside them: [`logging`] to standard error, [`message`] for how a failure is told, [`api`] for what client and
//! server of the HTTP API agree on, and what both command lines have in common. A new registry is one file; a new
//! front end changes none.
//!
//! # The words
//!
//! * A **service** is a registered long-running process, the **child** the process that we started, the
//!   **wrapper** ourselves, a **backend** an implementation of `Registry`.
//! * **Registration** enters the registry, **deregistration** leaves it on purpose. A **lease** is our right to be
//!   listed; a **heartbeat** renews it, and presents a **token**; without one for the **heartbeat timeout** it is
//!   **lost**.
//! * To **drain** is to serve on, out of the registry, before the signal that asks for the end is passed on.
//! * A service that is **drained** is kept out of the registry by hand, while its child runs on.
//! * A registry's file is **hosted** by the one server that keeps the deadlines of its clients in memory.
//! * To **settle** the dead is to remove each service whose lease has run out, with its one timeout event.

pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
mod command_line;
pub mod lease;
pub mod logging;
pub mod message;
pub mod model;
pub mod registry;
#[cfg(feature = "server")]
pub mod server;
pub mod wrapper;
