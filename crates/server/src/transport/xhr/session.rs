//! One client's session: lives between its requests, on the worker that had the first of them.
//!
//! What is for the client comes out of the outbox that every connection has. A receive request takes it, chunk by chunk, and
//! until the next one comes, it waits there, within the outbox's bound.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    super::registered::Registered,
    lines::{Lines, NOTHING, utf16_length},
    pipe::Writer,
    registry::Place,
    tag::RequestTag,
};
use crate::{
    connection::{Connection, ConnectionError},
    frame,
    limits::{CLOSE_TIMEOUT, STREAM_LENGTH, STREAM_REOPEN_TIMEOUT},
    node::{Client, Node},
};

/// Bytes of a chunk; it ends with the message that exceeds them. What waits counts in the outbox, not here.
const CHUNK_BYTES: usize = 16 * 1024;
/// Messages that are known again when the browser sends them again: as many as it may have under way when a connection breaks, which over
/// HTTP/2 to a proxy are all subscriptions of a page.
const REMEMBERED_MESSAGES: usize = 128;

/// What a request asks of a session.
#[derive(Debug)]
pub(super) enum Command {
    /// Take this request to send through, instead of an earlier one.
    Receive { writer: Writer, streaming: bool, tag: Option<RequestTag> },
    /// A message of the client, and which one it is of which request, if those can be told apart.
    Message { message: String, mark: Option<(RequestTag, usize)> },
    /// The client asks whether anybody is there.
    Ask,
    /// The client sent more than it may.
    TooLarge,
}

/// The request that takes what is sent.
struct Receiver {
    writer: Writer,
    /// What it can still take, if it is a stream.
    stream: Option<Stream>,
}

/// A browser keeps a stream's whole response in memory, so pusher-js opens a new one after [`STREAM_LENGTH`], and whatever
/// was on the way of the old one by then is lost to it. So nothing follows what makes it do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// So much was sent.
    Open(usize),
    /// The client is about to open the next one.
    Full,
    /// The client did not open the next one, so it is one that reads on without end. If it opens one after all, nobody knows what it has
    /// read.
    Endless,
}

/// What a request was given that receives. If the same request comes again, nothing of that has reached the page.
enum Given {
    /// Nothing yet.
    Nothing,
    /// A poll's answer, to be given again.
    Answer(Bytes),
    /// Lines of a stream, which nobody has any more.
    Lines,
}

/// A session.
pub(super) struct Session {
    /// Until the session ends, which leaves all channels.
    registered: Option<Registered>,
    connection: Rc<Connection>,
    commands: mpsc::Receiver<Command>,
    node: Arc<Node>,
    receiver: Option<Receiver>,
    /// A chunk whose request was gone before it took it.
    unsent: Option<Bytes>,
    /// The last request that receives, if it can be told from others, and what it was given.
    last: Option<(RequestTag, Given)>,
    /// The last messages of the client: one that the browser sends again has been acted on.
    seen: VecDeque<(RequestTag, usize)>,
    /// Events went into an endless stream.
    read_on: bool,
    /// The client has not been told that the session is open.
    opening: bool,
    /// The client waits for any line.
    asked: bool,
    /// The held poll has waited long enough.
    poll_is_due: bool,
    /// The last line is written.
    closed: bool,
    /// When something was written, or the last receiver came or went.
    since: Instant,
    /// Once the session is over: until when the client may fetch the last lines.
    end: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    _place: Place,
    _client: Client,
}

impl Session {
    pub(super) fn new(
        registered: Registered,
        place: Place,
        commands: mpsc::Receiver<Command>,
        node: &Arc<Node>,
    ) -> Self {
        let since = Instant::now();
        Self {
            connection: Rc::clone(&registered.connection),
            _client: registered.client(),
            registered: Some(registered),
            commands,
            receiver: None,
            unsent: None,
            last: None,
            seen: VecDeque::new(),
            read_on: false,
            opening: true,
            asked: false,
            poll_is_due: false,
            closed: false,
            since,
            end: None,
            timer: Box::pin(sleep_until(since + node.xhr.grace)),
            node: Arc::clone(node),
            _place: place,
        }
    }

    /// Runs until the client is gone, or has its last line.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.set_task(cx);
        loop {
            self.poll_commands(cx);
            if self.end.is_none()
                && let Some(error) = self.connection.take_error()
            {
                self.end(&error);
            }
            self.poll_write(cx);
            if self.closed {
                return Poll::Ready(());
            }
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                if self.on_deadline() {
                    return Poll::Ready(());
                }
                continue;
            }
            // A timer that fires too early costs one look; setting it anew with each chunk would cost more.
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Leaves all channels; what is left is to tell the client.
    fn end(&mut self, error: &ConnectionError) {
        self.registered = None;
        self.connection.close(error);
        self.end = Some(Instant::now() + CLOSE_TIMEOUT);
    }

