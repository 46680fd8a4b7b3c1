//! Database roles: each can do its work and no more, and a login that can do more is found out.

use annals_store::migrate;
use annals_store::pool::PoolSettings;
use annals_store::roles::{DatabaseRole, Excess, check_least_privilege, share_with_readers};
use annals_store::testing::TestDatabase;
use annals_store::{Error, ErrorClass};
use sqlx::{AssertSqlSafe, PgPool};

async fn run(pool: &PgPool, sql: impl Into<String>) {
    let sql: String = sql.into();
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A login role of this test's own; dropped at the end, roles being the whole server's.
struct Login {
    name: String,
    owner: PgPool,
}

impl Login {
    async fn create(database: &TestDatabase, role: DatabaseRole) -> Self {
        let name = format!("{}_{}", database.name(), role.name());
        let owner = database.pool().await;
        let group = role
            .group()
            .map(|group| format!("IN ROLE {group}"))
            .unwrap_or_default();
        run(&owner, format!("CREATE ROLE {name} LOGIN {group}")).await;
        Self { name, owner }
    }

    async fn pool(&self, database: &TestDatabase) -> PgPool {
        let url = database
            .url()
            .replacen("://postgres@", &format!("://{}@", self.name), 1);
        PoolSettings::new(url, "annals-test").connect().await.unwrap()
    }

    async fn drop(self) {
        run(
            &self.owner,
            format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.name),
        )
        .await;
    }
}

/// Logging in as another role needs a server that trusts; the one of `make test` does.
fn trusting(database: &TestDatabase) -> bool {
    let trusts = database.url().contains("://postgres@");
    if !trusts {
        eprintln!("skipped: the tests' server is not reached as postgres without a password");
    }
    trusts
}

#[tokio::test]
async fn each_role_does_its_work_and_no_more() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let record = "INSERT INTO annals.journal (shard, log_offset, kind, time_ms, id, epoch, value)
                  VALUES (0, (SELECT count(*) FROM annals.journal), 3, 1, gen_random_uuid(), 1, '{}')";
    let checkpoint = |reader: &str| {
        format!(
            "INSERT INTO annals.checkpoint VALUES ('{reader}', 0, 0, 0, 0, '\\x00', 0, false, NULL, false)
             ON CONFLICT (reader, shard) DO UPDATE SET next_offset = excluded.next_offset"
        )
    };
    let head = "INSERT INTO annals.log_head VALUES (0, 0, 0, 0, '\\x00', 0, false, NULL)
                ON CONFLICT (shard) DO UPDATE SET next_offset = 0";
    let (own, others) = (checkpoint("projection/orders/1"), checkpoint("process/checkout"));
    let (indexer, audit) = (checkpoint("indexer"), checkpoint("audit"));
    let key =
        "INSERT INTO annals.subject_key (data_subject, wrapped_key) VALUES (gen_random_uuid(), '\\x00')";
    let erase = "UPDATE annals.subject_key SET wrapped_key = NULL, destroyed_at = now()";
    let (outbox, schema) = (
        "DELETE FROM annals.process_outbox",
        "CREATE SCHEMA orders_b1; DROP SCHEMA orders_b1",
    );
    let search = "DELETE FROM annals.audit_record";
    let all: [&str; 11] = [
        record, head, &own, &others, &indexer, &audit, key, erase, outbox, schema, search,
    ];
    let allowed: [(DatabaseRole, &[&str]); 6] = [
        (DatabaseRole::Command, &[record, head, key]),
        (DatabaseRole::Indexer, &[record, &indexer]),
        (DatabaseRole::Projector, &[&own, schema]),
        (DatabaseRole::Process, &[&others, key, erase, outbox]),
        (DatabaseRole::Query, &[]),
        (DatabaseRole::Audit, &[&audit, schema, search]),
    ];
    for (role, allowed) in allowed {
        let mut settings = PoolSettings::new(database.url(), "annals-test");
        settings.role = role.group().map(str::to_owned);
        let pool = settings.connect().await.unwrap();
        sqlx::query("SELECT FROM annals.journal")
            .execute(&pool)
            .await
            .unwrap();
        for sql in all {
            let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await;
            match done.map_err(Error::from) {
                Ok(_) => assert!(allowed.contains(&sql), "{role} may {sql}"),
                Err(error) => {
                    assert_eq!(error.class(), &ErrorClass::Privilege, "{role}: {sql}: {error}");
                    assert!(!allowed.contains(&sql), "{role} may not {sql}: {error}");
                }
            }
        }
        for sql in [
            "DELETE FROM annals.journal",
            "UPDATE annals.journal SET epoch = 0",
            "TRUNCATE annals.journal",
        ] {
            let error: Error = sqlx::query(sql).execute(&pool).await.unwrap_err().into();
            assert_eq!(error.class(), &ErrorClass::Privilege, "{role}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_member_of_its_group_alone_has_nothing_in_excess() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    if !trusting(&database) {
        return;
    }
    for role in DatabaseRole::ALL
        .into_iter()
        .filter(|role| role.group().is_some())
    {
        let login = Login::create(&database, role).await;
        let pool = login.pool(&database).await;
        assert_eq!(check_least_privilege(&pool, role).await.unwrap(), [], "{role}");
        pool.close().await;
        login.drop().await;
    }
}

#[tokio::test]
async fn finds_out_a_login_that_may_do_more() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let owner = database.pool().await;
    let superuser = check_least_privilege(&owner, DatabaseRole::Query).await.unwrap();
    assert_eq!(superuser, [Excess::Superuser]);
    if !trusting(&database) {
        return;
    }
    let login = Login::create(&database, DatabaseRole::Query).await;
    let name = &login.name;
    run(&owner, format!("GRANT INSERT ON annals.journal TO {name}")).await;
    run(&owner, format!("GRANT UPDATE (error) ON annals.parked TO {name}")).await;
    run(
        &owner,
        format!("GRANT annals_command TO {name}; ALTER ROLE {name} CREATEDB"),
    )
    .await;
    run(&owner, format!("GRANT CREATE ON SCHEMA annals TO {name}")).await;
    run(
        &owner,
        format!("CREATE TABLE annals.mine (); ALTER TABLE annals.mine OWNER TO {name}"),
    )
    .await;
    let pool = login.pool(&database).await;
    let found = check_least_privilege(&pool, DatabaseRole::Query).await.unwrap();
    let table = |table: &str, privilege: &str| Excess::Table {
        table: format!("annals.{table}"),
        privilege: privilege.to_owned(),
    };
    for expected in [
        Excess::Attribute("CREATEDB"),
        Excess::MemberOf("annals_command".to_owned()),
        Excess::Create("schema annals".to_owned()),
        Excess::Owns("annals.mine".to_owned()),
        table("journal", "INSERT"),
        table("parked", "UPDATE"),
        table("log_head", "UPDATE"),
    ] {
        assert!(found.contains(&expected), "{expected} not in {found:?}");
    }
    pool.close().await;
    login.drop().await;
}

