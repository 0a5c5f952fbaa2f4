//! The real binaries, run as users run them.

mod args;
mod backends;
mod cli_output;
mod exit_codes;
mod footprint;
mod lease;
mod registration;
mod registry_file;
mod signals;
mod support;
mod terminal;
mod transparency;
