//! The WebSocket transport that owns its socket.
//!
//! actix-http hands over each upgrade request with its socket. The socket moves to a task of its own and the HTTP
//! connection, with its buffers, is gone: an idle client costs little more than that task. The worker's loop writes; the
//! task reads, and writes only what the socket did not take at once.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{Request, h1};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
    time::timeout,
};

use super::{
    handshake::{self, Admission},
    session::{End, Session, Source},
    stream::Stream,
};
use crate::{
    admission::Admitted,
    connection::{Connection, ConnectionError, Link},
    limits::{CLOSE_TIMEOUT, UNSENT_BYTES},
    node,
    worker::Worker,
};

/// Takes over the socket of a request that asks for an upgrade.
pub(crate) fn upgrade(worker: &Rc<Worker>, request: Request, framed: Framed<Stream, h1::Codec>) {
    let parts = framed.into_parts();
    let socket = parts.io;
    let answer = match handshake::answer(request.head()) {
        Ok(answer) => answer,
        Err(error) => return say_goodbye(socket, error.into()),
    };
    match handshake::admit(&worker.node, request.head(), socket.is_secure()) {
        Admission::Decided(admitted) => begin(worker, admitted, socket, answer, &parts.read_buf),
        Admission::Undecided(visitor) => {
            let worker = Rc::clone(worker);
            spawn_local(async move {
                let admitted = handshake::admit_later(&worker.node, request.head(), visitor).await;
                begin(&worker, admitted, socket, answer, &parts.read_buf);
            });
        }
    }
}

/// Serves a client who was let in; tells another one why not.
fn begin(
    worker: &Rc<Worker>,
    admitted: Result<Admitted, ConnectionError>,
    socket: Stream,
    mut answer: Vec<u8>,
    early: &[u8],
) {
    match admitted {
        Ok(admitted) => {
            // The handshake's answer and the first frame go out in one write. `early` is what the client has sent without waiting for them.
            let link = Link::Socket(socket.into());
            spawn_local(Client::Open(Session::open(worker, admitted, link, Socket, answer, early)));
        }
        Err(error) => {
            error.frames().for_each(|frame| answer.extend_from_slice(&frame));
            say_goodbye(socket, answer);
        }
    }
}

/// Bounds what a client that vanished or stalled can cost the kernel. None of it is worth a connection if it fails.
pub(crate) fn bound_socket(socket: &impl AsFd, write_timeout: Duration) {
    let options = socket2::SockRef::from(socket);
    let _ = options.set_tcp_notsent_lowat(UNSENT_BYTES);
    let _ = options.set_tcp_user_timeout(Some(write_timeout));
}

/// Sends the last bytes to a client that was never let in.
fn say_goodbye(mut socket: Stream, bytes: Vec<u8>) {
    spawn_local(async move {
        let goodbye = async {
            socket.write_all(&bytes).await?;
            socket.shutdown().await?;
            while socket.read(&mut [0; 512]).await? > 0 {}
            io::Result::Ok(())
        };
        // The socket is closed afterwards, whether this worked or not.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    });
}

/// Bytes come from the connection's own socket.
struct Socket;

impl Source for Socket {
    fn poll_read(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        connection.poll_read(cx, buffer)
    }
}

/// One client from its handshake to its end. Written as a future by hand: the compiler's would hold the session twice, and
/// there are as many of these as there are clients.
#[expect(clippy::large_enum_variant, reason = "most are open, and each is on the heap already, as a task")]
enum Client {
    /// Registered, and served.
    Open(Session<Socket>),
    /// Gone from all channels; the last frames are on their way. On the heap, so that no client who is served holds the
    /// space for it.
    Closing(Pin<Box<dyn Future<Output = ()>>>),
}

impl Future for Client {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Open(session) => {
                    let end = ready!(session.poll(cx));
                    let (connection, client) = (Rc::clone(session.connection()), session.client());
                    // Replacing the session drops it, so all channels are left before the goodbye, which may take a while.
                    *self = Self::Closing(Box::pin(close(connection, end, client)));
                }
                Self::Closing(goodbye) => return goodbye.as_mut().poll(cx),
            }
        }
    }
}

/// Says goodbye to a client whose session is over.
async fn close(connection: Rc<Connection>, end: End, _client: node::Client) {
    match &end {
        End::Gone => return,
        End::Left(answer) => connection.close_with(Some(answer.clone())),
        End::Error(error) => connection.close(error),
    }
    if timeout(CLOSE_TIMEOUT, say_last_words(&connection)).await.is_err() {
        connection.abort_on_drop();
    }
}

/// Writes what is left, and waits for the client to close its side.
async fn say_last_words(connection: &Connection) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        connection.set_task(cx);
        connection.poll_flush(cx)
    })
    .await?;
    std::future::poll_fn(|cx| connection.poll_shutdown(cx)).await?;
    let mut rest = BytesMut::with_capacity(512);
    while std::future::poll_fn(|cx| connection.poll_read(cx, &mut rest)).await? > 0 {
        rest.clear();
    }
    Ok(())
}
