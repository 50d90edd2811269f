//! Signed requests to the HTTP API, and errors that say what to look at.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use fanfare_protocol::request::signed_query;
use reqwest::{Client, StatusCode, redirect};

use super::{
    CliError,
    target::{Target, TargetArgs, encode},
};
use crate::{timing::unix_time, tls};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What all commands have that talk to a server.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Take any certificate: for a server of your own whose certificate no authority has signed
    #[arg(long)]
    insecure: bool,
}

/// A server, and the means to talk to it.
pub(super) struct Server {
    pub(super) target: Target,
    pub(super) client: Client,
}

impl ServerArgs {
    pub(super) fn server(&self) -> Result<Server, CliError> {
        let target = self.target.target()?;
        tls::choose_crypto();
        let mut builder = Client::builder()
            .user_agent(concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            // WebSocket upgrades need HTTP/1.1.
            .http1_only()
            .tcp_nodelay(true)
            .danger_accept_invalid_certs(self.insecure);
        if target.origin().starts_with("http://") {
            // Plain HTTP needs no certificates, so a machine that has none will do. A proxy from the environment is not meant for a server
            // of one's own.
            builder = builder.tls_certs_only([]).no_proxy();
        }
        let client = builder.build().context("cannot make an HTTP client")?;
        Ok(Server { target, client })
    }
}

impl Server {
    /// `GET` below the app's path. Segments and parameters are as they are before any encoding.
    pub(super) async fn get(&self, path: &[&str], params: &[(&str, &str)]) -> Result<String, CliError> {
        self.request("GET", path, params, String::new()).await
    }

    /// `POST` below the app's path.
    pub(super) async fn post(&self, path: &[&str], body: String) -> Result<String, CliError> {
        self.request("POST", path, &[], body).await
    }

    async fn request(
        &self,
        method: &str,
        path: &[&str],
        params: &[(&str, &str)],
        body: String,
    ) -> Result<String, CliError> {
        let target = &self.target;
        let path = |encode: fn(&str) -> String| {
            let segments: Vec<_> = path.iter().map(|segment| encode(segment)).collect();
            format!("{}/apps/{}/{}", target.prefix(), encode(target.id()), segments.join("/"))
        };
        let now = unix_time().as_secs();
        // SDKs sign what was there before the encoding.
        let signed = path(str::to_owned);
        let query = signed_query(target.signer(), target.key(), method, &signed, params, body.as_bytes(), now);
        let url = format!("{}{}?{query}", target.origin(), path(encode));
        let request = if method == "GET" {
            self.client.get(url)
        } else {
            self.client.post(url).header("content-type", "application/json").body(body)
        };
        let answer = request.timeout(TIMEOUT).send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.unreachable(error))?;
        if status == StatusCode::OK { Ok(text) } else { Err(self.refused(status, text.trim())) }
    }

    /// Why there is no answer, and what to look at. Without the URL: it is signed.
    pub(super) fn unreachable(&self, error: reqwest::Error) -> CliError {
        let (refused, slow) = (error.is_connect(), error.is_timeout());
        let text = format!("{:#}", anyhow::Error::from(error.without_url()));
        let hint = match (refused, slow) {
            (_, true) => "; is it busy, or is a firewall between?",
            (true, _) if text.contains("certificate") => "; if the server is yours, --insecure takes any certificate",
            (true, _) => {
                "; does the server run there? Another address: --url, or PUSHER_HOST, PUSHER_PORT and PUSHER_SCHEME"
            }
            _ => "",
        };
        anyhow!("no answer from {}: {text}{hint}", self.target.origin()).into()
    }

    fn refused(&self, status: StatusCode, text: &str) -> CliError {
        let (id, origin) = (self.target.id(), self.target.origin());
        let hint = match status {
            StatusCode::UNAUTHORIZED if text.starts_with("Timestamp") => {
                "; the clocks of this machine and of the server differ"
            }
            StatusCode::UNAUTHORIZED => {
                "; the key or the secret is not the app's: compare --key and --secret, PUSHER_APP_KEY and \
                 PUSHER_APP_SECRET, or [[apps]], with those of the server"
            }
            StatusCode::NOT_FOUND => {
                return anyhow!(
                    "{origin} answered {status}: it has no app with the id {id}, or another path prefix than --url"
                )
                .into();
            }
            _ => "",
        };
        anyhow!("{origin} answered {status}: {text}{hint}").into()
    }
}
