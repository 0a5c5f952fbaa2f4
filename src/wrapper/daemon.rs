//! Daemons that fork away: the command ends, and what it was meant to run lives on as an orphan, which is ours as
//! pid 1 or subreaper.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Pid, getpid};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::model::printable;

/// How long a daemon has to write its pid file once its parent has ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Says what to do instead, if the command has left anybody behind.
pub(super) fn tell_of_survivors() {
    let Some(pid) = children().first().copied() else { return };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let (pid, name) = (pid.as_raw(), printable(name.trim()));
    let hint =
        "run it in the foreground (`apache2 -DFOREGROUND`, `nginx -g 'daemon off;'`), or name its --pid-file";
    if getpid().as_raw() == 1 {
        warn!(pid, name, hint, "the command has ended, and what it started ends with us, as pid 1");
    } else {
        warn!(pid, name, hint, "the command has ended, but what it started runs on, unregistered");
    }
}

/// The daemon that `file` names, once it names one of ours; none when nobody is left or it takes too long.
pub(super) async fn follow(file: &Path) -> Option<Pid> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let children = children();
        let named =
            fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).map(Pid::from_raw);
        if let Some(pid) = named.filter(|pid| children.contains(pid)) {
            info!(pid = pid.as_raw(), "following the daemon that the command left behind");
            return Some(pid);
        }
        if children.is_empty() || Instant::now() >= give_up {
            warn!(file = %file.display(), "the command has ended, and its pid file names no process that it left");
            return None;
        }
        sleep(LOOK).await;
    }
}

/// Our children, adopted ones included. (We have one thread that starts any.)
fn children() -> Vec<Pid> {
    let pid = getpid();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}
