//! What can happen to a registry itself.

use std::fs;

use super::{Kind, Laboratory, Lock};

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shock {
    /// It stands still, as a machine does that is suspended.
    Frozen,
    /// It is killed, and comes back with what it had.
    Killed,
    /// It is killed, and comes back with nothing.
    Emptied,
    /// Somebody has locked the file.
    Locked,
    /// Somebody has deleted the file and its directory.
    Deleted,
    /// Somebody has overwritten the file.
    Overwritten,
    /// Nothing more can be written to the disk. It takes a [small one](Laboratory::on_small_disk).
    DiskFull,
}

impl Shock {
    /// Those that a registry of this kind can suffer, whatever its disk.
    pub(crate) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::File => &[Self::Locked, Self::Deleted, Self::Overwritten],
            _ => &[Self::Frozen, Self::Killed, Self::Emptied],
        }
    }

    /// Whether every service is still listed when it is over.
    pub(crate) fn spares_the_services_of(self, kind: Kind) -> bool {
        match self {
            Self::Emptied | Self::Deleted | Self::Overwritten => false,
            // An agent begins with every service critical, until it has heard of it.
            Self::Killed => kind != Kind::Consul,
            Self::Frozen | Self::Locked | Self::DiskFull => true,
        }
    }
}

impl Laboratory {
    /// Has it happen.
    #[track_caller]
    pub(crate) fn strike(&self, shock: Shock) {
        match shock {
            Shock::Frozen => self.freeze(),
            Shock::Killed | Shock::Emptied => self.kill(),
            Shock::Locked => *self.lock.lock().unwrap() = Some(Lock::on(&self.file())),
            Shock::Deleted => fs::remove_dir_all(self.file().parent().unwrap()).unwrap(),
            Shock::Overwritten => fs::write(self.file(), "not a database ".repeat(999)).unwrap(),
            Shock::DiskFull => self.disk.as_ref().unwrap().fill(),
        }
    }

    /// Has it be over.
    #[track_caller]
    pub(crate) fn relieve(&self, shock: Shock) {
        match shock {
            Shock::Frozen => self.thaw(),
            Shock::Killed => self.restart(),
            Shock::Emptied => self.restart_empty(),
            Shock::Locked => drop(self.lock.lock().unwrap().take()),
            Shock::Deleted => {}
            Shock::Overwritten => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{suffix}", self.file().display()));
                }
            }
            Shock::DiskFull => self.disk.as_ref().unwrap().clear(),
        }
    }
}
