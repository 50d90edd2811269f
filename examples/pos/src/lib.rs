//! The sample point of sale: a shop whose every screen follows what happens on the others.
//!
//! A change is stored first, together with what the others shall be told of it; then it is triggered through Fanfare's HTTP API.
//! `API.md` beside this crate says what the pages ask.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`config`] | the settings, from the environment and `.env` |
//! | [`server`] | routes, state, start and end |
//! | `db` | the SQLite file, revisions, times |
//! | `auth`, `same_origin` | who is signed in, and that the request is their own |
//! | `products`, `orders`, `registrations`, `comments`, `dashboard` | the shop |
//! | `outbox`, `pusher` | telling the others: what waits, and the signed requests |
//! | `broadcasting_auth` | who may join which channel |
//! | `pages` | the built front end |
//! | `input`, `error` | limits of requests, and what the pages are told when something cannot be done |

mod auth;
mod broadcasting_auth;
mod comments;
pub mod config;
mod dashboard;
mod db;
mod error;
mod input;
mod orders;
mod outbox;
mod pages;
mod products;
mod pusher;
mod registrations;
mod same_origin;
pub mod server;

pub use config::Config;
