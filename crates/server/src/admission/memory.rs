//! How much memory is in use, and how much there is, by the measure by which the kernel would kill the process.
//!
//! Inside a control group with a limit (a container, a systemd unit with `MemoryMax`) it is what the group uses without what
//! the kernel can give back at once; else what the process itself has resident, against the memory of the machine.

use std::{fs, path::Path};

use crate::config::MemoryLimit;

/// Above this a limit of a version 1 control group is none.
const NO_LIMIT: u64 = 1 << 60;

/// Bytes in use and the most that may be; `None` without a limit, or where the kernel does not tell.
pub(super) fn used_and_most(limit: MemoryLimit) -> Option<(u64, u64)> {
    let share = match limit {
        MemoryLimit::Off => return None,
        MemoryLimit::Bytes(most) => return Some((group().map_or_else(resident, |(used, _)| Some(used))?, most)),
        MemoryLimit::Percent(percent) => u64::from(percent),
    };
    let (used, all) = match group() {
        Some(group) => group,
        None => (resident()?, in_kb(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?),
    };
    Some((used, all / 100 * share))
}

/// What the process has resident.
fn resident() -> Option<u64> {
    in_kb(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What the control group uses and may use, if it has a limit.
fn group() -> Option<(u64, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path_of = |kind: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|controller| controller == kind).then_some(path.trim_start_matches('/'))
        })
    };
    let (root, names) = match path_of("memory") {
        Some(path) => {
            let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
            (Path::new("/sys/fs/cgroup/memory").join(path), files)
        }
        None => (Path::new("/sys/fs/cgroup").join(path_of("")?), ["memory.max", "memory.current", "inactive_file"]),
    };
    // In a container the path may be the host's, while what is mounted is the group itself.
    let folders = [root.as_path(), Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/memory")];
    folders.into_iter().find_map(|folder| group_at(folder, names))
}

fn group_at(folder: &Path, [limit, usage, inactive]: [&str; 3]) -> Option<(u64, u64)> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let limit: u64 = read(limit)?.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)?;
    let usage: u64 = read(usage)?.trim().parse().ok()?;
    let reclaimable = read("memory.stat").and_then(|stat| value(&stat, inactive)).unwrap_or(0);
    Some((usage.saturating_sub(reclaimable), limit))
}

/// The number behind a name at the beginning of a line.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().find(|line| line.split_whitespace().next() == Some(name))?.split_whitespace();
    words.nth(1)?.parse().ok()
}

fn in_kb(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_some_memory_of_what_there_is() {
        let (used, most) = used_and_most(MemoryLimit::Percent(90)).unwrap();
        assert!(0 < used && used < most, "{used} of {most}");
        assert_eq!(used_and_most(MemoryLimit::Bytes(5)).unwrap().1, 5);
        assert_eq!(used_and_most(MemoryLimit::Off), None);
    }

    #[test]
    fn a_control_group_counts_what_cannot_be_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let names = ["memory.max", "memory.current", "inactive_file"];
        assert_eq!(group_at(folder.path(), names), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(group_at(folder.path(), names), None);
        write("memory.max", "1000\n");
        assert_eq!(group_at(folder.path(), names), Some((700, 1000)));
        write("memory.stat", "anon 500\ninactive_file 150\nactive_file 50\n");
        assert_eq!(group_at(folder.path(), names), Some((550, 1000)));
    }
}
