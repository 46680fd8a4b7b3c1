//! Servers as processes of their own: the backend's binary, and the floor, which is this program again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::database::Database;

/// How long a server may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// A server that is ready. It is killed with this value.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// A token that it takes.
    pub token: String,
    child: Child,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// CPU seconds of the process so far.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.child.id().map_or(0.0, crate::cpu::process)
    }

    /// The backend's own binary, `dev` on this database with everything on.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn backend(binary: &Path, database: &Database) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(binary);
        command
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(dir.path())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("ANNALS_DATABASE_URL", &database.url);
        let (child, address) = start(command).await?;
        let token = Command::new(binary)
            .args(["token", "--role", "admin", "--ttl", "2h", "--data-dir"])
            .arg(dir.path())
            .output()
            .await?;
        let token = String::from_utf8(token.stdout)?.trim().to_owned();
        if token.is_empty() {
            bail!("`token` gave none");
        }
        Ok(Self {
            address,
            token,
            child,
            _dir: Some(dir),
        })
    }

    /// This program again, with the words `serve-floor`, the database and the token.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn floor(database: &Database, token: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-floor", &database.url, token]);
        let (child, address) = start(command).await?;
        Ok(Self {
            address,
            token: token.to_owned(),
            child,
            _dir: None,
        })
    }
}

/// Where the backend's binary is: beside this one, built with the same profile.
///
/// # Errors
/// What to build, if it is not there.
pub fn binary() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("commerce");
    if !beside.is_file() {
        bail!(
            "`cargo build --release -p commerce` has to be run first: {} is missing",
            beside.display()
        );
    }
    Ok(beside)
}

/// Serves the floor if this program was started with the words of [`Server::floor`]; `false` if it was not.
///
/// # Errors
/// Of the floor.
pub async fn served_floor() -> anyhow::Result<bool> {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1..) {
        Some([word, database, token]) if word == "serve-floor" => {
            crate::floor::serve(database, token, |address| println!("ready http://{address}")).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Starts it and waits for the line that says where it listens.
async fn start(mut command: Command) -> anyhow::Result<(Child, SocketAddr)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output is a pipe")?).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix("ready http://") {
                let address = address.split_whitespace().next().unwrap_or_default();
                return Ok(address.parse()?);
            }
        }
        bail!("it ended before it was ready")
    };
    let address = tokio::time::timeout(READY, ready)
        .await
        .context("it did not become ready")??;
    Ok((child, address))
}
