//! `--dry-run`
