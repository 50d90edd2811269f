//! In a process of its own, whose memory it looks at.

use std::time::Duration;

use fanfare_tests::{Frame, Opcode, TestServer, eventually};
use tokio::time::timeout;

/// Bytes of the process that are in memory. The server is part of it.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// An empty pong is two bytes; what it costs while it waits is far more.
#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_does_not_read_costs_little() {
    // One, so that the bystander shares it with the flooder.
    let server = TestServer::builder().config(|config| config.server.workers = 1).start();
    let mut bystander = server.connect().await;
    let mut api = server.api().await;
    let mut flooder = server.raw().await;
    let ping = Frame::new(Opcode::Ping, []).encode();
    let pings = 2 * 1024 * 1024 / ping.len();
    let last = Frame::text(r#"{"event":"pusher:subscribe","data":{"channel":"behind-the-pings"}}"#).encode();
    let bytes = [ping.repeat(pings), last].concat();
    let before = resident_bytes();

    // An error means that the server ended the connection, which is allowed.
    let flood = async {
        let _ = flooder.try_send_bytes(&bytes).await;
    };
    let watch = async {
        for number in 0..20 {
            let pong = timeout(Duration::from_secs(2), bystander.settled()).await;
            assert!(pong.is_ok(), "the bystander's ping {number} is not answered");
        }
    };
    tokio::join!(flood, watch);
    let done = async || {
        let channel = api.get("/channels/behind-the-pings", &[]).await.json();
        channel["occupied"] == true || api.connections().await == 1
    };
    eventually("all pings are read, or their sender is closed", done, |done| *done).await;

    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 30 * 1024 * 1024, "the server's memory has grown by {grown} bytes");
    assert!(timeout(Duration::from_secs(2), bystander.settled()).await.is_ok(), "the bystander is not answered");

    // Far fewer answers than pings were queued, and the last ping is among those that were answered.
    flooder.try_send_bytes(&Frame::close(1000, "").encode()).await.ok();
    let pongs = flooder.rest().await.iter().filter(|frame| frame.opcode == Opcode::Pong as u8).count();
    assert!((1..pings / 4).contains(&pongs), "{pongs} pongs for {pings} pings");
}
