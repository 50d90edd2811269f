//! Several nodes that share a Redis: real processes, which are killed, stopped and cut off.
//!
//! Every scenario counts what was lost, came twice or out of order, and prints how long things took.

mod access;
mod cache;
mod database;
mod deploy;
mod events;
mod faults;
mod presence;
mod recovery;
mod redis_cluster;
mod sentinel;
mod support;
mod witnesses;
