//! The certificate of the listener, and its successors: files that change are read again, without a connection lost.
//!
//! Handshakes ask for the certificate each time. A pair of files that cannot be used changes nothing: the one before stays, and
//! one line of the log says what is wrong.

mod expiry;

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use self::expiry::expiry;
use crate::{config::TlsConfig, metrics::Reloads, node::Node};

/// How often the files are looked at. A new pair is taken when both files have been the same for one look, as tools write one
/// after the other.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long before its end a certificate is worth a warning, once a day.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes *ring* the cryptography of all TLS in this process: without a choice, rustls panics at the first connection.
pub(crate) fn choose_crypto() {
    // An error means that another choice was made before, which serves as well.
    let _ = ring::default_provider().install_default();
}

/// The certificate in use and where it comes from.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsConfig,
    current: Arc<Current>,
    seen: Option<State>,
}

/// What handshakes get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What tells one version of each file from another. A link that leads elsewhere is noticed, too.
type State = [(u64, u64, SystemTime); 2];

impl Certificate {
    /// The configured certificate; `None` without one.
    ///
    /// # Errors
    /// A file that cannot be read or holds nothing of use, named with its setting.
    pub(crate) fn load(files: &TlsConfig) -> anyhow::Result<Option<Self>> {
        if files.certificate.is_empty() {
            return Ok(None);
        }
        choose_crypto();
        // Their state is taken before they are read, so that a change in between is noticed later.
        let seen = state(files).ok();
        let current = Arc::new(Current(ArcSwap::new(read(files)?)));
        Ok(Some(Self { files: files.clone(), current, seen }))
    }

    /// What the listener needs.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let current: Arc<Current> = Arc::clone(&self.current);
        Arc::new(ServerConfig::builder().with_no_client_auth().with_cert_resolver(current))
    }

    /// Looks at the files from time to time, and at once on SIGHUP. Never ends.
    pub(crate) async fn watch(mut self, node: Arc<Node>) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut days = interval(DAY);
        let mut pending = None;
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = looks.tick() => {
                    let now = state(&self.files).ok();
                    if now != self.seen && now == pending {
                        self.reload(now, &node.metrics.tls_reloads);
                    }
                    pending = now;
                }
                _ = asked => self.reload(state(&self.files).ok(), &node.metrics.tls_reloads),
                _ = days.tick() => self.warn_of_expiry(),
            }
        }
    }

    fn reload(&mut self, state: Option<State>, counters: &Reloads) {
        self.seen = state;
        match read(&self.files) {
            Ok(key) => {
                self.current.0.store(key);
                counters.succeeded.increment();
                tracing::info!("new handshakes get the certificate that is now in {}", self.files.certificate);
                self.warn_of_expiry();
            }
            Err(error) => {
                counters.failed.increment();
                tracing::error!("keeping the certificate from before, as the new one cannot be used: {error:#}");
            }
        }
    }

    fn warn_of_expiry(&self) {
        let key = self.current.0.load();
        let Some(end) = key.cert.first().and_then(|certificate| expiry(certificate)) else { return };
        let file = &self.files.certificate;
        match end.duration_since(SystemTime::now()) {
            Err(_) => tracing::warn!("the certificate in {file} has expired: clients refuse it"),
            Ok(left) if left < EXPIRES_SOON => {
                tracing::warn!("the certificate in {file} expires in {} days", left.as_secs() / DAY.as_secs());
            }
            Ok(_) => {}
        }
    }
}

fn state(files: &TlsConfig) -> io::Result<State> {
    use std::os::unix::fs::MetadataExt as _;
    let of = |path| {
        let metadata = fs::metadata(path)?;
        io::Result::Ok((metadata.ino(), metadata.len(), metadata.modified()?))
    };
    Ok([of(&files.certificate)?, of(&files.key)?])
}

fn read(files: &TlsConfig) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = chain(Path::new(&files.certificate))
        .with_context(|| format!("tls.certificate: cannot use {}", files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| format!("tls.key: cannot use {}", files.key))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
        .with_context(|| format!("tls.key: {} does not belong to {}", files.key, files.certificate))?;
    Ok(Arc::new(key))
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "it holds no certificate in PEM");
    Ok(chain)
}
