//! Ports for servers that cannot be asked which one they took, or that come back to it.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that Linux gives to whoever does not ask for one (32768 and above): nothing takes these before a server has
/// bound its own, or while it is away.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A free port of 127.0.0.1 which this process gives to nobody else.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at a time begin at different places.
    let begin = process::id().wrapping_mul(1009);
    loop {
        let turn = TAKEN.fetch_add(1, Ordering::Relaxed);
        let place = begin.wrapping_add(u32::from(turn)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(place).expect("a place in the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
        assert!(turn < COUNT, "no free port from {FIRST} on");
    }
}
