//! Node roles in processes of their own that share a database, each with logins that may do its own work only.

use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::program::Ran;
use crate::server::{Home, Server};
use crate::unique;

/// The database roles of nodes: the setting's name, which is also the end of the group's.
const LOGINS: [&str; 6] = ["command", "indexer", "projector", "process", "query", "audit"];

/// Login roles of one test, each in one group; dropped with it.
#[derive(Debug)]
struct Logins {
    prefix: String,
    pool: PgPool,
}

impl Logins {
    async fn make(home: &Home) -> Self {
        let logins = Self {
            prefix: unique("annals_test_"),
            pool: home.database().pool().await,
        };
        for role in LOGINS {
            let sql = format!("CREATE ROLE {}_{role} LOGIN IN ROLE annals_{role}", logins.prefix);
            sqlx::query(AssertSqlSafe(sql))
                .execute(&logins.pool)
                .await
                .unwrap();
        }
        logins
    }

    /// The database's URL with this login.
    fn url(&self, home: &Home, role: &str) -> String {
        let url = home.database().url();
        let (_, rest) = url.split_once("://").unwrap();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("postgres://{}_{role}@{host}", self.prefix)
    }

    async fn drop(self) {
        for role in LOGINS {
            let sql = format!("DROP ROLE {}_{role}", self.prefix);
            sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
        }
        self.pool.close().await;
    }
}

/// 32 bytes that nobody else may read.
fn key_file(home: &Home, name: &str) -> String {
    let path = home.dir().join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut file, &crate::key()).unwrap();
    path.display().to_string()
}

/// The file of settings that all nodes share; each is told its roles by a flag.
fn settings(home: &Home, logins: &Logins, gateway: &str, more: &str) -> String {
    let mut text = String::from("[database]\n");
    for role in LOGINS {
        writeln!(text, "{role} = \"{}\"", logins.url(home, role)).unwrap();
    }
    let [node, cursor, subject] = ["node.key", "cursor.key", "subject.key"].map(|name| key_file(home, name));
    let jwks = home.data_dir().join("issuer.jwks");
    write!(
        text,
        "[node]\nkey_file = \"{node}\"\n[http]\ncursor_key_file = \"{cursor}\"\n\
         [auth]\nsubject_key_file = \"{subject}\"\njwks_file = \"{}\"\n\
         [commerce]\ngateway_url = \"{gateway}\"\n{more}\n",
        jwks.display()
    )
    .unwrap();
    let path = home.dir().join("annals.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A database with logins, a gateway, and settings for nodes.
#[derive(Debug)]
pub struct Cluster {
    /// Its data.
    pub home: Arc<Home>,
    logins: Logins,
    /// The file of settings.
    pub config: String,
    stop_gateway: CancellationToken,
    gateways: JoinSet<std::io::Result<()>>,
}

impl Cluster {
    /// Tables, a log, logins, a gateway; no node yet. `more` is added to the settings (TOML). `None`: no database server
    /// for tests was named, and that was said.
    ///
    /// # Panics
    /// If something of it cannot be had.
    pub async fn prepare(more: &str) -> Option<Self> {
        let home = Home::with_database()?;
        home.run(&["migrate", "up"]).exits(0);
        home.run(&["log", "create"]).exits(0);
        let _ = home.token("admin", "tester");
        let logins = Logins::make(&home).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = format!("http://{}", listener.local_addr().unwrap());
        let stop_gateway = CancellationToken::new();
        let mut gateways = JoinSet::new();
        gateways.spawn(commerce::gateway::sandbox::serve(listener, stop_gateway.clone()));
        let config = settings(&home, &logins, &gateway, more);
        // From here on nothing runs as the server's superuser.
        home.unset("ANNALS_DATABASE_URL");
        Some(Self {
            home,
            logins,
            config,
            stop_gateway,
            gateways,
        })
    }

    /// Starts a node.
    #[must_use]
    pub fn node(&self, roles: &str) -> Server {
        let words = [
            "serve",
            "--roles",
            roles,
            "--config",
            &self.config,
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ];
        Server::start(&self.home, &words)
    }

    /// [`Self::node`] while other tasks of the test go on.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn started(self: &Arc<Self>, roles: &'static str) -> Server {
        let cluster = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || cluster.node(roles));
        started.await.expect("it does not panic")
    }

    /// Runs a command of the program with the cluster's settings, while other tasks of the test go on.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn run(&self, words: &[&str]) -> Ran {
        let (home, config) = (Arc::clone(&self.home), self.config.clone());
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let ran = tokio::task::spawn_blocking(move || {
            let mut all: Vec<&str> = words.iter().map(String::as_str).collect();
            all.extend(["--config", &config]);
            home.run(&all)
        });
        ran.await.expect("it does not panic")
    }

    /// Ends what is beside the nodes, which are stopped already.
    ///
    /// # Panics
    /// If it ended before.
    pub async fn end(self) {
        self.stop_gateway.cancel();
        for served in self.gateways.join_all().await {
            served.unwrap();
        }
        self.logins.drop().await;
    }
}
