//! What is to be looked at instead of done.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(super) struct RehearsalArguments {
    /// Print what would be sent to each registry, and what would be run; send and run nothing
    ///
    /// Everything that can be checked without asking anybody is checked as ever. What only an answer can tell is shown
    /// as `<token>`, a secret as `***`. Commands of {version:COMMAND} are run: what they print is part of it.
    #[arg(
        long,
        help_heading = "Rehearsal",
        env = "SERVICE_REGISTRY_DRY_RUN",
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(super) dry_run: Option<Rendering>,
}

/// In which form a rehearsal is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::wrapper) enum Rendering {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}
