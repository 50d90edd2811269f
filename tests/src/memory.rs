//! What this process holds, which is the server and the clients together.

/// Resident memory in megabytes.
pub fn resident_megabytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of resident memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("kilobytes") / 1024
}
