//! What the servers of this process log.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::{EnvFilter, fmt};

use crate::eventually;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The log of all servers in this process, from the first [`Log::read`] on.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Log {
    /// Begins to read the log.
    pub fn read() -> Self {
        let filter = EnvFilter::new("fanfare_server=info");
        // Another scenario of this process may have begun already.
        let _ = fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Writer).try_init();
        Self
    }

    /// The lines so far that hold all these texts.
    pub fn lines(self, texts: &[&str]) -> Vec<String> {
        let lines = String::from_utf8_lossy(&lock()).into_owned();
        lines.lines().filter(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
    }

    /// Waits for the first line that holds all these texts.
    pub async fn line(self, texts: &[&str]) -> String {
        let what = format!("a line of the log with {texts:?}");
        let mut lines = eventually(&what, async || self.lines(texts), |lines| !lines.is_empty()).await;
        lines.swap_remove(0)
    }
}

fn lock() -> MutexGuard<'static, Vec<u8>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
