//! A private PostgreSQL server in a folder, for `dev` and the tests: made when it is not there, found
//! again when a killed process left it running, reached through a Unix socket only.
//!
//! initdb refuses root, and another user may not be able to enter a folder under root's home: for root
//! the cluster lies under `/var/lib/annals/{16 hex digits of SHA-256 of the absolute data dir}` and runs as
//! the user `postgres`. Else it lies in `{data dir}/postgres`, and its socket in a private folder with a
//! short path, since a socket's path has at most 107 bytes.

mod files;
mod programs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use files::Place;
use programs::Programs;

use crate::pool::DatabaseUrl;

/// How long the server may take to start, recovery after a crash included.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// PostgreSQL's server programs are not installed.
    #[error(
        "PostgreSQL's server programs (initdb, pg_ctl) were not found in PATH, in /usr/lib/postgresql/*/bin or by pg_config. \
         On Debian: apt-get install --no-install-recommends postgresql; or set ANNALS_DATABASE_URL to a server of your own"
    )]
    NotInstalled,
    /// The installed programs are too old.
    #[error("PostgreSQL {found} is installed; at least 14 is needed")]
    TooOld {
        /// Its major version.
        found: u32,
    },
    /// The data were made by another major version, whose programs are not installed.
    #[error(
        "the data in {data} are PostgreSQL {major}'s, which is not installed. On Debian: apt-get install postgresql-{major}; \
         or move the folder away to start with no data"
    )]
    OtherVersion {
        /// The cluster's folder.
        data: PathBuf,
        /// The major version that made it.
        major: u32,
    },
    /// Root needs the user `postgres`, who is not there.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` to run it as. \
         On Debian: apt-get install postgresql makes one; or run this as an ordinary user"
    )]
    NoPostgresUser,
    /// A folder belongs to somebody else, or others may enter it.
    #[error("{path} is not this user's own private folder: remove it or use another data dir")]
    NotPrivate {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A server program failed.
    #[error("{program} failed: {output}\nThe server's log, if it came so far: {log}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it printed, at most its last lines.
        output: String,
        /// Where the server logs.
        log: PathBuf,
    },
    /// The server runs and cannot be reached.
    #[error(
        "the server of {data} runs and cannot be reached: {source}. If no postgres process runs there, remove {data}/postmaster.pid"
    )]
    Unreachable {
        /// The cluster's folder.
        data: PathBuf,
        /// What happened.
        source: crate::Error,
    },
}

impl ClusterError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// A running private server. It goes on when this value is dropped: [`Cluster::stop`] stops it.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    place: Place,
    socket_dir: PathBuf,
    found_running: bool,
}

impl Cluster {
    /// Makes the cluster of a data dir if it is not there, starts its server if it does not run, and waits
    /// until it answers. Whoever calls this holds a lock on the data dir.
    ///
    /// Not cancel safe: a future that is dropped may leave a server running, which the next call finds.
    ///
    /// # Errors
    ///
    /// [`ClusterError`], which says what to do.
    pub async fn start(data_dir: &Path) -> Result<Self, ClusterError> {
        let place = Place::prepare(data_dir).await?;
        let programs = Programs::find(place.made_by(), place.user()).await?;
        if place.made_by().is_none() {
            place.initialise(&programs).await?;
        }
        let found = match programs.is_running(place.data()).await? {
            true => place.running_socket(),
            false => None,
        };
        let found_running = found.is_some();
        let socket_dir = match found {
            Some(socket_dir) => socket_dir,
            None => {
                let socket_dir = place.make_socket_dir()?;
                programs
                    .start(place.data(), &socket_dir, &place.log(), START_LIMIT)
                    .await?;
                socket_dir
            }
        };
        let cluster = Self {
            programs,
            place,
            socket_dir,
            found_running,
        };
        cluster.answers().await?;
        Ok(cluster)
    }

    /// Stops the server of a data dir if it runs. Returns whether it ran.
    ///
    /// # Errors
    ///
    /// [`ClusterError`].
    pub async fn stop_in(data_dir: &Path) -> Result<bool, ClusterError> {
        let place = Place::prepare(data_dir).await?;
        if place.made_by().is_none() {
            return Ok(false);
        }
        let programs = Programs::find(place.made_by(), place.user()).await?;
        if !programs.is_running(place.data()).await? {
            return Ok(false);
        }
        let socket_dir = place.running_socket();
        programs.stop(place.data(), &place.log()).await?;
        if let Some(socket_dir) = socket_dir {
            place.remove_socket_dir(&socket_dir);
        }
        Ok(true)
    }

    /// Stops the server: connections are cut, what was committed is on disk.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Program`] if it does not stop.
    pub async fn stop(self) -> Result<(), ClusterError> {
        self.programs.stop(self.place.data(), &self.place.log()).await?;
        self.place.remove_socket_dir(&self.socket_dir);
        Ok(())
    }

    /// Whether the server was running already.
    #[must_use]
    pub fn found_running(&self) -> bool {
        self.found_running
    }

    /// The cluster's data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.place.data()
    }

    /// The URL of one of its databases, as superuser `postgres`. `database` is of letters, digits, `_`.
    #[must_use]
    pub fn url(&self, database: &str) -> DatabaseUrl {
        DatabaseUrl::new(url(&self.socket_dir, database))
    }

    /// The URL of a database that is made if it is not there. `database` is of letters, digits, `_`.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Unreachable`].
    pub async fn database(&self, database: &str) -> Result<DatabaseUrl, ClusterError> {
        let create = async {
            let mut connection = PgConnection::connect(self.url("postgres").reveal()).await?;
            let exists: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                    .bind(database)
                    .fetch_one(&mut connection)
                    .await?;
            if !exists {
                let name = database.replace('"', "\"\"");
                let sql = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
                sqlx::raw_sql(sql).execute(&mut connection).await?;
            }
            connection.close().await
        };
        create
            .await
            .map_err(|source: sqlx::Error| self.unreachable(source))?;
        Ok(self.url(database))
    }

    fn unreachable(&self, source: sqlx::Error) -> ClusterError {
        ClusterError::Unreachable {
            data: self.place.data().to_owned(),
            source: source.into(),
        }
    }

    /// Waits until a server that was found starting, or stopping and recovering, answers.
    async fn answers(&self) -> Result<(), ClusterError> {
        let url = self.url("postgres");
        let mut left = START_LIMIT;
        let pause = Duration::from_millis(100);
        loop {
            let error = match PgConnection::connect(url.reveal()).await {
                Ok(connection) => {
                    connection.close().await.ok();
                    return Ok(());
                }
                Err(error) => error,
            };
            // 57P03: it is starting up. Anything else will not pass by itself.
            let starting = crate::Error::from(error);
            left = left.saturating_sub(pause);
            if starting.sqlstate().as_deref() != Some("57P03") || left.is_zero() {
                return Err(ClusterError::Unreachable {
                    data: self.place.data().to_owned(),
                    source: starting,
                });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The host of a URL cannot be a path: it goes into the query, percent-encoded.
fn url(socket_dir: &Path, database: &str) -> String {
    let path = socket_dir.to_string_lossy();
    let host: String = path
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("postgres://postgres@localhost/{database}?host={host}")
}
