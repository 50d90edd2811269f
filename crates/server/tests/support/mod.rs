//! The real binary, for tests that look at a process from outside.

#![allow(missing_docs, clippy::missing_panics_doc, unreachable_pub, reason = "shared by tests, for tests")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

/// A server in another process, on a free port.
pub struct Server {
    process: Child,
    /// Where clients connect to.
    pub url: String,
}

impl Server {
    /// Starts one with the demo app.
    pub fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--port", "0"])
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("listening on http://")?.1.split_whitespace().next()?.to_owned())
        });
        // Whoever does not read the log stops the server that writes it.
        thread::spawn(move || lines.for_each(drop));
        Self { process, url: format!("ws://{}", address.unwrap()) }
    }
}

#[allow(dead_code, reason = "not every test looks at it")]
impl Server {
    /// A value of the process's status in kilobytes, such as `VmRSS` or `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
