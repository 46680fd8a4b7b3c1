//! Database roles, and whether a login may do more than the work it is for.
//!
//! The migrations make one group role for each kind of work and grant it what the work needs; they are
//! the one place that says so. A login is checked against its group, and against a few rules that no
//! grant may break.

use std::fmt;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::Error;

/// A database role. (Not to be confused with node roles and callers' roles.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatabaseRole {
    /// Owns the database and schema `annals`; makes tables and roles.
    Migrator,
    /// Decides commands: snapshots, keys, and with the Postgres log the journal and its heads.
    Command,
    /// Fills the journal from Kafka.
    Indexer,
    /// Makes and fills builds of projections.
    Projector,
    /// Process managers, their outbox and timers; erasure.
    Process,
    /// Reads.
    Query,
    /// Seals and attests; fills the search table.
    Audit,
}

impl DatabaseRole {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Migrator,
        Self::Command,
        Self::Indexer,
        Self::Projector,
        Self::Process,
        Self::Query,
        Self::Audit,
    ];

    /// Its name in settings: `migrator`, `command`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Migrator => "migrator",
            Self::Command => "command",
            Self::Indexer => "indexer",
            Self::Projector => "projector",
            Self::Process => "process",
            Self::Query => "query",
            Self::Audit => "audit",
        }
    }

    /// The group role that the migrations make for it; `None` for the migrator.
    #[must_use]
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Migrator => None,
            Self::Command => Some("annals_command"),
            Self::Indexer => Some("annals_indexer"),
            Self::Projector => Some("annals_projector"),
            Self::Process => Some("annals_process"),
            Self::Query => Some("annals_query"),
            Self::Audit => Some("annals_audit"),
        }
    }
}

impl fmt::Display for DatabaseRole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Something that a login may do beyond its work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Excess {
    /// It is a superuser (then nothing else is listed).
    Superuser,
    /// It has an attribute: `CREATEROLE`, `CREATEDB`, `REPLICATION`, `BYPASSRLS`.
    Attribute(&'static str),
    /// It is a member of another group, or of one of the server's predefined roles.
    MemberOf(String),
    /// It owns a schema or table of the machinery, and so may change it at will.
    Owns(String),
    /// It may make objects in this schema or schemas in this database.
    Create(String),
    /// It may do this to this table.
    Table {
        /// The table, with its schema.
        table: String,
        /// `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `TRIGGER`, `SELECT`.
        privilege: String,
    },
}

impl fmt::Display for Excess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superuser => out.write_str("is a superuser"),
            Self::Attribute(name) => write!(out, "has {name}"),
            Self::MemberOf(role) => write!(out, "is a member of {role}"),
            Self::Owns(what) => write!(out, "owns {what}"),
            Self::Create(place) => write!(out, "may create in {place}"),
            Self::Table { table, privilege } => write!(out, "may {privilege} {table}"),
        }
    }
}

