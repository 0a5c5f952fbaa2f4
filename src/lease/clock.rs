use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{self, TimerFd, TimerFlags};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// What a lease takes the time from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Instant;

    /// Returns when `at` has come; at once when it has passed.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;
}

/// Tokio's clock, which stands still while a test has paused it, and while the machine is suspended.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(at).await;
    }
}

/// `CLOCK_BOOTTIME`: it counts suspended time, so that a lease that ran out in the machine's sleep is noticed
/// when it wakes, and not up to a period later.
#[derive(Debug)]
pub struct BootClock {
    start: Instant,
    start_uptime: Duration,
    /// Rings on the same clock. None where the kernel or a limit refused us one.
    timer: Option<AsyncFd<Timer>>,
}

impl BootClock {
    /// A clock that agrees with tokio's now.
    #[must_use]
    pub fn new() -> Self {
        let timer = Timer::new().and_then(listen).ok();
        Self { start: Instant::now(), start_uptime: uptime(), timer }
    }
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for BootClock {
    fn now(&self) -> Instant {
        self.start + uptime().saturating_sub(self.start_uptime)
    }

    async fn sleep_until(&self, at: Instant) {
        let left = at.saturating_duration_since(self.now());
        // A timer set to zero is one that never rings.
        if left.is_zero() {
            return;
        }
        match &self.timer {
            Some(timer) if timer.get_ref().set(left).is_ok() => {
                while self.now() < at {
                    let Ok(mut ready) = timer.readable().await else { break };
                    let _ = ready.try_io(|timer| timer.get_ref().acknowledge());
                }
            }
            _ => tokio::time::sleep(left).await,
        }
    }
}

fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn listen(timer: Timer) -> io::Result<AsyncFd<Timer>> {
    // SAFETY: the timer owns its descriptor, and closes it only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?)
}

#[derive(Debug)]
struct Timer(TimerFd);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)?))
    }

    fn set(&self, span: Duration) -> io::Result<()> {
        Ok(self.0.set(Expiration::OneShot(span.into()), TimerSetTimeFlags::empty())?)
    }

    fn acknowledge(&self) -> io::Result<()> {
        Ok(self.0.wait()?)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
