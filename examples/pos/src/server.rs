//! Puts the parts together, listens, and ends.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use actix_web::{
    App, HttpServer,
    middleware::from_fn,
    web::{self, Data},
};
use anyhow::Context;
use fanfare_protocol::Signer;
use tokio::sync::Semaphore;
use tracing::info;

use crate::{
    auth, broadcasting_auth, comments,
    config::{self, Config},
    dashboard,
    db::Database,
    input, orders,
    outbox::Outbox,
    pages, products,
    pusher::Trigger,
    registrations, same_origin,
};

const WORKERS: usize = 2;
/// For requests under way; the slowest one waits for a broadcast.
const SHUTDOWN_SECONDS: u64 = 2;
/// Passwords that are checked at the same time.
const SIGN_INS: usize = 2;

/// What all requests share.
pub(crate) struct Shop {
    pub(crate) db: Database,
    pub(crate) outbox: Outbox,
    pub(crate) pusher: config::Pusher,
    pub(crate) sign_ins: Semaphore,
    /// The built front end.
    pub(crate) web: PathBuf,
    signer: Signer,
}

impl Shop {
    /// The `auth` string for what is to be signed.
    pub(crate) fn auth(&self, string_to_sign: &str) -> String {
        format!("{}:{}", self.pusher.key, self.signer.sign(&[string_to_sign.as_bytes()]))
    }
}

/// A server that accepts connections.
pub struct Server {
    address: SocketAddr,
    http: actix_web::dev::Server,
    shop: Data<Shop>,
    trigger: Trigger,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the database and binds the address.
    ///
    /// # Errors
    /// The database cannot be opened, or the address is taken.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let Config { host, port, database, web, pusher } = config;
        let db = Database::open(&database).await.with_context(|| format!("database {}", database.display()))?;
        auth::seed(&db.writer).await.context("adding the demo staff")?;
        let trigger = Trigger::new(&pusher)?;
        let signer = Signer::new(&pusher.secret);
        let (outbox, sign_ins) = (Outbox::default(), Semaphore::new(SIGN_INS));
        let shop = Data::new(Shop { db, outbox, pusher, sign_ins, web, signer });

        let state = shop.clone();
        let app = move || {
            let routes = |config: &mut web::ServiceConfig| routes(config, &state.web);
            App::new().app_data(state.clone()).wrap(from_fn(same_origin::check)).configure(routes)
        };
        let http = HttpServer::new(app)
            .workers(WORKERS)
            .shutdown_timeout(SHUTDOWN_SECONDS)
            .bind((host.as_str(), port))
            .with_context(|| format!("address {host}:{port} (POS_HOST, POS_PORT)"))?;
        let address = *http.addrs().first().context("no address")?;
        Ok(Self { address, http: http.run(), shop, trigger })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until SIGINT or SIGTERM. Broadcasts that still wait then are sent after the next start.
    ///
    /// # Errors
    /// Those of the operating system's sockets.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { address, http, shop, trigger } = self;
        info!(broadcasts = shop.pusher.api, "the point of sale is at http://{address}");
        tokio::select! {
            ended = http => Ok(ended?),
            never = shop.outbox.run(&shop.db, &trigger) => match never {},
        }
    }
}

fn routes(config: &mut web::ServiceConfig, dist: &Path) {
    config
        .configure(input::limits)
        .configure(auth::routes)
        .configure(products::routes)
        .configure(orders::routes)
        .configure(registrations::routes)
        .configure(comments::routes)
        .configure(dashboard::routes)
        .configure(broadcasting_auth::routes)
        .configure(|config| pages::routes(config, dist));
}
