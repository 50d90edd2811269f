//! Fanfare: a self-hosted broadcast server for stock Pusher Channels clients and SDKs.
//!
//! [`serve`] is what the binary runs; [`Server`] is for those who start one inside a program of their own, such as tests.

mod app;
mod background;
pub mod cli;
pub mod config;
mod connection;
mod directory;
mod frame;
mod http;
mod logging;
mod metrics;
mod node;
mod server;
mod startup;
mod transport;
mod webhook;
mod worker;

pub use server::{Server, serve};
