//! Whether a process runs.

use std::fs;

use nix::unistd::Pid;

use super::Reason;

/// Whether it is there, and neither stopped nor dead.
pub(in crate::wrapper) fn is_running(pid: Pid) -> Result<(), Reason> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name, in parentheses, can hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match state {
        None => Err(Reason::new("the command has ended")),
        Some('T') => Err(Reason::new("the command is stopped")),
        Some('Z' | 'X') => Err(Reason::new("the command is dead")),
        // One that is traced goes on.
        Some(_) => Ok(()),
    }
}
