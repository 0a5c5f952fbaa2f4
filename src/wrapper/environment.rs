//! The child's environment: ours, byte for byte and in the same order, but for what was meant for us alone.
//!
//! It is edited in the child, between fork and exec, where only async-signal-safe work is allowed: pointers are
//! moved, nothing is allocated, and our own environment stays as it is.

use std::ffi::{CStr, CString, c_char};

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// Variables that name the process that they are meant for, by pid (`sd_listen_fds(3)`, `sd_watchdog_enabled(3)`):
/// where that is us, it has to be the child.
const PIDS: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// The service manager's socket (`sd_notify(3)`).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// What the service manager and socket activation tell one process, and nobody whom it starts.
const FOR_THE_CHILD_ALONE: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC", NOTIFY_SOCKET];

/// What is different in the child's environment.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    /// Variables that are missing there.
    pub(super) secrets: Vec<&'static str>,
    pids: [Entry; PIDS.len()],
    /// `NAME=value`, in place of what we have by that name, or behind all else.
    set: Vec<Setting>,
    /// Where the environment is put together that is longer than ours.
    room: Vec<Slot>,
}

#[derive(Debug, Clone)]
struct Setting {
    entry: CString,
    is_made: bool,
}

/// A place for a pointer to an entry.
#[derive(Debug, Clone)]
#[repr(transparent)]
struct Slot(*mut c_char);

// SAFETY: it is null until the one thread of the child writes to it.
unsafe impl Send for Slot {}
// SAFETY: likewise.
unsafe impl Sync for Slot {}

impl Changes {
    pub(super) fn without(secrets: Vec<&'static str>) -> Self {
        Self { secrets, pids: [Entry::EMPTY; PIDS.len()], set: Vec::new(), room: Vec::new() }
    }

    /// The same, with `socket` as the service manager's.
    pub(super) fn with_notify_socket(&self, socket: &str) -> Self {
        self.with(NOTIFY_SOCKET, socket)
    }

    /// The same, with this variable. (One with a NUL in it cannot be, and is left out.)
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut more = self.clone();
        let entry = CString::new(format!("{name}={value}"));
        more.set.extend(entry.map(|entry| Setting { entry, is_made: false }));
        let present = std::env::vars_os().count();
        more.room = vec![Slot(std::ptr::null_mut()); present + more.set.len() + 1];
        more
    }

    /// The variables that are set anew.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().filter_map(|setting| setting.entry.to_str().ok()?.split_once('='))
    }

    /// What a program sees that looks at the child for us.
    pub(super) fn for_a_check(&self) -> Self {
        let mut changes = self.clone();
        changes.secrets.extend(FOR_THE_CHILD_ALONE);
        changes
    }

    /// Makes them, in this process: the child, before exec. `parent` is the wrapper's pid.
    ///
    /// # Safety
    /// No other thread may use the environment, and `self` must live until exec.
    pub(super) unsafe fn make(&mut self, parent: u32) {
        let child = std::process::id();
        // SAFETY: environ is null or an array of C strings that ends with a null; `to` never overtakes `from`.
        unsafe {
            let mut from = environ;
            if from.is_null() {
                return;
            }
            // `Slot` is its pointer.
            let mut to = if self.room.is_empty() { from } else { self.room.as_mut_ptr().cast() };
            let first = to;
            while !(*from).is_null() {
                let entry = CStr::from_ptr(*from).to_bytes();
                if !self.secrets.iter().any(|name| value_of(entry, name).is_some()) {
                    *to = self.replacement(entry, parent, child).unwrap_or(*from);
                    to = to.add(1);
                }
                from = from.add(1);
            }
            for setting in self.set.iter().filter(|setting| !setting.is_made) {
                *to = setting.entry.as_ptr().cast_mut();
                to = to.add(1);
            }
            *to = std::ptr::null_mut();
            environ = first;
        }
    }

    /// What takes the place of an entry that names `parent`, or a variable that is set anew.
    fn replacement(&mut self, entry: &[u8], parent: u32, child: u32) -> Option<*mut c_char> {
        let name = &entry[..entry.iter().position(|byte| *byte == b'=')?];
        let is_of_that_name = |setting: &&mut Setting| {
            setting.entry.as_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
        };
        if let Some(setting) = self.set.iter_mut().find(is_of_that_name) {
            setting.is_made = true;
            return Some(setting.entry.as_ptr().cast_mut());
        }
        let index = PIDS.iter().position(|name| value_of(entry, name).is_some())?;
        let value = value_of(entry, PIDS[index])?;
        let is_ours = std::str::from_utf8(value).ok()?.parse() == Ok(parent);
        is_ours.then(|| self.pids[index].set(PIDS[index], child))
    }
}

fn value_of<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Room for a name, `=`, a number, and the NUL behind it.
#[derive(Debug, Clone, Copy)]
struct Entry([u8; 32]);

impl Entry {
    const EMPTY: Self = Self([0; 32]);

    fn set(&mut self, name: &str, mut number: u32) -> *mut c_char {
        let mut digits = [0; 10];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.write(name.bytes().chain([b'=']).chain(digits[first..].iter().copied()));
        self.0.as_mut_ptr().cast()
    }

    fn write(&mut self, text: impl Iterator<Item = u8>) {
        let last = self.0.len() - 1;
        for (place, byte) in self.0[..last].iter_mut().zip(text.chain([0])) {
            *place = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_replaced_where_it_is_ours() {
        let mut changes = Changes::without(vec![]);
        let mut entry_for = |entry: &str| {
            let entry = changes.replacement(entry.as_bytes(), 4711, 4_294_967_295)?;
            // SAFETY: it points to an entry that ends with a NUL.
            Some(unsafe { CStr::from_ptr(entry) }.to_str().unwrap().to_owned())
        };
        assert_eq!(entry_for("LISTEN_PID=4711").as_deref(), Some("LISTEN_PID=4294967295"));
        assert_eq!(entry_for("WATCHDOG_PID=4711").as_deref(), Some("WATCHDOG_PID=4294967295"));
        for other in ["LISTEN_PID=4712", "LISTEN_PID=", "LISTEN_PIDS=4711", "LISTEN_PID", "PATH=/bin"] {
            assert_eq!(entry_for(other), None, "{other}");
        }
    }
}
