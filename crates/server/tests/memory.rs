//! What the process holds after everybody has gone.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
#![cfg(feature = "jemalloc")]

mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use support::Server;

#[test]
fn memory_goes_back_to_the_system_when_connections_have_gone() {
    let server = Server::start();
    let before = server.memory("VmRSS");
    let load = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["bench", "--url", &server.url, "--subscribers", "6000", "--rate", "5", "--seconds", "1"])
        .env_clear()
        .output()
        .unwrap();
    assert!(load.status.success(), "{load:?}");
    let peak = server.memory("VmHWM");
    let limit = before + (peak - before) / 2;
    // The allocator gives pages back over ten seconds.
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut now = peak;
    while now > limit && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(200));
        now = server.memory("VmRSS");
    }
    println!("resident memory: {before} kB at the start, {peak} kB with 6,000 connections, {now} kB after them");
    assert!(now <= limit, "{now} kB of {peak} kB are still held; {before} kB were at the start");
}
