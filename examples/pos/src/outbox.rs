//! Telling the others. What a change has to tell is stored with the change, and sent from there in order.
//!
//! So a broadcast server that is away delays what the other screens show, and neither fails a sale nor loses the news of it.
//! An event may be sent twice (the answer got lost, the process ended); its revision shows receivers that it is old.

use std::{convert::Infallible, mem, ops::RangeInclusive, slice, time::Duration};

use actix_web::{HttpRequest, web::Data};
use fanfare_protocol::SocketId;
use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, Transaction};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    db::{Database, next_revision},
    error::ApiError,
    pusher::{Event, Trigger, TriggerError},
    server::Shop,
};

/// The manager's channel: its one event says that the figures changed.
pub(crate) const DASHBOARD: &str = "private-dashboard";

/// As many events as the API takes in one request.
const BATCH: u8 = 10;
/// How long a till waits to hear whether the others know.
const PATIENCE: Duration = Duration::from_millis(900);
/// The pause after a failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What is known of the broadcasts' way.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// All broadcasts with an id up to this one left the table.
    done: i64,
    /// The last one that the server refused for good.
    refused: Option<i64>,
    /// The server did not take the last ones, or was slow to.
    troubled: bool,
}

/// Wakes the sender and knows what it did.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: watch::Sender<State>,
    wake: Notify,
}

impl Outbox {
    /// How many broadcasts wait because the server does not take them.
    pub(crate) async fn waiting(&self, connection: &mut SqliteConnection) -> sqlx::Result<i64> {
        // Those of the last milliseconds are on their way, not waiting.
        if !self.state.borrow().troubled {
            return Ok(0);
        }
        sqlx::query_scalar("SELECT count(*) FROM broadcasts").fetch_one(connection).await
    }

    /// Sends what is stored, for ever.
    pub(crate) async fn run(&self, db: &Database, trigger: &Trigger) -> Infallible {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.send_next(db, trigger).await {
                Ok(sent) => {
                    pause = FIRST_PAUSE;
                    if sent == 0 {
                        self.wake.notified().await;
                    }
                }
                Err(error) => {
                    if self.set_troubled(true) {
                        warn!(error = format!("{error:#}"), "broadcasts wait: the broadcast server does not take them");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Sends the oldest broadcasts and returns how many left the table.
    async fn send_next(&self, db: &Database, trigger: &Trigger) -> anyhow::Result<usize> {
        let oldest = sqlx::query_as("SELECT id, channel, event, data, socket_id FROM broadcasts ORDER BY id LIMIT ?");
        let events: Vec<Event> = oldest.bind(BATCH).fetch_all(&db.reader).await?;
        let (Some(last), count) = (events.last().map(|event| event.id), events.len()) else { return Ok(0) };
        match trigger.send(&events).await {
            Err(TriggerError::Refused(_)) => {
                // All or none were taken: only alone it turns out which one is not to the server's liking.
                for event in &events {
                    self.send_alone(trigger, event).await?;
                    self.done(db, event.id).await?;
                }
            }
            sent => {
                sent?;
                self.done(db, last).await?;
            }
        }
        // A full batch may have more behind it.
        if count < usize::from(BATCH) && self.set_troubled(false) {
            info!("all broadcasts were delivered");
            // The dashboard showed that some waited.
            store(&mut *db.writer.acquire().await?, &[dashboard_changed()]).await?;
        }
        Ok(count)
    }

    /// Sends one event; one that the server will never take is given up.
    async fn send_alone(&self, trigger: &Trigger, event: &Event) -> Result<(), TriggerError> {
        let sent = trigger.send(slice::from_ref(event)).await;
        let Err(TriggerError::Refused(answer)) = sent else { return sent };
        error!(channel = event.channel, event = event.event, answer = %answer, "broadcast given up");
        self.state.send_modify(|state| state.refused = Some(event.id));
        Ok(())
    }

    async fn done(&self, db: &Database, last: i64) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM broadcasts WHERE id <= ?").bind(last).execute(&db.writer).await?;
        self.state.send_modify(|state| state.done = last);
        Ok(())
    }

    /// Returns whether that is a change.
    fn set_troubled(&self, troubled: bool) -> bool {
        self.state.send_if_modified(|state| mem::replace(&mut state.troubled, troubled) != troubled)
    }

    /// Waits a moment for the broadcasts with these ids, and returns whether they were delivered.
    async fn delivered(&self, ids: RangeInclusive<i64>) -> bool {
        let last = *ids.end();
        let mut state = self.state.subscribe();
        let known = timeout(PATIENCE, state.wait_for(|state| state.done >= last || state.troubled)).await;
        let Ok(Ok(state)) = known else {
            self.set_troubled(true);
            return false;
        };
        state.done >= last && state.refused.is_none_or(|refused| !ids.contains(&refused))
    }
}

/// A change of the shop: its rows and what is told of them, in one transaction.
pub(crate) struct Change<'a> {
    outbox: &'a Outbox,
    /// For the rows themselves.
    pub(crate) tx: Transaction<'static, Sqlite>,
    /// The connection that shall not hear of it: the page that asked for the change has the answer.
    except: Option<String>,
    broadcasts: Vec<Event>,
}

impl<'a> Change<'a> {
    /// Begins one that `request` asks for.
    pub(crate) async fn begin(shop: &'a Data<Shop>, request: &HttpRequest) -> Result<Self, ApiError> {
        let except = request.headers().get("X-Socket-ID").and_then(|id| id.to_str().ok());
        let except = except.filter(|id| is_socket_id(id)).map(str::to_owned);
        Ok(Self { outbox: &shop.outbox, tx: shop.db.writer.begin().await?, except, broadcasts: Vec::new() })
    }

    /// Its revision, for the rows that it changes.
    pub(crate) async fn revision(&mut self) -> Result<i64, ApiError> {
        Ok(next_revision(&mut self.tx).await?)
    }

    /// Tells the others of it. The data shall say no more than what changed: everybody can listen.
    pub(crate) fn tell(&mut self, channel: &str, event: &str, data: &Value) {
        self.broadcasts.push(Event { socket_id: self.except.clone(), ..Event::new(channel, event, data.to_string()) });
    }

    /// Tells the manager's dashboard that its figures changed.
    pub(crate) fn tell_dashboard(&mut self) {
        self.broadcasts.push(dashboard_changed());
    }

    /// Keeps it, and returns whether the others know. From here on they will, be it later.
    pub(crate) async fn commit(mut self) -> Result<bool, ApiError> {
        let ids = store(&mut self.tx, &self.broadcasts).await?;
        self.tx.commit().await?;
        self.outbox.wake.notify_one();
        Ok(self.outbox.delivered(ids).await)
    }
}

fn dashboard_changed() -> Event {
    Event::new(DASHBOARD, "dashboard.changed", "{}".to_owned())
}

/// Whether it is one that the API takes.
pub(crate) fn is_socket_id(text: &str) -> bool {
    text.len() <= 40 && SocketId::is_well_formed(text)
}

/// Stores what is to be told, and returns the ids.
async fn store(connection: &mut SqliteConnection, events: &[Event]) -> sqlx::Result<RangeInclusive<i64>> {
    let mut insert = QueryBuilder::new("INSERT INTO broadcasts (channel, event, data, socket_id) ");
    insert.push_values(events, |mut row, event| {
        row.push_bind(&event.channel).push_bind(&event.event).push_bind(&event.data).push_bind(&event.socket_id);
    });
    let last = insert.build().execute(connection).await?.last_insert_rowid();
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    Ok(last - count + 1..=last)
}
