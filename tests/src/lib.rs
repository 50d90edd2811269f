//! End-to-end scenarios over real sockets, and what they need: a server inside the test's process and clients for it.
//!
//! ```no_run
//! # async fn scenario() {
//! use fanfare_tests::TestServer;
//!
//! let server = TestServer::builder().app(|app| app.max_connections = 2).start();
//! let mut client = server.connect().await;
//! client.subscribe("news").await;
//! server.api().await.trigger("news", "hello", "world").await;
//! assert_eq!(client.next_event().await.data, "world");
//! # }
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `server` | [`TestServer`]: a whole server on a free port, stopped when it is dropped |
//! | `spread` | several nodes instead of one, with `FANFARE_TEST_NODES=3` |
//! | `client` | [`Client`]: a client that speaks the protocol, over a WebSocket or without one |
//! | `xhr` | [`XhrSession`]: a client without a WebSocket, request by request and line by line |
//! | `raw` | [`RawClient`]: a socket that sends what it is told to, frame by frame or byte by byte |
//! | `database` | [`Database`]: PostgreSQL or MariaDB, started and stopped |
//! | `crowd` | [`Crowd`]: a thousand clients who miss nothing |
//! | `api` | [`Api`]: the signed HTTP API over one connection |
//! | `process` | [`RedisServer`] and [`Node`]: processes that a scenario can kill and stop |
//! | `balancer` | [`Balancer`]: one address for several nodes |
//! | `proxy` | [`Proxy`]: a line that is slow, or cut |
//! | `event` | [`Event`]: what a client receives |
//! | `log` | [`Log`]: what the servers log |
//! | `metrics` | [`Metrics`]: what `/metrics` says |
//! | `timing` | deadlines: nothing sleeps, everything ends |
//!
//! A client or server that does not do what it should fails the test by a panic that says so.
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

mod api;
mod balancer;
mod client;
mod crowd;
mod database;
mod event;
mod log;
mod memory;
mod metrics;
mod port;
mod process;
mod proxy;
mod raw;
mod server;
mod spread;
mod timing;
mod webhooks;
mod xhr;

pub use self::{
    api::{Api, Response},
    balancer::Balancer,
    client::{Client, Ended},
    crowd::Crowd,
    database::{Database, Engine},
    event::Event,
    log::Log,
    memory::resident_megabytes,
    metrics::{Family, Labels, Metrics},
    process::{Node, RedisServer},
    proxy::Proxy,
    raw::{Frame, Opcode, RawClient},
    server::{Builder, TestServer},
    timing::{DEADLINE, deadline, eventually},
    webhooks::{Delivery, WebhookReceiver},
    xhr::{Exchange, HeldPoll, Line, Receiving, STREAM_LENGTH, XhrSession},
};
