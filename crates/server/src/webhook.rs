//! Webhooks: what apps are told of their channels, decided, queued, signed and delivered.

mod queue;
mod throttle;
