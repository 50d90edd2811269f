//! What happens to a socket before HTTP: the PROXY protocol's header, and TLS.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `proxy_header` | the PROXY protocol's header, read to its last byte and no further |

mod proxy_header;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::{config::ServerConfig, limits::PROXY_HEADER_TIMEOUT, timing::in_time, transport::Stream};

/// What one listener does with its sockets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    tls: Option<TlsAcceptor>,
}

impl Acceptor {
    /// For a listener that speaks TLS, or, without it, plain HTTP.
    pub(crate) fn new(config: Arc<ServerConfig>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self { config, tls: tls.map(TlsAcceptor::from) }
    }

    /// Whether its connections may use TLS.
    pub(crate) fn can_be_secure(&self) -> bool {
        self.tls.is_some() || self.config.proxy_protocol
    }

    /// Makes a client's socket ready for HTTP. The address is that of the peer, or the one that a trusted proxy names in its PROXY header.
    /// What not every connection needs is boxed: actix moves this future several times, and with the state of a TLS handshake in it that
    /// was a tenth of what a connect costs.
    ///
    /// # Errors
    /// The peer says something else than it should, or too little in time. The socket is to be closed.
    pub(crate) async fn accept(self, mut socket: TcpStream) -> io::Result<(Stream, Option<SocketAddr>)> {
        let mut peer = socket.peer_addr()?;
        let mut tls_at_proxy = false;
        if self.config.proxy_protocol && self.config.is_trusted_proxy(peer.ip()) {
            let header = Box::pin(in_time(PROXY_HEADER_TIMEOUT, proxy_header::read(&mut socket))).await;
            let header = header.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
            let header = header.inspect_err(|error| {
                tracing::debug!(proxy = %peer, %error, "closing a connection of a trusted proxy without a PROXY header");
            })?;
            peer = header.client.unwrap_or(peer);
            tls_at_proxy = header.tls;
        }
        let stream = match self.tls {
            None => Stream::Plain { socket, tls_at_proxy },
            Some(tls) => {
                let handshake = Box::pin(in_time(self.config.request_timeout, tls.accept(socket))).await;
                Stream::Tls(Box::new(handshake.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?))
            }
        };
        Ok((stream, Some(peer)))
    }
}
