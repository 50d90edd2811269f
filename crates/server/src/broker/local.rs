//! The broker of a node that is alone: subscribers are all here, so an event goes straight to the directory.

use super::{Broker, Published, Receipt, Redis, Refused, Source};
use crate::app::App;

/// Nothing between a publisher and the directory: no queue, no copy, no waiting.
#[derive(Debug)]
pub(crate) struct Local;

impl Broker for Local {
    fn publish(&self, app: &App, events: &mut dyn Iterator<Item = Published<'_>>) -> Result<Receipt, Refused> {
        for event in events {
            deliver(app, &event);
        }
        Ok(Receipt::DONE)
    }

    fn cluster(&self) -> Option<&Redis> {
        None
    }

    fn terminate(&self, app: &App, user_id: &str) -> Result<Receipt, Refused> {
        app.users.terminate(user_id, app.policy().config.terminate_code);
        Ok(Receipt::DONE)
    }
}

/// Hands an event to this node's subscribers.
pub(super) fn deliver(app: &App, Published { publication, source, position }: &Published<'_>) {
    match source {
        Source::Api => {
            let published = app.directory.publish(publication);
            if let Some(position) = position {
                position.set(published);
            }
        }
        Source::Client { user_id } => app.directory.relay(publication, *user_id),
    }
}
