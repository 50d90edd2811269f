//! What the kernel knows of the process, under the names that Prometheus clients share.

use std::{fs, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// The process at one moment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_user: Duration,
    pub(super) cpu_system: Duration,
    /// All memory, in bytes: what is resident, what is mapped, and the data segment.
    pub(super) resident: u64,
    pub(super) mapped: u64,
    pub(super) data: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

/// How many files and sockets are open, and how many may be.
pub(crate) fn open_files() -> (u64, u64) {
    // Since Linux 6.2 the directory's size is the number of files in it.
    let counted = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    let count = || fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    let open = if counted > 0 { counted } else { count() };
    (open, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

impl Process {
    /// `None` where `/proc` is not to be read.
    pub(super) fn now() -> Option<Self> {
        let mut process = Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let memory = fs::read_to_string("/proc/self/statm").ok()?;
        process.data = page_size() as u64 * memory.split_ascii_whitespace().nth(5)?.parse::<u64>().ok()?;
        (process.open_fds, process.max_fds) = open_files();
        Some(process)
    }

    /// Reads `proc_pid_stat(5)`. The second field is the program's name in parentheses, which may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        // Numbered from 1 in the manual; the first one here is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let time = |ticks: u64| Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second()).unwrap_or(100);
        Some(Self {
            cpu_user: time(field(14)?),
            cpu_system: time(field(15)?),
            mapped: field(23)?,
            resident: field(24)? * page_size() as u64,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_no_field() {
        let numbers: Vec<_> = (4..40).map(|number| (number * 1000).to_string()).collect();
        let process = Process::parse(&format!("42 (a) b (c) S {}", numbers.join(" "))).unwrap();
        let ticks = u32::try_from(clock_ticks_per_second()).unwrap();
        assert_eq!(process.cpu_user, Duration::from_secs(14_000) / ticks);
        assert_eq!(process.cpu_system, Duration::from_secs(15_000) / ticks);
        assert_eq!((process.mapped, process.resident), (23_000, 24_000 * page_size() as u64));
    }

    #[test]
    fn this_process_has_memory_and_open_files() {
        let process = Process::now().unwrap();
        assert!(process.resident > 0 && process.mapped >= process.resident && process.data > 0);
        assert!(process.open_fds >= 3 && process.open_fds <= process.max_fds);
    }
}
