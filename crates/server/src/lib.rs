//! Fanfare: a self-hosted broadcast server for stock Pusher Channels clients and SDKs.

pub mod config;
#[allow(dead_code, reason = "the directory, which reports the transitions, is not connected to it yet")]
mod webhook;
