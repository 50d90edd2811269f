//! Fanfare inside an actix-web application of your own.

use std::{any::Any, future::Future, rc::Rc, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, dev::Extensions, http::header, rt::net::TcpStream, web};

use crate::{
    config::Config,
    http::{self, XHR_SCOPE},
    node::Node,
    transport::{actix_ws, websocket},
    worker::Worker,
};

/// A broadcast server whose routes live in an actix-web application: `/app/{key}` for clients, `/apps/{id}/...` and
/// `/users/...` for the HTTP API, below the configured `path_prefix`; `/pusher/app/...` for clients without a WebSocket; and
/// every path nobody else answers, unless the application has a default service of its own.
///
/// Listening, TLS and everything else of `[server]` that concerns sockets is the application's part. Cheap to clone; make
/// one and hand it to the application's factory:
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # async fn serve(config: fanfare_server::config::Config) -> anyhow::Result<()> {
/// let fanfare = fanfare_server::Fanfare::start(&config)?;
/// let routes = fanfare.clone();
/// let server = HttpServer::new(move || App::new().configure(routes.routes()))
///     .on_connect(fanfare_server::Fanfare::on_connect(&config))
///     // So that a client whose request is held, and who goes, is noticed at once.
///     .h1_allow_half_closed(false)
///     .disable_signals()
///     .bind(("127.0.0.1", 6001))?
///     .run();
/// let handle = server.handle();
/// let serving = actix_web::rt::spawn(server);
/// tokio::signal::ctrl_c().await?;
/// // Clients are sent away while the server still runs.
/// fanfare.shutdown().await;
/// handle.stop(true).await;
/// serving.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Fanfare {
    node: Arc<Node>,
}

impl Fanfare {
    /// Starts webhooks and due announcements on a thread of their own.
    ///
    /// # Errors
    /// A webhook endpoint, a Redis or database URL that cannot be used, or a thread that cannot be started.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { node: Node::start(config, None, config.server.port)? })
    }

    /// The routes, for `App::configure`. To be called once per application instance, which is once per thread of an
    /// `HttpServer`: the thread becomes one of Fanfare's workers. A default service of the application's own is to be set after
    /// this.
    pub fn routes(&self) -> impl FnOnce(&mut web::ServiceConfig) + use<> {
        let node = Arc::clone(&self.node);
        move |config| {
            let worker = Worker::start(&node);
            let prefix = &*node.config.path_prefix;
            let handler = move |request, payload| answer(Rc::clone(&worker), request, payload);
            let scopes = ["/app", "/apps", "/users"].map(|scope| format!("{prefix}{scope}"));
            for scope in scopes.iter().map(String::as_str).chain([XHR_SCOPE]) {
                config.service(web::scope(scope).default_service(web::to(handler.clone())));
            }
            config.default_service(web::to(handler));
        }
    }

    /// For `HttpServer::on_connect`: bounds what the kernel holds for a client that does not read, and how long. Without it
    /// such a client is cut off from all channels, but its socket stays until the client goes.
    pub fn on_connect(config: &Config) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + Clone + 'static {
        let write_timeout = config.server.write_timeout;
        move |socket, _| {
            if let Some(socket) = socket.downcast_ref::<TcpStream>() {
                websocket::bound_socket(socket, write_timeout);
            }
        }
    }

    /// Sends all clients away with 4200 over the grace period, and delivers the webhooks that wait.
    pub fn shutdown(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.node).shutdown()
    }
}

async fn answer(
    worker: Rc<Worker>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    // Only upgrades to WebSockets count: Java's HTTP client asks for HTTP/2 (`h2c`) with every request.
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        actix_ws::upgrade(&worker, &request, payload).await
    } else {
        Ok(http::respond(worker, request, payload).await)
    }
}
