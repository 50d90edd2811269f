//! The real binary, for tests that look at a process from outside.

#![allow(missing_docs, clippy::missing_panics_doc, unreachable_pub, reason = "shared by tests, for tests")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Much longer than anything here takes.
#[allow(dead_code, reason = "not every test waits")]
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A server in another process, on a free port.
pub struct Server {
    process: Child,
    /// Where clients connect to.
    pub url: String,
    /// What it has written to its log.
    #[allow(dead_code, reason = "not every test looks at it")]
    pub log: Lines,
}

impl Server {
    /// Starts one with the demo app.
    #[allow(dead_code, reason = "some tests give all of theirs variables")]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with variables.
    pub fn with(variables: &[(&str, &str)]) -> Self {
        Self::in_folder(Path::new("."), variables)
    }

    /// Starts one in a folder.
    pub fn in_folder(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--port", "0"])
            .current_dir(folder)
            .env_clear()
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever does not read the log stops the server that writes it.
        let log = Lines::of(process.stderr.take().unwrap());
        let line = log.wait_for("listening on http://");
        let address = line.split_once("listening on http://").unwrap().1;
        let end = address.find(|character: char| character.is_whitespace() || character == '"');
        let address = &address[..end.unwrap_or(address.len())];
        Self { process, url: format!("ws://{address}"), log }
    }

    /// The answer to an unsigned request.
    #[allow(dead_code, reason = "not every test asks")]
    pub fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.url.trim_start_matches("ws://")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The process.
    #[allow(dead_code, reason = "not every test asks for it")]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// The lines that a process writes, as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

#[allow(dead_code, reason = "not every test looks at them")]
impl Lines {
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let told = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                told.0.0.lock().unwrap().push(line.unwrap());
                told.0.1.notify_all();
            }
        });
        lines
    }

    /// The first line with a text, as soon as there is one.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1).remove(0)
    }

    /// So many lines with a text.
    #[track_caller]
    pub fn wait_for_count(&self, text: &str, count: usize) -> Vec<String> {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            let found: Vec<_> = lines.iter().filter(|line| line.contains(text)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {DEADLINE:?}: {count} lines with {text:?}; there are {:#?}", *lines);
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }
}

/// Sends a signal.
#[allow(dead_code, reason = "not every test does")]
pub fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

#[allow(dead_code, reason = "not every test looks at it")]
impl Server {
    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self::signal(&self.process, signal);
    }

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