/// What the pool's login may do beyond the work of `role`; empty is well.
///
/// The login counts (`session_user`), not a role taken on with `SET ROLE`: that can be put off again.
///
/// # Errors
///
/// If Postgres could not be asked; class `MissingObject` if the database is not migrated.
pub async fn check_least_privilege(pool: &PgPool, role: DatabaseRole) -> Result<Vec<Excess>, Error> {
    let mut connection = pool.acquire().await?;
    let mut found = attributes(&mut connection, role).await?;
    if found.contains(&Excess::Superuser) {
        return Ok(found);
    }
    if let Some(group) = role.group() {
        found.extend(memberships(&mut connection, group).await?);
        found.extend(ownerships(&mut connection).await?);
        found.extend(creates(&mut connection, group).await?);
        found.extend(tables(&mut connection, group, role).await?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

async fn attributes(connection: &mut PgConnection, role: DatabaseRole) -> Result<Vec<Excess>, Error> {
    let (superuser, create_role, create_db, replication, bypass): (bool, bool, bool, bool, bool) =
        sqlx::query_as(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
             FROM pg_roles WHERE rolname = session_user",
        )
        .fetch_one(connection)
        .await?;
    if superuser {
        return Ok(vec![Excess::Superuser]);
    }
    let migrator = role == DatabaseRole::Migrator;
    let attributes = [
        (create_role && !migrator, "CREATEROLE"),
        (create_db && !migrator, "CREATEDB"),
        (replication, "REPLICATION"),
        (bypass, "BYPASSRLS"),
    ];
    let held = attributes.into_iter().filter(|(held, _)| *held);
    Ok(held.map(|(_, name)| Excess::Attribute(name)).collect())
}

/// Other groups of ours, and predefined roles that reach past any grant.
async fn memberships(connection: &mut PgConnection, group: &str) -> Result<Vec<Excess>, Error> {
    let roles: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles
         WHERE rolname <> $1 AND rolname <> session_user AND pg_has_role(session_user, oid, 'MEMBER')
           AND (rolname IN ('annals_command', 'annals_indexer', 'annals_projector', 'annals_process',
                            'annals_query', 'annals_audit',
                            'pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program',
                            'pg_read_server_files', 'pg_write_server_files', 'pg_database_owner')
                OR rolsuper)",
    )
    .bind(group)
    .fetch_all(connection)
    .await?;
    Ok(roles.into_iter().map(Excess::MemberOf).collect())
}

async fn ownerships(connection: &mut PgConnection) -> Result<Vec<Excess>, Error> {
    let owned: Vec<String> = sqlx::query_scalar(
        "SELECT 'schema ' || nspname FROM pg_namespace
         WHERE nspname = 'annals' AND pg_has_role(session_user, nspowner, 'MEMBER')
         UNION ALL
         SELECT 'annals.' || relname FROM pg_class
         WHERE relnamespace = 'annals'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
           AND pg_has_role(session_user, relowner, 'MEMBER')",
    )
    .fetch_all(connection)
    .await?;
    Ok(owned.into_iter().map(Excess::Owns).collect())
}

async fn creates(connection: &mut PgConnection, group: &str) -> Result<Vec<Excess>, Error> {
    let places: Vec<String> = sqlx::query_scalar(
        "SELECT 'schema annals' WHERE has_schema_privilege(session_user, 'annals', 'CREATE')
         UNION ALL
         SELECT 'database ' || current_database()
         WHERE has_database_privilege(session_user, current_database(), 'CREATE')
           AND NOT has_database_privilege($1::name, current_database(), 'CREATE')",
    )
    .bind(group)
    .fetch_all(connection)
    .await?;
    Ok(places.into_iter().map(Excess::Create).collect())
}

/// More than the group has; and what no grant may give: a change of the journal to anyone, writing
/// it to any but its two writers, writing anything to the reader.
async fn tables(
    connection: &mut PgConnection,
    group: &str,
    role: DatabaseRole,
) -> Result<Vec<Excess>, Error> {
    let writes_journal = matches!(role, DatabaseRole::Command | DatabaseRole::Indexer);
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT 'annals.' || c.relname, p.name
         FROM pg_class c,
              unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS p (name)
         WHERE c.relnamespace = 'annals'::regnamespace AND c.relkind IN ('r', 'p')
           AND (has_table_privilege(session_user, c.oid, p.name)
                OR (p.name IN ('SELECT', 'INSERT', 'UPDATE')
                    AND has_any_column_privilege(session_user, c.oid, p.name)))
           AND (NOT has_table_privilege($1::name, c.oid, p.name)
                OR (c.relname = 'journal' AND p.name NOT IN ('SELECT', 'INSERT'))
                OR (c.relname = 'journal' AND p.name = 'INSERT' AND NOT $2)
                OR (p.name <> 'SELECT' AND $3))",
    )
    .bind(group)
    .bind(writes_journal)
    .bind(role == DatabaseRole::Query)
    .fetch_all(connection)
    .await?;
    let excess = rows
        .into_iter()
        .map(|(table, privilege)| Excess::Table { table, privilege });
    Ok(excess.collect())
}

/// Lets the roles that read builds of projections read everything in `schema`, now and when its owner
/// adds more. Called by whoever makes the schema, as the role that made it.
///
/// # Errors
///
/// If Postgres refuses, for one because the schema is another's.
pub async fn share_with_readers(connection: &mut PgConnection, schema: &str) -> Result<(), Error> {
    let schema = format!("\"{}\"", schema.replace('"', "\"\""));
    let sql = format!(
        "GRANT USAGE ON SCHEMA {schema} TO annals_query, annals_audit;
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO annals_query, annals_audit;
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO annals_query, annals_audit"
    );
    // The name is quoted above; all else is fixed.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