#[tokio::test]
async fn a_grant_to_the_group_itself_that_breaks_a_rule_is_found_out() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    if !trusting(&database) {
        return;
    }
    let owner = database.pool().await;
    run(&owner, "GRANT DELETE ON annals.journal TO annals_command").await;
    run(&owner, "GRANT INSERT ON annals.timer TO annals_query").await;
    run(&owner, "GRANT INSERT ON annals.journal TO annals_projector").await;
    for (role, table, privilege) in [
        (DatabaseRole::Command, "annals.journal", "DELETE"),
        (DatabaseRole::Query, "annals.timer", "INSERT"),
        (DatabaseRole::Projector, "annals.journal", "INSERT"),
    ] {
        let login = Login::create(&database, role).await;
        let pool = login.pool(&database).await;
        let found = check_least_privilege(&pool, role).await.unwrap();
        let excess = Excess::Table {
            table: table.to_owned(),
            privilege: privilege.to_owned(),
        };
        assert_eq!(found, [excess]);
        pool.close().await;
        login.drop().await;
    }
}

#[tokio::test]
async fn an_unmigrated_database_is_a_missing_object() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    if !trusting(&database) {
        return;
    }
    // The groups belong to the server, so they may be there although this database has no tables.
    let Some(migrated) = TestDatabase::create().await else {
        return;
    };
    let login = Login::create(&migrated, DatabaseRole::Query).await;
    let pool = login.pool(&database).await;
    let error = check_least_privilege(&pool, DatabaseRole::Query)
        .await
        .unwrap_err();
    assert_eq!(error.class(), &ErrorClass::MissingObject);
    pool.close().await;
    login.drop().await;
}

#[tokio::test]
async fn readers_see_what_the_projector_makes_once_it_is_shared() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let mut settings = PoolSettings::new(database.url(), "annals-test");
    settings.role = Some("annals_projector".to_owned());
    let projector = settings.connect().await.unwrap();
    settings.role = Some("annals_query".to_owned());
    let query = settings.connect().await.unwrap();
    run(
        &projector,
        "CREATE SCHEMA orders_b1; CREATE TABLE orders_b1.orders (n int)",
    )
    .await;
    let read = "SELECT FROM orders_b1.orders";
    let refused: Error = sqlx::query(read).execute(&query).await.unwrap_err().into();
    assert_eq!(refused.class(), &ErrorClass::Privilege);
    share_with_readers(&mut projector.acquire().await.unwrap(), "orders_b1")
        .await
        .unwrap();
    run(&projector, "CREATE TABLE orders_b1.later (n int)").await;
    sqlx::query(read).execute(&query).await.unwrap();
    sqlx::query("SELECT FROM orders_b1.later")
        .execute(&query)
        .await
        .unwrap();
    let refused: Error = sqlx::query("DELETE FROM orders_b1.orders")
        .execute(&query)
        .await
        .unwrap_err()
        .into();
    assert_eq!(refused.class(), &ErrorClass::Privilege);
}

#[tokio::test]
async fn the_migrator_needs_the_database_and_createrole_and_no_superuser() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    if !trusting(&database) {
        return;
    }
    let login = Login::create(&database, DatabaseRole::Migrator).await;
    let (name, base) = (&login.name, database.name());
    run(
        &login.owner,
        format!("ALTER ROLE {name} CREATEROLE; ALTER DATABASE {base} OWNER TO {name}"),
    )
    .await;
    let pool = login.pool(&database).await;
    migrate::up(&pool).await.unwrap();
    assert_eq!(
        check_least_privilege(&pool, DatabaseRole::Migrator)
            .await
            .unwrap(),
        []
    );
    // What the groups may do does not depend on who granted it.
    let mut settings = PoolSettings::new(database.url(), "annals-test");
    settings.role = Some("annals_query".to_owned());
    let query = settings.connect().await.unwrap();
    sqlx::query("SELECT annals.keep_node('n', 'u', '{}', interval '1 s')")
        .execute(&query)
        .await
        .unwrap();
    query.close().await;
    migrate::down_to(&pool, 0).await.unwrap();
    migrate::up(&pool).await.unwrap();
    pool.close().await;
    run(&login.owner, format!("ALTER DATABASE {base} OWNER TO postgres")).await;
    login.drop().await;
}
