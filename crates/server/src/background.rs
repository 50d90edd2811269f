//! Work of the node that belongs to no connection: due announcements, and what the log has to say of the state of things.
//! Runs beside the webhooks, away from the workers.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{node::Node, trouble::Troubles};

/// How late a due announcement may be.
const TICK: Duration = Duration::from_millis(250);

/// Does what has become due, for as long as it is polled.
pub(crate) async fn run(node: &Node) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut troubles = Troubles::default();
    let mut next_look = Instant::now();
    loop {
        let now = ticks.tick().await;
        node.apps.sweep();
        if now >= next_look {
            next_look = now + Duration::from_secs(1);
            node.admission.tick(now);
        }
        for app in node.apps.all() {
            app.directory.tick(now);
            app.users.tick(now);
        }
        troubles.look(node, now);
    }
}
