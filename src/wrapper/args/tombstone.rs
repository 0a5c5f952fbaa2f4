//! What is left behind of a command that has ended by itself.

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct TombstoneArguments {
    /// When the command ends by itself, let its entry say how, until it expires
    ///
    /// Its metadata then has `exit_status` or `signal`, `uptime` and `ended_at`, and so has the `service.timeout` of whoever
    /// follows the events. It holds the wrapper's end up for 250 ms at most, and not at all where the registry is known to be
    /// failing. A command that was asked to stop leaves nothing.
    #[arg(long, help_heading = "Registry", env = "SERVICE_REGISTRY_TOMBSTONE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) tombstone: bool,
}
