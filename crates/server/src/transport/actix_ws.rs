//! The WebSocket transport for those who embed Fanfare in an actix-web application: the request and its socket stay with
//! actix-web, frames leave as the body of the response.
//!
//! It costs some 12 KB a connection for actix-http's buffers. actix-ws makes the handshake; frames are read as everywhere
//! else, since its own stream would keep a frame of any announced length.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::header;
use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    body::{BodySize, MessageBody},
    dev,
    error::PayloadError,
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::task::spawn_local;

use super::{
    handshake::{self, Admission},
    session::{End, Session, Source},
};
use crate::{
    connection::{Connection, Link},
    worker::Worker,
};

/// Answers a request for an upgrade.
///
/// # Errors
/// A handshake that is none.
pub(crate) async fn upgrade(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first: Vec<_> = offered.and_then(|list| list.split(',').next()).map(str::trim).into_iter().collect();
    let nothing = web::Payload::from_request(request, &mut dev::Payload::None).await?;
    let (response, _, _) = actix_ws::handle_with_protocols(request, nothing, &first)?;
    let secure = request.app_config().secure();
    let admitted = match handshake::admit(&worker.node, request.head(), secure) {
        Admission::Decided(admitted) => admitted,
        Admission::Undecided(visitor) => handshake::admit_later(&worker.node, request.head(), visitor).await,
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            let frames: Vec<_> = error.frames().collect();
            let goodbye = Goodbye(Some(frames.concat().into()));
            return Ok(response.map_body(|_, _| goodbye).map_into_boxed_body());
        }
    };
    let session = Session::open(worker, admitted, Link::Body(None.into()), Payload(payload), Vec::new(), &[]);
    let frames = Frames(Rc::clone(session.connection()));
    spawn_local(run(session));
    Ok(response.map_body(|_, _| frames).map_into_boxed_body())
}

/// One client from its handshake to its end.
async fn run(mut session: Session<Payload>) {
    let end = std::future::poll_fn(|cx| session.poll(cx)).await;
    let connection = Rc::clone(session.connection());
    drop(session);
    match end {
        End::Gone => connection.close_with(None),
        End::Left(answer) => connection.close_with(Some(answer)),
        End::Error(error) => connection.close(&error),
    }
    connection.flush();
}

/// Bytes come from the request's body.
struct Payload(web::Payload);

impl Source for Payload {
    fn poll_read(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let chunk: Option<Result<Bytes, PayloadError>> = ready!(Pin::new(&mut self.0).poll_next(cx));
        let chunk = chunk.transpose().map_err(io::Error::other)?.unwrap_or_default();
        connection.received(chunk.len());
        buffer.extend_from_slice(&chunk);
        Poll::Ready(Ok(chunk.len()))
    }
}

/// The body of a live connection: its outbox.
struct Frames(Rc<Connection>);

impl MessageBody for Frames {
    type Error = actix_web::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.0.poll_body(cx).map(|frame| frame.map(Ok))
    }
}

/// The body of a refused connection.
struct Goodbye(Option<Bytes>);

impl MessageBody for Goodbye {
    type Error = actix_web::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}
