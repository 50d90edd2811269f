//! Real databases, started by a scenario on a free port, with their data in a folder that goes with them.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{deadline, eventually, port::free_port};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Debian's `postgresql`.
    Postgres,
    /// Debian's `mariadb-server`.
    MariaDb,
}

/// A running database, or one that a scenario has stopped. Stopped when it is dropped.
#[derive(Debug)]
pub struct Database {
    engine: Engine,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

/// Held while a database is made.
static MAKING: Mutex<()> = Mutex::const_new(());

/// Several MariaDB servers run at a time: asynchronous I/O of the kernel has a limit that all of them share.
const FRUGAL: [&str; 3] =
    ["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--innodb-use-native-aio=0"];

impl Database {
    /// Makes a database and starts it. It answers when this returns.
    pub async fn start(engine: Engine) -> Self {
        let folder = tempfile::Builder::new().prefix("fanfare-database").tempdir_in("/tmp").expect("a folder");
        let port = free_port();
        let data = folder.path().to_owned();
        if engine == Engine::Postgres && geteuid().is_root() {
            let (user, group) = postgres_user();
            std::os::unix::fs::chown(&data, Some(user), Some(group)).expect("a folder of its own");
        }
        // One at a time: each takes seconds of a whole core.
        let turn = MAKING.lock().await;
        let made = Self::make(engine, &data).await;
        drop(turn);
        assert!(
            made.status.success(),
            "{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        let mut database = Self { engine, folder, port, server: None };
        database.resume().await;
        database
    }

    async fn make(engine: Engine, folder: &Path) -> Output {
        let mut make = match engine {
            Engine::Postgres => {
                let mut make = postgres("initdb");
                make.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]);
                make.arg("--pgdata").arg(folder.join("data"));
                make
            }
            Engine::MariaDb => {
                let mut make = Command::new("mariadb-install-db");
                make.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                make.args(FRUGAL).arg(format!("--datadir={}", folder.join("data").display()));
                // A MariaDB that starts removes what looks temporary there, also what another one is using.
                make.arg(format!("--tmpdir={}", folder.display()));
                make.args(geteuid().is_root().then_some("--user=root"));
                make
            }
        };
        let made =
            deadline("a database is made", spawn_blocking(move || make.output())).await.expect("a blocking task");
        made.unwrap_or_else(|error| panic!("{engine:?} is not installed: {error}"))
    }

    /// The URL for `database.url`.
    pub fn url(&self) -> String {
        match self.engine {
            Engine::Postgres => format!("postgres://postgres@127.0.0.1:{}/postgres", self.port),
            Engine::MariaDb => format!("mysql://root@127.0.0.1:{}/mysql?ssl-mode=disabled", self.port),
        }
    }

    /// The options of Soketi's file that lead to it.
    pub fn soketi_options(&self) -> Value {
        let (driver, user, name) = match self.engine {
            Engine::Postgres => ("postgres", "postgres", "postgres"),
            Engine::MariaDb => ("mysql", "root", "mysql"),
        };
        let address =
            json!({"host": "127.0.0.1", "port": self.port, "user": user, "password": "pass word/@", "database": name});
        json!({"appManager.driver": driver, format!("database.{driver}"): address})
    }

    /// Starts it again, after [`Self::stop`].
    pub async fn resume(&mut self) {
        let data = self.folder.path().join("data");
        let mut command = match self.engine {
            Engine::Postgres => {
                let mut command = postgres("postgres");
                command.arg("-D").arg(&data).arg("-p").arg(self.port.to_string());
                for setting in
                    ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=16MB"]
                {
                    command.args(["-c", setting]);
                }
                command
            }
            Engine::MariaDb => {
                let mut command = Command::new("mariadbd");
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-grant-tables", "--skip-log-bin"]);
                command.args(FRUGAL);
                command.arg(format!("--datadir={}", data.display()));
                command.arg(format!("--tmpdir={}", self.folder.path().display()));
                command.arg(format!("--socket={}", self.folder.path().join("socket").display()));
                command.arg(format!("--pid-file={}", self.folder.path().join("pid").display()));
                command.arg(format!("--port={}", self.port));
                command.args(geteuid().is_root().then_some("--user=root"));
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(command.spawn().expect("a database server"));
        eventually("the database answers", async || self.try_sql("SELECT 1").await, Result::is_ok)
            .await
            .expect("checked");
    }

    /// Stops it: nothing listens when this returns.
    pub async fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        signal(&server, self.engine);
        let ended = deadline("the database stops", spawn_blocking(move || server.wait())).await;
        ended.expect("a blocking task").expect("a child");
    }

    /// Runs statements.
    pub async fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    async fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut command = match self.engine {
            Engine::Postgres => {
                let mut command = Command::new(postgres_folder().join("psql"));
                command.args(["-h", "127.0.0.1", "-U", "postgres", "-tAq", "-v", "ON_ERROR_STOP=1", "-c", statements]);
                command.arg("-p").arg(self.port.to_string());
                command
            }
            Engine::MariaDb => {
                let mut command = Command::new("mariadb");
                command.args([
                    "--no-defaults",
                    "-h127.0.0.1",
                    "-uroot",
                    "--skip-column-names",
                    "-e",
                    statements,
                    "mysql",
                ]);
                command.arg(format!("-P{}", self.port));
                command
            }
        };
        let output = spawn_blocking(move || command.output()).await.expect("a blocking task").expect("a client");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal(&server, self.engine);
            let _ = server.wait();
        }
    }
}

fn signal(server: &Child, engine: Engine) {
    // PostgreSQL waits for its clients to go on SIGTERM, but not on this.
    let signal = if engine == Engine::Postgres { Signal::INT } else { Signal::TERM };
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// A program of PostgreSQL, which does not run as root.
fn postgres(program: &str) -> Command {
    let mut command = Command::new(postgres_folder().join(program));
    if geteuid().is_root() {
        let (user, group) = postgres_user();
        command.uid(user).gid(group);
    }
    command.current_dir("/tmp");
    command
}

/// The newest version that is installed.
fn postgres_folder() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max().expect("postgresql is installed")
}

/// Who owns Debian's folder for the data of PostgreSQL.
fn postgres_user() -> (u32, u32) {
    let folder = fs::metadata(Path::new("/var/lib/postgresql")).expect("postgresql is installed");
    (folder.uid(), folder.gid())
}
