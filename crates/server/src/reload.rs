//! Changes of the configuration while the server runs: when a file changes, and on SIGHUP.
//!
//! Files are looked at twice a second rather than watched by the kernel: that sees every way in which editors, deployments
//! and container mounts replace a file, also behind symbolic links and on network file systems, for two system calls a
//! second. A file that has changed is read once it has stayed the same from one look to the next, so that a half-written one
//! is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fanfare_protocol::AppId;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    app::Source,
    config::{AppConfig, Config, ConfigError},
    logging,
    node::Node,
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The sections that a running server takes, beside `log.level`. Whatever else has changed needs a restart.
const LIVE: [&str; 2] = ["apps", "limits"];

/// How to read the configuration again, and which files it comes from. Cheap to clone.
#[derive(Clone)]
pub struct Reload {
    files: Arc<[PathBuf]>,
    load: Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    /// What the files looked like before they were read.
    read: Vec<Option<Look>>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn at(file: &Path) -> Option<Self> {
        let data = fs::metadata(file).ok()?;
        Some(Self {
            file: (data.dev(), data.ino()),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

impl Reload {
    /// `load` reads the configuration from `files` and whatever else it is made of. To be made before it is first read, so that
    /// no later change is missed.
    pub fn new(
        files: impl IntoIterator<Item = PathBuf>,
        load: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        let files: Arc<[PathBuf]> = files.into_iter().collect();
        Self { read: look(&files), files, load: Arc::new(load) }
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        (self.load)()
    }
}

fn look(files: &[PathBuf]) -> Vec<Option<Look>> {
    files.iter().map(|file| Look::at(file)).collect()
}

/// What a server runs with, and how to read it again.
pub(crate) struct Watch {
    reload: Reload,
    /// Settings that cannot change without a restart, by key.
    fixed: BTreeMap<String, Value>,
    /// The ids of the configured apps.
    apps: BTreeSet<String>,
    /// Whether the demo app is one of them.
    demo: bool,
}

impl Watch {
    /// `config` is what the server starts with.
    pub(crate) fn new(reload: Reload, config: &Config) -> Self {
        Self { reload, fixed: fixed(config), apps: ids(config), demo: config.apps.iter().any(is_demo) }
    }

    /// Takes changes, for as long as it is polled.
    pub(crate) async fn run(mut self, node: &Node) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be heard, and changes of the configuration are not taken");
                return std::future::pending().await;
            }
        };
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.reload.read.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if !node.config.watch_config {
                        continue;
                    }
                    let files = Arc::clone(&self.reload.files);
                    // On a thread of its own: a file system that does not answer must not hold up what else this thread does.
                    let Ok(now) = spawn_blocking(move || look(&files)).await else { continue };
                    let settled = now == last;
                    last = now;
                    if !settled || last == self.reload.read {
                        continue;
                    }
                }
                _ = hangup.recv() => tracing::info!("SIGHUP: reading the configuration again"),
            }
            let mut reload = self.reload.clone();
            let read = spawn_blocking(move || {
                reload.read = look(&reload.files);
                let config = reload.load();
                (reload, config)
            });
            let Ok((reload, config)) = read.await else { continue };
            self.reload = reload;
            let problem = match config {
                Ok(config) if self.has_lost_apps(&config) => {
                    let files: Vec<_> = self.reload.files.iter().map(|file| file.display().to_string()).collect();
                    format!("{}: no app is left but the demo app; to serve that, start again", files.join(" and "))
                }
                Ok(config) => {
                    self.take(node, config);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            node.metrics.config_reloads.failed.increment();
            tracing::error!("the configuration cannot be used, so the last good one stays in effect: {problem}");
        }
    }

    /// Whether the demo app, whose secret everybody knows, would take the place of others: as after an edit that left the file
    /// empty, or a `.env` that lost its lines.
    fn has_lost_apps(&self, config: &Config) -> bool {
        matches!(&*config.apps, [app] if is_demo(app)) && !self.demo
    }

    fn take(&mut self, node: &Node, mut config: Config) {
        // 0 means any free port: the server has got one, and that has not changed.
        if config.server.port == 0 {
            config.server.port = node.config.port;
        }
        let (apps, fixed) = (ids(&config), fixed(&config));
        self.demo = config.apps.iter().any(is_demo);
        let gone: Vec<_> = self.apps.difference(&apps).map(AppId::new).collect();
        self.apps = apps;
        if let Err(problem) = logging::set_level(&config.log.level) {
            tracing::error!("log.level: {problem}");
        }
        node.admission.set(&config.limits);
        let update = node.update_apps(Source::File, config.apps, &gone);
        // Ids and keys that were unknown may exist now.
        node.apps.refresh(config.database.row_defaults);
        node.metrics.config_reloads.succeeded.increment();
        tracing::info!(
            apps.added = update.added,
            apps.changed = update.changed,
            apps.removed = update.removed,
            "the configuration was read again"
        );
        let keys = self.fixed.keys().chain(fixed.keys()).collect::<BTreeSet<_>>();
        let changed: Vec<_> = keys.into_iter().filter(|key| self.fixed.get(*key) != fixed.get(*key)).collect();
        if !changed.is_empty() {
            tracing::warn!(settings = ?changed, "settings have changed that hold after a restart only");
        }
    }
}

fn is_demo(app: &AppConfig) -> bool {
    app.id == AppConfig::demo().id && app.has_demo_secret()
}

fn ids(config: &Config) -> BTreeSet<String> {
    config.apps.iter().map(|app| app.id.as_str().to_owned()).collect()
}

/// All settings but the live ones.
fn fixed(config: &Config) -> BTreeMap<String, Value> {
    let mut settings = BTreeMap::new();
    if let Ok(Value::Object(sections)) = serde_json::to_value(config) {
        for (section, value) in sections.into_iter().filter(|(section, _)| !LIVE.contains(&section.as_str())) {
            flatten(section, value, &mut settings);
        }
    }
    settings.remove("log.level");
    // With their passwords, which the text of a configuration hides: a change of one has to be noticed. Only the keys are shown.
    settings.insert("database.url".to_owned(), config.database.url.clone().into());
    settings.insert("broker.url".to_owned(), config.broker.url.clone().into());
    settings.insert("broker.sentinel_password".to_owned(), config.broker.sentinel_password.clone().into());
    settings
}

fn flatten(key: String, value: Value, settings: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                flatten(format!("{key}.{name}"), value, settings);
            }
        }
        value => {
            settings.insert(key, value);
        }
    }
}
