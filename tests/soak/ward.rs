//! A registry, its wrappers, and what happens to them.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::Options;
use crate::faults::Mishap;
use crate::support::lab::{Kind, Laboratory, Observer, Patient, Proxy};
use crate::support::{holds_for, private_memory, wait_until};

/// How long the first look at what a wrapper costs waits: what is made once has been made by then.
const SETTLED: Duration = Duration::from_secs(20);

/// What a busy machine may add to a fault that is only just short enough.
const MARGIN: Duration = Duration::from_millis(500);

/// A registry and the wrappers that are registered there.
pub(crate) struct Ward {
    laboratory: Arc<Laboratory>,
    observer: Observer,
    proxy: Option<Proxy>,
    patients: Vec<Patient>,
}

/// What a wrapper has at some time.
pub(crate) struct Sample {
    /// Private, in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

/// What came of it.
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) faults: usize,
    pub(crate) beats: usize,
    pub(crate) failures: usize,
    pub(crate) troubles: usize,
    /// What took a service from the registry although it was short.
    pub(crate) missed: Vec<String>,
    /// How often a service was gone after a fault that was long, or that left nothing.
    pub(crate) losses: usize,
    pub(crate) slowest_return: Duration,
    pub(crate) early: Vec<Sample>,
    pub(crate) late: Vec<Sample>,
    pub(crate) cpu: Duration,
    late_returns: Vec<String>,
}

impl Ward {
    /// One of this kind; none where its server is missing.
    pub(crate) fn open(kind: Kind, options: &Options) -> Option<Self> {
        let laboratory = Arc::new(Laboratory::start(kind, "the soak")?);
        let proxy = (kind != Kind::File).then(|| Proxy::to(laboratory.address()));
        let url =
            proxy.as_ref().map_or_else(|| laboratory.url().to_owned(), |proxy| laboratory.url_through(proxy));
        let interval = format!("--interval={}", options.interval);
        let settings = [&*interval, "--port=80", "--address=127.0.0.1", "--log-level=debug"];
        let start = |number| Patient::start(&url, &format!("soak{number}"), &settings);
        let patients = (0..options.wrappers).map(start).collect();
        let observer = Observer::of(Arc::clone(&laboratory));
        Some(Self { laboratory, observer, proxy, patients })
    }

    pub(crate) fn run(self, options: &Options, mut rng: Rng) -> Report {
        let (start, interval) = (Instant::now(), Duration::from_secs(options.interval));
        self.wait_until_all_are_listed(start);
        holds_for(SETTLED, "the start", || true);
        let mut report = Report::new(self.laboratory.kind, self.samples());
        let cpu_before = self.cpu();
        let mut told = Instant::now();
        while start.elapsed() < options.time {
            let calm = interval.mul_f64(0.5 + 1.5 * rng.f64());
            holds_for(calm, "calm", || true);
            self.suffer(&mut report, interval, &mut rng);
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                self.tell(&report, start);
            }
        }
        self.patients.iter().for_each(Patient::has_untouched_child);
        report.late = self.samples();
        report.cpu = self.cpu().saturating_sub(cpu_before);
        for patient in self.patients {
            report.add(patient);
        }
        report
    }

    /// One fault, from its beginning until all is well.
    fn suffer(&self, report: &mut Report, interval: Duration, rng: &mut Rng) {
        let mishap = Mishap::any(self.laboratory.kind, rng);
        let length = interval.mul_f64(1.5 * rng.f64() * rng.f64());
        let begun = Instant::now();
        mishap.begin(&self.laboratory, self.proxy.as_ref());
        wait_until("its end", || begun.elapsed() >= length);
        mishap.end(&self.laboratory, self.proxy.as_ref());
        let over = Instant::now();
        self.wait_until_all_are_listed(over);
        report.faults += 1;
        let what = format!("{mishap} for {:.1?}", over - begun);
        if over.elapsed() > interval {
            report.late_returns.push(format!("{what}: back after {:.1?}", over.elapsed()));
        }
        report.slowest_return = report.slowest_return.max(over.elapsed());
        let is_gone = |patient: &&Patient| self.observer.first_missed(&patient.id, begun).is_some();
        let gone = self.patients.iter().filter(is_gone).count();
        let is_short =
            over - begun + MARGIN <= interval * 2 / 3 && mishap.spares_the_services_of(self.laboratory.kind);
        match gone {
            0 => {}
            _ if is_short => report.missed.push(what),
            gone => report.losses += gone,
        }
        self.patients.iter().for_each(Patient::has_untouched_child);
    }

    fn wait_until_all_are_listed(&self, since: Instant) {
        for patient in &self.patients {
            wait_until(&patient.id, || self.observer.lists(&patient.id, since));
        }
    }

    fn samples(&self) -> Vec<Sample> {
        self.patients.iter().map(|patient| Sample::of(patient.process.pid())).collect()
    }

    fn cpu(&self) -> Duration {
        self.patients.iter().map(|patient| cpu(patient.process.pid())).sum()
    }

    #[expect(clippy::print_stderr, reason = "long work shows progress")]
    fn tell(&self, report: &Report, start: Instant) {
        let memory = self.samples().iter().map(|sample| sample.memory).max().unwrap_or_default();
        eprintln!(
            "soak: {:?}: {} s, {} faults, {} missed, {memory} KiB",
            report.kind,
            start.elapsed().as_secs(),
            report.faults,
            report.missed.len()
        );
    }
}

impl Sample {
    fn of(pid: Pid) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count() as u64;
        Self { memory: private_memory(pid), descriptors: count("fd"), threads: count("task") }
    }
}

impl Report {
    /// How much more of a thing than at the beginning is still no growth: a connection that happens to be open, a thread
    /// that happens to look up a name, pages of a heap.
    const DESCRIPTORS: u64 = 3;
    const THREADS: u64 = 2;
    const MEMORY: u64 = 128;

    fn new(kind: Kind, early: Vec<Sample>) -> Self {
        Self {
            kind,
            faults: 0,
            beats: 0,
            failures: 0,
            troubles: 0,
            missed: Vec::new(),
            losses: 0,
            slowest_return: Duration::ZERO,
            early,
            late: Vec::new(),
            cpu: Duration::ZERO,
            late_returns: Vec::new(),
        }
    }

    fn add(&mut self, patient: Patient) {
        self.beats += patient.count("request succeeded");
        self.failures += patient.count("request failed");
        self.troubles += patient.count("trying on");
    }

    /// What should not have been.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let growth = |what: &str, most: u64, of: fn(&Sample) -> u64| {
            let pairs = self.early.iter().zip(&self.late).map(|(early, late)| (of(early), of(late)));
            let grown = pairs.into_iter().filter(|(early, late)| *late > early + most);
            grown.map(|(early, late)| format!("{what} grew from {early} to {late}")).collect::<Vec<_>>()
        };
        let mut all = self.missed.iter().map(|what| format!("lost a service to {what}")).collect::<Vec<_>>();
        all.extend(self.late_returns.iter().cloned());
        all.extend(growth("memory in KiB", Self::MEMORY, |sample| sample.memory));
        all.extend(growth("descriptors", Self::DESCRIPTORS, |sample| sample.descriptors));
        all.extend(growth("threads", Self::THREADS, |sample| sample.threads));
        all.into_iter().map(|complaint| format!("{:?}: {complaint}", self.kind)).collect()
    }
}

/// What a process has used so far.
fn cpu(pid: Pid) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
