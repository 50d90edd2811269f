//! What the server's process uses, as Linux tells it.

use std::{fs, time::Duration};

use anyhow::Context as _;
use rustix::param::clock_ticks_per_second;

/// Processor time and resident memory of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    cpu: Duration,
    resident: u64,
}

/// What was used for so many of something.
#[derive(Debug)]
pub(super) struct Cost {
    cpu: Duration,
    resident: u64,
    what: &'static str,
    count: u64,
}

impl Usage {
    /// Of now.
    pub(super) fn now(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (stat, status) = read("stat").and_then(|stat| Ok((stat, read("status")?))).with_context(|| {
            format!("cannot read what process {pid} (--pid) uses: it has to be on this machine, with Linux's /proc")
        })?;
        Self::parse(&stat, &status).with_context(|| format!("process {pid} (--pid) has ended"))
    }

    /// Reads `proc_pid_stat(5)`, whose second field, in parentheses, may hold anything, and `proc_pid_status(5)`.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        // Numbered from 1 in the manual; the first one behind the name is the third.
        let mut times = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(14 - 3).take(2);
        let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        let cpu = Duration::from_secs(user + system) / u32::try_from(clock_ticks_per_second()).ok()?;
        Some(Self { cpu, resident: kib * 1024 })
    }

    /// What has been used since `before`, for `count` of something.
    pub(super) fn since(self, before: Self, what: &'static str, count: u64) -> Cost {
        let cpu = self.cpu.saturating_sub(before.cpu);
        Cost { cpu, resident: self.resident.saturating_sub(before.resident), what, count }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, and far below 2^52")]
impl Cost {
    /// Microseconds of processor time for each.
    pub(super) fn cpu_each(&self) -> String {
        format!("{:.2} µs per {}", self.cpu.as_secs_f64() * 1e6 / self.count(), self.what)
    }

    /// Bytes of memory for each.
    pub(super) fn memory_each(&self) -> String {
        format!("{:.0} bytes per {}", self.resident as f64 / self.count(), self.what)
    }

    fn count(&self) -> f64 {
        self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manuals_fields_are_read() {
        let numbers: Vec<_> = (4..40).map(|number| (number * 100).to_string()).collect();
        let stat = format!("42 (a) b (c) S {}", numbers.join(" "));
        let usage = Usage::parse(&stat, "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t3\n").unwrap();
        let ticks = u32::try_from(clock_ticks_per_second()).unwrap();
        assert_eq!((usage.cpu, usage.resident), (Duration::from_secs(2900) / ticks, 2 << 20));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Usage::now(std::process::id()).is_ok());
        assert!(Usage::now(u32::MAX).is_err());
    }
}
