//! Servers as processes of their own: the backend's binary, and the floor, which is this program again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::database::Database;

/// How long a server may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// A server that is ready. It is killed with this value.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it tells its metrics; none of the floor's.
    pub ops: Option<SocketAddr>,
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

    /// The backend's own binary, `dev` on this database with everything on; on the Kafka log if there is a topic.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn backend(
        binary: &Path,
        database: &Database,
        topic: Option<Topic<'_>>,
    ) -> anyhow::Result<Self> {
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
        if let Some(Topic { brokers, name }) = topic {
            command
                .args(["--log", "kafka", "--brokers", brokers])
                .env("ANNALS__LOG__TOPIC", name);
        }
        let (child, address, ops) = start(command).await?;
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
            ops,
            token,
            child,
            _dir: Some(dir),
        })
    }

    /// A program that says where it is ready, with no token.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn of(command: Command) -> anyhow::Result<Self> {
        let (child, address, ops) = start(command).await?;
        Ok(Self {
            address,
            ops,
            token: String::new(),
            child,
            _dir: None,
        })
    }

    /// Bytes of the process that are in memory.
    #[must_use]
    pub fn resident(&self) -> f64 {
        self.child.id().map_or(0.0, crate::cpu::resident_of)
    }

    /// This program again, with the words `serve-floor`, the database, the token, and brokers and topic if there are any.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn floor(database: &Database, token: &str, topic: Option<Topic<'_>>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-floor", &database.url, token]);
        if let Some(Topic { brokers, name }) = topic {
            command.args([brokers, name]);
        }
        let (child, address, _) = start(command).await?;
        Ok(Self {
            address,
            ops: None,
            token: token.to_owned(),
            child,
            _dir: None,
        })
    }
}

/// A Kafka log.
#[derive(Debug, Clone, Copy)]
pub struct Topic<'a> {
    /// Its brokers.
    pub brokers: &'a str,
    /// Its name.
    pub name: &'a str,
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
        Some([word, database, token, topic @ ..]) if word == "serve-floor" => {
            let topic = match topic {
                [brokers, name] => Some((brokers.as_str(), name.as_str())),
                _ => None,
            };
            let ready = |address| println!("ready http://{address}");
            crate::floor::serve(database, token, topic, ready).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A metric's value, summed over its labels, from where a server tells them.
///
/// # Errors
/// If it does not answer.
pub async fn metric(ops: SocketAddr, name: &str) -> anyhow::Result<f64> {
    Ok(metrics(ops, name).await?.iter().map(|(_, value)| value).sum())
}

/// A metric's values with their labels as they are told.
///
/// # Errors
/// If the server does not answer.
pub async fn metrics(ops: SocketAddr, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let mut socket = tokio::net::TcpStream::connect(ops).await?;
    let ask = format!("GET /metrics HTTP/1.1\r\nhost: {ops}\r\nconnection: close\r\n\r\n");
    socket.write_all(ask.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let of_name = labels.is_empty() || labels.starts_with('{');
        of_name.then(|| Some((labels.to_owned(), value.parse().ok()?)))?
    };
    Ok(answer.lines().filter_map(value).collect())
}

/// Starts it and waits for the line that says where it listens.
async fn start(mut command: Command) -> anyhow::Result<(Child, SocketAddr, Option<SocketAddr>)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output is a pipe")?).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(addresses) = line.strip_prefix("ready http://") {
                let mut words = addresses.split_whitespace();
                let address = words.next().unwrap_or_default().parse()?;
                let ops = words.find_map(|word| word.strip_prefix("http://")?.parse().ok());
                return Ok((address, ops));
            }
        }
        bail!("it ended before it was ready")
    };
    let (address, ops) = tokio::time::timeout(READY, ready)
        .await
        .context("it did not become ready")??;
    Ok((child, address, ops))
}
