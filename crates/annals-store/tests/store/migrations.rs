//! The migrations: complete, reversible, safe to run at once; and what their tables promise.

use annals_store::migrate::{self, State};
use annals_store::testing::TestDatabase;
use annals_store::{Error, ErrorClass, Happened};
use sqlx::PgPool;

async fn tables(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'annals' ORDER BY 1")
        .fetch_all(pool)
        .await
        .unwrap()
}

const TABLES: [&str; 15] = [
    "audit_record",
    "audit_shape",
    "checkpoint",
    "journal",
    "lease",
    "log_head",
    "log_meta",
    "parked",
    "process_held",
    "process_instance",
    "process_outbox",
    "projection",
    "snapshot",
    "subject_key",
    "timer",
];

#[tokio::test]
async fn go_up_then_down_step_by_step_then_up_again() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let pool = database.pool().await;
    assert!(matches!(
        migrate::check(&pool).await,
        Err(migrate::Error::Pending { pending: 12 })
    ));
    migrate::up(&pool).await.unwrap();
    migrate::check(&pool).await.unwrap();
    assert_eq!(tables(&pool).await, TABLES);
    let versions: Vec<i64> = migrate::status(&pool)
        .await
        .unwrap()
        .iter()
        .map(|m| m.version)
        .collect();
    let mut undone = Vec::new();
    while let Some(version) = migrate::down(&pool).await.unwrap() {
        undone.push(version);
    }
    undone.reverse();
    assert_eq!(undone, versions);
    assert!(tables(&pool).await.is_empty());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'annals'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    migrate::up(&pool).await.unwrap();
    migrate::up(&pool).await.unwrap();
    assert_eq!(tables(&pool).await, TABLES);
    assert!(matches!(
        migrate::down_to(&pool, 99).await,
        Err(migrate::Error::NoSuchVersion { version: 99 })
    ));
    migrate::down_to(&pool, 2).await.unwrap();
    let applied = migrate::status(&pool).await.unwrap();
    let applied = applied
        .iter()
        .filter(|m| matches!(m.state, State::Applied(_)))
        .count();
    assert_eq!(applied, 2);
}

#[tokio::test]
async fn of_several_databases_and_of_one_may_run_at_once() {
    let Some(first) = TestDatabase::create_empty().await else {
        return;
    };
    let Some(second) = TestDatabase::create_empty().await else {
        return;
    };
    let (a, b) = (first.pool().await, second.pool().await);
    let results = tokio::join!(migrate::up(&a), migrate::up(&b), migrate::up(&a), migrate::up(&b));
    results.0.unwrap();
    results.1.unwrap();
    results.2.unwrap();
    results.3.unwrap();
    assert_eq!(tables(&a).await, TABLES);
    assert_eq!(tables(&b).await, TABLES);
}

#[tokio::test]
async fn notice_an_edited_and_a_newer_migration() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 3")
        .execute(&pool)
        .await
        .unwrap();
    assert!(matches!(
        migrate::up(&pool).await,
        Err(migrate::Error::Changed { version: 3 })
    ));
    assert!(matches!(
        migrate::check(&pool).await,
        Err(migrate::Error::Changed { version: 3 })
    ));
    sqlx::query("UPDATE _sqlx_migrations SET version = 9999, description = 'later' WHERE version = 3")
        .execute(&pool)
        .await
        .unwrap();
    assert!(matches!(
        migrate::up(&pool).await,
        Err(migrate::Error::DatabaseIsNewer { version: 9999 })
    ));
    let status = migrate::status(&pool).await.unwrap();
    let last = status.last().unwrap();
    assert_eq!((last.version, last.name.as_str()), (9999, "later"));
    assert!(matches!(last.state, State::Unknown(_)));
}

const RECORD: &str = "INSERT INTO annals.journal (shard, log_offset, kind, time_ms, id, epoch, value)
     VALUES (0, 0, 3, 1, gen_random_uuid(), 1, '{}')";

#[tokio::test]
async fn make_a_journal_that_takes_rows_and_never_changes_them() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    sqlx::query(RECORD).execute(&pool).await.unwrap();
    for change in [
        "UPDATE annals.journal SET time_ms = 2",
        "DELETE FROM annals.journal",
        "TRUNCATE annals.journal",
        "INSERT INTO annals.journal SELECT * FROM annals.journal ON CONFLICT (shard, log_offset) DO UPDATE SET time_ms = 2",
    ] {
        let refused: Error = sqlx::query(change).execute(&pool).await.unwrap_err().into();
        assert_eq!(refused.class(), &ErrorClass::Privilege, "{change}");
        assert_eq!(refused.happened(), Happened::No);
    }
    let twice: Error = sqlx::query(RECORD).execute(&pool).await.unwrap_err().into();
    assert_eq!(twice.constraint(), Some("journal_pkey"));
    let left: i64 = sqlx::query_scalar("SELECT time_ms FROM annals.journal")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn give_the_journal_two_indexes_and_byte_order() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'annals' AND tablename = 'journal' ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(indexes, ["journal_by_stream", "journal_pkey"]);
    // Every text column that an index holds compares by bytes.
    let by_locale: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || '.' || a.attname FROM pg_index i
         JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'annals'::regnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
         WHERE a.attcollation NOT IN (0, 'pg_catalog.\"C\"'::regcollation)",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(by_locale, Vec::<String>::new());
}

#[tokio::test]
async fn let_a_log_have_one_identity_and_a_projection_one_live_build() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let create =
        "INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ('shop', 16, 1, 'postgres')";
    sqlx::query(create).execute(&pool).await.unwrap();
    let again: Error = sqlx::query(create).execute(&pool).await.unwrap_err().into();
    assert_eq!(again.constraint(), Some("log_meta_one_row"));
    let build = "INSERT INTO annals.projection (name, build, digest, state, live) VALUES ('orders', $1, '\\x', '', true)";
    sqlx::query(build).bind(1).execute(&pool).await.unwrap();
    let again: Error = sqlx::query(build)
        .bind(2)
        .execute(&pool)
        .await
        .unwrap_err()
        .into();
    assert_eq!(again.constraint(), Some("projection_one_live"));
}
