//! `raxsr <resource> <action> [options]`

use std::process::ExitCode;

use service_registry_wrapper::cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
