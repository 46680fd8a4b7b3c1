//! Databases for a run: on the tests' server if one is named, else on a private one that ends with the run.

use annals_store::cluster::Cluster;
use annals_store::pool::DatabaseUrl;
use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};

/// Names a server that is there already (a superuser's URL).
const VARIABLE: &str = "ANNALS_TEST_DATABASE_URL";

/// A server, and the databases that were made on it.
pub struct Server {
    options: PgConnectOptions,
    url: String,
    private: Option<(Cluster, tempfile::TempDir)>,
    made: std::sync::Mutex<Vec<String>>,
}

/// One database.
#[derive(Debug, Clone)]
pub struct Database {
    /// How to connect.
    pub options: PgConnectOptions,
    /// Its URL.
    pub url: String,
}

impl Server {
    /// Finds the server, or starts one.
    ///
    /// # Errors
    /// If there is none and none can be started.
    pub async fn find() -> anyhow::Result<Self> {
        let (url, private) = match std::env::var(VARIABLE) {
            Ok(url) => (DatabaseUrl::new(url), None),
            Err(_) => {
                let dir = tempfile::tempdir()?;
                let cluster = Cluster::start(dir.path()).await?;
                (cluster.url("postgres"), Some((cluster, dir)))
            }
        };
        Ok(Self {
            options: url.options()?,
            url: url.reveal().to_owned(),
            private,
            made: std::sync::Mutex::default(),
        })
    }

    /// A new migrated database.
    ///
    /// # Errors
    /// Of the server.
    pub async fn database(&self) -> anyhow::Result<Database> {
        let name = format!("annals_bench_{}", uuid::Uuid::new_v4().simple());
        self.run(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await?;
        if let Ok(mut made) = self.made.lock() {
            made.push(name.clone());
        }
        let (before, query) = self
            .url
            .split_once('?')
            .map_or((&*self.url, None), |(a, b)| (a, Some(b)));
        let (server, _) = before
            .rsplit_once('/')
            .context("a database URL names a database")?;
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let database = Database {
            url: format!("{server}/{name}{query}"),
            options: self.options.clone().database(&name),
        };
        let pool = database.pool(1).await?;
        annals_store::migrate::up(&pool).await?;
        pool.close().await;
        Ok(database)
    }

    /// Settles what earlier rounds left behind, so that it does not fall into the next one.
    ///
    /// # Errors
    /// Of the server.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        self.run("CHECKPOINT").await
    }

    /// Drops what was made, and stops a private server.
    ///
    /// # Errors
    /// Of the server.
    pub async fn end(self) -> anyhow::Result<()> {
        let made = self.made.lock().map(|made| made.clone()).unwrap_or_default();
        for name in made {
            self.run(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await?;
        }
        if let Some((cluster, _dir)) = self.private {
            cluster.stop().await?;
        }
        Ok(())
    }

    async fn run(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(())
    }
}

impl Database {
    /// A pool of at most `connections`.
    ///
    /// # Errors
    /// Of the server.
    pub async fn pool(&self, connections: u32) -> anyhow::Result<PgPool> {
        let pool = PgPoolOptions::new().max_connections(connections);
        Ok(pool.connect_with(self.options.clone()).await?)
    }
}
