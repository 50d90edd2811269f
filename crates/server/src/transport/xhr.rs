//! The transport for clients that cannot use a WebSocket: pusher-js's `xhr_streaming` and `xhr_polling`.
//!
//! A session is a task with a connection like any other; only its bytes travel in HTTP requests. One that receives is held,
//! and carries lines to the client; each message of the client is a request of its own. Requests of a session may reach
//! any worker, and find it through the registry.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `session` | a session, from its first request to its end |
//! | `lines` | how frames become lines |
//! | `pipe` | the way from a session to the request that takes its lines |
//! | `tag` | what tells a request from the same one, sent again |
//! | `registry` | which sessions live, and how many there may be |

mod lines;
mod pipe;
mod registry;
mod session;
mod tag;

use std::{rc::Rc, sync::Arc};

use actix_http::RequestHead;
use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_local};

use self::{
    lines::Lines,
    pipe::pipe,
    registry::{Place, Taken},
    session::{Command, Session},
    tag::RequestTag,
};
pub(crate) use self::{
    pipe::Reader,
    registry::{Addresses, SessionId, Sessions},
};
use super::{
    handshake::{admit_to, allows_origin, refused},
    registered::Registered,
};
use crate::{
    app::App,
    client_address::client_address,
    connection::{ConnectionError, Link},
    limits::SESSION_MESSAGES,
    worker::Worker,
};

/// What a receive request gets of the session `id`, which begins with it if there is none. Lines come for a stream as long
/// as the session lives, and once for a poll. `direct_tls`: the connection itself is one of TLS.
///
/// # Errors
/// Why no session begins, as the lines that tell the client: any other answer than 200 would tell it nothing.
pub(crate) async fn receive(
    worker: &Rc<Worker>,
    head: &RequestHead,
    key: &str,
    id: SessionId,
    streaming: bool,
    direct_tls: bool,
) -> Result<Reader, Bytes> {
    let (writer, reader) = pipe();
    let tag = RequestTag::of(head.uri.query());
    let mut command = Command::Receive { writer, streaming, tag };
    if let Some(app) = worker.node.apps.by_key(key)
        && let Some(session) = app.sessions.get(&id)
    {
        if !allows_origin(&app, head) {
            return Err(refusal(&ConnectionError::OriginNotAllowed));
        }
        match session.send(command).await {
            Ok(()) => return Ok(reader),
            // The session has ended in this moment, so a new one begins below.
            Err(mpsc::error::SendError(unsent)) => command = unsent,
        }
    }
    let session = begin(worker, head, key, id, direct_tls).await.map_err(|error| refusal(&error))?;
    // A session that has just begun has room. If it ends before it takes this, the response ends with it.
    let _ = session.send(command).await;
    Ok(reader)
}

/// Begins a session, which lives on this worker.
async fn begin(
    worker: &Rc<Worker>,
    head: &RequestHead,
    key: &str,
    id: SessionId,
    direct_tls: bool,
) -> Result<mpsc::Sender<Command>, ConnectionError> {
    let node = &worker.node;
    let admitted = admit_to(node, key, head, direct_tls).await?;
    let app = Arc::clone(&admitted.app);
    let (sender, commands) = mpsc::channel(SESSION_MESSAGES);
    let taken = Place::take(node, &app, client_address(&node.config, head), id, sender.clone());
    match taken {
        Ok(Taken::New(place)) => {
            let registered = Registered::new(worker, admitted, Link::Task { tls: direct_tls }, Vec::new());
            spawn_local(Session::new(registered, place, commands, node).run());
            Ok(sender)
        }
        Ok(Taken::Live(sender)) => {
            app.disconnected();
            Ok(sender)
        }
        Err(error) => {
            refused(node, Some(&app), head, &error);
            app.disconnected();
            Err(error)
        }
    }
}

fn refusal(error: &ConnectionError) -> Bytes {
    let mut lines = Lines::default();
    lines.open(false);
    lines.close(error.close_code().get(), &error.to_string());
    lines.finish()
}

/// A way to send to a live session; `None` if there is none of this name, or the page may not.
pub(crate) fn find(app: &App, head: &RequestHead, id: &SessionId) -> Option<Sender> {
    app.sessions.get(id).filter(|_| allows_origin(app, head)).map(Sender)
}

/// Takes a client's messages to its session.
pub(crate) struct Sender(mpsc::Sender<Command>);

/// The session has ended.
pub(crate) struct Ended;

impl Sender {
    /// Hands over the messages of a request with this query, in order, as fast as the session takes them. None at all asks whether
    /// anybody is there.
    ///
    /// # Errors
    /// [`Ended`]
    pub(crate) async fn send(&self, messages: Vec<String>, query: Option<&str>) -> Result<(), Ended> {
        if messages.is_empty() {
            return self.command(Command::Ask).await;
        }
        let tag = RequestTag::of(query);
        for (index, message) in messages.into_iter().enumerate() {
            self.command(Command::Message { message, mark: tag.map(|tag| (tag, index)) }).await?;
        }
        Ok(())
    }

    /// Tells the session that a message is larger than allowed, which ends it.
    pub(crate) async fn too_large(&self) {
        let _ = self.command(Command::TooLarge).await;
    }

    async fn command(&self, command: Command) -> Result<(), Ended> {
        self.0.send(command).await.map_err(|_| Ended)
    }
}