    /// Does what requests ask for, as fast as the client may.
    fn poll_commands(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(registered) = &mut self.registered
                && (registered.poll_pause(cx).is_pending()
                    || registered.has_to_pause() && registered.poll_pause(cx).is_pending()
                    || registered.poll_room(cx).is_pending())
            {
                return;
            }
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.on_command(command),
                // The queue never ends while this session is registered, since the registry holds a sender.
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        self.connection.received(match &command {
            Command::Message { message, .. } => message.len(),
            Command::Receive { .. } | Command::Ask | Command::TooLarge => 0,
        });
        match command {
            Command::Receive { writer, streaming, tag } => self.on_receive(writer, streaming, tag),
            Command::Message { message, mark } => {
                if !self.is_repeated(mark)
                    && let Some(registered) = &mut self.registered
                {
                    registered.on_message(message.as_bytes());
                }
            }
            Command::Ask => self.asked = true,
            Command::TooLarge => {
                self.connection.end(ConnectionError::MessageTooLarge { limit: self.node.config.max_message_bytes });
            }
        }
    }

    /// Whether a message has come before. It is remembered.
    fn is_repeated(&mut self, mark: Option<(RequestTag, usize)>) -> bool {
        let Some(mark) = mark else { return false };
        let is_repeated = self.seen.contains(&mark);
        if !is_repeated {
            self.seen.truncate(REMEMBERED_MESSAGES - 1);
            self.seen.push_front(mark);
        }
        is_repeated
    }

    fn on_receive(&mut self, writer: Writer, streaming: bool, tag: Option<RequestTag>) {
        self.detach();
        let is_lost = match self.last.take().filter(|(last, _)| Some(*last) == tag) {
            Some((_, Given::Lines)) => true,
            Some((_, Given::Answer(answer))) => {
                self.unsent = Some(answer);
                false
            }
            Some((_, Given::Nothing)) | None => false,
        };
        self.last = tag.map(|tag| (tag, Given::Nothing));
        if self.read_on || is_lost {
            self.connection.end(ConnectionError::Gap);
        }
        // A later stream of a session gets an empty line at once, because the answer to what the client sent may have gone to the one
        // before.
        self.asked |= streaming && !self.opening;
        self.poll_is_due = false;
        self.receiver = Some(Receiver { writer, stream: streaming.then_some(Stream::Open(0)) });
        self.since = Instant::now();
    }

    /// Lets go of the request that receives. What it did not take is for the next one.
    fn detach(&mut self) {
        if let Some(chunk) = self.receiver.take().and_then(|receiver| receiver.writer.take_back()) {
            self.unsent = Some(chunk);
        }
    }

    /// Hands over what waits, as far as the request takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while let Some(receiver) = &self.receiver {
            match receiver.writer.poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.detach();
                    self.since = Instant::now();
                    return;
                }
            }
            let stream = receiver.stream;
            let Some(chunk) = self.next_chunk(stream) else { return };
            self.since = Instant::now();
            if let Some(receiver) = &mut self.receiver {
                if let Some(Stream::Open(length)) = &mut receiver.stream {
                    *length += utf16_length(&chunk);
                    if *length > STREAM_LENGTH {
                        receiver.stream = Some(Stream::Full);
                    }
                }
                if let Some((_, given)) = &mut self.last {
                    *given = if stream.is_some() { Given::Lines } else { Given::Answer(chunk.clone()) };
                }
                receiver.writer.send(chunk);
            }
            if stream.is_none() || self.closed {
                // A poll is over with its answer.
                self.receiver = None;
            }
        }
    }

    /// What is to be sent next, up to the end of a line.
    fn next_chunk(&mut self, stream: Option<Stream>) -> Option<Bytes> {
        if stream == Some(Stream::Full) {
            return None;
        }
        if let Some(chunk) = self.unsent.take() {
            return Some(chunk);
        }
        let mut lines = Lines::default();
        if std::mem::take(&mut self.opening) {
            lines.open(stream.is_some());
        }
        let mut frames = 0;
        while lines.len() < CHUNK_BYTES
            && let Some(frame) = self.connection.take_frame()
        {
            frames += 1;
            self.closed |= frame::read(&frame).is_some_and(|content| lines.add(&content));
        }
        self.read_on |= frames > 0 && stream == Some(Stream::Endless);
        if lines.len() == 0 {
            if self.asked {
                lines.line(NOTHING);
            } else if self.poll_is_due {
                lines.heartbeat();
            } else {
                return None;
            }
        }
        self.asked = false;
        let chunk = lines.finish();
        self.connection.tally().wrote(chunk.len(), frames);
        Some(chunk)
    }

    /// When something has to happen if nothing else does.
    fn deadline(&self) -> Instant {
        if let Some(end) = self.end {
            return end;
        }
        let patience = match &self.receiver {
            None => self.node.xhr.grace,
            Some(Receiver { stream: Some(Stream::Full), .. }) => STREAM_REOPEN_TIMEOUT,
            Some(_) => self.node.xhr.heartbeat,
        };
        self.since + patience
    }

    /// Whether the session is over.
    fn on_deadline(&mut self) -> bool {
        if self.end.is_some() {
            return true;
        }
        self.since = Instant::now();
        match &mut self.receiver {
            None => return true,
            Some(Receiver { stream: Some(stream), .. }) if *stream == Stream::Full => *stream = Stream::Endless,
            Some(Receiver { stream: Some(_), .. }) => self.asked = true,
            Some(Receiver { stream: None, .. }) => self.poll_is_due = true,
        }
        false
    }
}
