//! Fanfare: a self-hosted broadcast server for stock Pusher Channels clients and SDKs.

pub mod config;
mod logging;
