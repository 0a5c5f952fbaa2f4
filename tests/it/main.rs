//! The real binaries, run as users run them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod address;
mod api_client;
mod api_programs;
mod api_tls;
mod args;
mod backends;
mod cli_commands;
mod cli_formats;
mod cli_output;
mod consul;
mod containers;
mod daemons;
mod doctor;
mod dry_run;
mod etcd;
mod exit_codes;
mod faults;
mod follow;
mod footprint;
mod http_api;
mod lease;
mod notify;
mod placeholders;
mod registration;
mod registry_file;
mod several;
mod signals;
mod support;
mod systemd;
mod terminal;
mod transparency;
mod troubles;
mod zookeeper;
