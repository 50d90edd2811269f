//! The certificate of the listener.

use std::path::Path;

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::TlsConfig;

/// What the listener needs for TLS; `None` without a certificate in the configuration.
///
/// # Errors
/// A file that cannot be read or holds nothing of use, named with its setting.
pub(crate) fn load(config: &TlsConfig) -> anyhow::Result<Option<ServerConfig>> {
    if config.certificate.is_empty() {
        return Ok(None);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = chain(Path::new(&config.certificate))
        .with_context(|| format!("tls.certificate: cannot use {}", config.certificate))?;
    let key =
        PrivateKeyDer::from_pem_file(&config.key).with_context(|| format!("tls.key: cannot use {}", config.key))?;
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("tls.key: {} does not belong to {}", config.key, config.certificate))?;
    Ok(Some(server))
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "it holds no certificate in PEM");
    Ok(chain)
}
