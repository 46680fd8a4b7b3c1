//! A database of its own for each test, migrated, dropped at the end.
//!
//! The server is the one of `ANNALS_TEST_DATABASE_URL` (a superuser's URL). The migrations run once per
//! server and content, into a template; a test's database is a copy of that, in some tens of milliseconds.
//! What killed tests left behind is dropped by a later test, after an hour.
//!
//! This module panics where a test would: it is compiled for tests only.
#![allow(clippy::panic, clippy::print_stderr)]
// Which server the tests use is said by the environment, names must be unique whatever the seed, and a
// database is dropped by a thread that is joined at once.
#![allow(clippy::disallowed_methods)]

use std::sync::OnceLock;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::migrate;

/// Names the server on which tests make their databases.
pub const URL_VARIABLE: &str = "ANNALS_TEST_DATABASE_URL";

/// Serialises the making of templates; any number that nobody else locks in the maintenance database.
const TEMPLATE_LOCK: i64 = 0x616e_6e61_6c73_7470;

/// A test's own database; dropped with this value, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    /// Makes a migrated database with a unique name. `None`, with a line on standard error, if
    /// [`URL_VARIABLE`] is not set: the test has to return then.
    ///
    /// # Panics
    ///
    /// If the variable is set and the database cannot be made, or if it is not set and `CI` is `true`.
    pub async fn create() -> Option<Self> {
        Self::create_with(true).await
    }

    /// The same, but empty: without any migration.
    ///
    /// # Panics
    ///
    /// As [`TestDatabase::create`].
    pub async fn create_empty() -> Option<Self> {
        Self::create_with(false).await
    }

    async fn create_with(migrated: bool) -> Option<Self> {
        let server = server_url()?;
        let name = format!("annals_test_{}", Uuid::new_v4().simple());
        if let Err(error) = make(&server, &name, migrated).await {
            panic!("cannot make a test database on the server of {URL_VARIABLE}: {error}");
        }
        Some(Self { server, name })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, with the server's superuser.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(&self.server, &self.name)
    }

    /// How to connect to it.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        options(&self.server).database(&self.name)
    }

    /// A new pool of at most five connections to it, as the server's superuser.
    ///
    /// # Panics
    ///
    /// If it cannot connect.
    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(5)
            .connect_with(self.options())
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.name))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's runtime may be ending: a thread and a runtime of its own.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let dropped = runtime.block_on(async {
                let mut connection = options(&server).connect().await?;
                drop_database(&mut connection, &name).await?;
                connection.close().await
            });
            if let Err(error) = dropped {
                eprintln!("test database {name} stays behind: {error}");
            }
        });
        if dropper.join().is_err() {
            eprintln!("test database {} stays behind", self.name);
        }
    }
}

/// The URL of the server for tests. `None`, with a line on standard error, if there is none.
///
/// # Panics
///
/// If there is none and `CI` is `true`.
#[must_use]
pub fn server_url() -> Option<String> {
    if let Ok(url) = std::env::var(URL_VARIABLE)
        && !url.is_empty()
    {
        return Some(url);
    }
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        panic!("{URL_VARIABLE} is not set, and CI=true allows no skipped test");
    }
    eprintln!("skipped: {URL_VARIABLE} is not set");
    None
}

fn options(url: &str) -> PgConnectOptions {
    url.parse::<PgConnectOptions>()
        .unwrap_or_else(|error| panic!("{URL_VARIABLE} is no Postgres URL: {error}"))
        .disable_statement_logging()
}

/// The same URL with another database: the path, between authority and query, is replaced.
fn url_of(server: &str, database: &str) -> String {
    let (address, query) = match server.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{authority}/{database}{query}")
}

async fn make(server: &str, name: &str, migrated: bool) -> Result<(), migrate::Error> {
    static CLEANED: OnceLock<()> = OnceLock::new();
    let mut connection = options(server).connect().await?;
    if CLEANED.set(()).is_ok() {
        drop_leftovers(&mut connection).await;
    }
    if migrated {
        let template = template(server, &mut connection).await?;
        run(
            &mut connection,
            format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await?;
        // Privileges of the database itself are not copied from the template.
        let grant = format!("GRANT CREATE ON DATABASE {name} TO annals_projector, annals_audit");
        run(&mut connection, grant).await?;
    } else {
        run(
            &mut connection,
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        )
        .await?;
    }
    connection.close().await?;
    Ok(())
}

/// The template's name. It is made under another name and renamed when it is complete.
async fn template(server: &str, connection: &mut PgConnection) -> Result<String, migrate::Error> {
    let template = format!("annals_template_{}", migrate::digest());
    if exists(connection, &template).await? {
        return Ok(template);
    }
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut *connection)
        .await?;
    if !exists(connection, &template).await? {
        let raw = format!("annals_test_raw_{}", Uuid::new_v4().simple());
        run(connection, format!("CREATE DATABASE {raw} TEMPLATE template0")).await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(options(server).database(&raw))
            .await?;
        migrate::up(&pool).await?;
        pool.close().await;
        run(connection, format!("ALTER DATABASE {raw} RENAME TO {template}")).await?;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut *connection)
        .await?;
    Ok(template)
}

async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// Tests' databases older than an hour, and templates of other migrations older than a day.
async fn drop_leftovers(connection: &mut PgConnection) {
    let old: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database,
             LATERAL (SELECT now() - (pg_stat_file('base/' || oid || '/PG_VERSION', true)).modification AS age) s
         WHERE (datname LIKE 'annals\\_test\\_%' AND age > interval '1 hour')
            OR (datname LIKE 'annals\\_template\\_%' AND datname <> $1 AND age > interval '1 day')",
    )
    .bind(format!("annals_template_{}", migrate::digest()))
    .fetch_all(&mut *connection)
    .await;
    // Several test processes clean up at once, and not every role may look: best effort.
    for name in old.unwrap_or_default() {
        drop_database(connection, &name).await.ok();
    }
}

async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// The names in these statements are made here, of lower-case letters, digits and underscores.
async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_database_and_keeps_the_rest_of_a_url() {
        let cases = [
            ("postgres://u:p@h:1/postgres", "postgres://u:p@h:1/x"),
            ("postgres://u@h", "postgres://u@h/x"),
            (
                "postgres://u@localhost/a?host=/s/t",
                "postgres://u@localhost/x?host=/s/t",
            ),
        ];
        for (server, expected) in cases {
            assert_eq!(url_of(server, "x"), expected);
        }
    }
}
