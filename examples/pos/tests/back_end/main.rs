//! The point of sale's back end as a process of its own, beside a real Fanfare.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod broadcasts;
mod channels;
mod orders;
mod registrations;
mod requests;
mod shop;
