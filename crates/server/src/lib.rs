//! Fanfare: a self-hosted broadcast server for stock Pusher Channels clients and SDKs.
//!
//! [`serve`] is what the binary runs, [`Server`] what tests start in their own process, and [`Fanfare`] brings the routes into
//! an actix-web application.

mod accept;
mod admission;
mod app;
mod background;
mod broker;
mod bucket;
pub mod cli;
mod client_address;
pub mod config;
mod connection;
mod directory;
mod embed;
mod frame;
mod glob;
mod http;
mod limits;
mod logging;
#[doc(hidden)]
pub mod measure;
mod metrics;
mod node;
mod reload;
mod server;
mod startup;
mod throttle;
mod timing;
mod tls;
mod transport;
mod trouble;
mod webhook;
mod worker;

pub use embed::Fanfare;
pub use reload::Reload;
pub use server::{Server, serve};
