//! Pools, the classes of real errors, the clock, and the tests' own databases.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_store::clock::clock_offset;
use annals_store::pool::{ConnectError, PoolSettings};
use annals_store::testing::{self, TestDatabase};
use annals_store::{Error, ErrorClass, Happened};
use sqlx::Connection;

fn settings(database: &TestDatabase) -> PoolSettings {
    PoolSettings::new(database.url(), "annals-test")
}

#[tokio::test]
async fn every_connection_has_the_role_the_time_out_and_the_name() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let mut settings = settings(&database);
    settings.role = Some("annals_query".to_owned());
    settings.statement_timeout = Some(Duration::from_millis(1234));
    let pool = settings.connect().await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = pool.acquire().await.unwrap();
        let found: (String, String, String) = sqlx::query_as(
            "SELECT current_user::text, current_setting('statement_timeout'), current_setting('application_name')",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        assert_eq!(
            found,
            ("annals_query".into(), "1234ms".into(), "annals-test".into())
        );
        connections.push(connection);
    }
}

#[tokio::test]
async fn a_read_only_pool_writes_nothing() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let mut settings = settings(&database);
    settings.read_only = true;
    let pool = settings.connect().await.unwrap();
    let refused: Error = sqlx::query("DELETE FROM annals.timer")
        .execute(&pool)
        .await
        .unwrap_err()
        .into();
    assert_eq!(refused.sqlstate().as_deref(), Some("25006"));
    assert_eq!(refused.happened(), Happened::No);
}

/// A plan made while a table is empty must not be kept: it reads the whole table until the first `ANALYZE`.
#[tokio::test]
async fn statements_are_planned_for_the_table_as_it_is() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    for (cached, custom) in [(false, true), (true, false)] {
        let mut settings = settings(&database);
        settings.max_connections = 1;
        settings.cached_plans = cached;
        let pool = settings.connect().await.unwrap();
        for _ in 0..12 {
            sqlx::query("SELECT count(*) FROM annals.lease WHERE kind = $1 AND name = $2")
                .bind("command")
                .bind("none")
                .execute(&pool)
                .await
                .unwrap();
        }
        let (generic, each): (i64, i64) = sqlx::query_as(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE 'SELECT count%'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(generic == 0, custom, "{generic} generic plans, {each} of their own");
    }
}

#[tokio::test]
async fn says_why_it_cannot_connect() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let mut wrong_role = settings(&database);
    wrong_role.role = Some("annals_nobody".to_owned());
    assert!(matches!(
        wrong_role.connect().await,
        Err(ConnectError::Database { .. })
    ));
    let nowhere = PoolSettings::new("postgres://nobody:secret@127.0.0.1:1/none", "annals-test");
    let error = nowhere.connect().await.unwrap_err();
    let ConnectError::Database { at, source } = error else {
        panic!("{error}")
    };
    assert_eq!(at, "none at 127.0.0.1:1");
    assert_eq!(
        (source.class(), source.happened()),
        (&ErrorClass::Transient, Happened::No)
    );
}

#[tokio::test]
async fn tells_real_errors_apart() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = settings(&database).connect().await.unwrap();
    let cases = [
        ("SELECT 1 FROM annals.no_such_table", ErrorClass::MissingObject),
        ("SELECT 'x'::int", ErrorClass::Data),
        ("SELEC 1", ErrorClass::Other),
        (
            "INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ('a', 0, 1, 'k')",
            ErrorClass::Constraint {
                name: "log_meta_shards_check".to_owned(),
            },
        ),
    ];
    for (sql, class) in cases {
        let error: Error = sqlx::query(sql).execute(&pool).await.unwrap_err().into();
        assert_eq!(error.class(), &class, "{sql}");
        assert_eq!(error.happened(), Happened::No, "{sql}");
    }
    let mut slow = pool.acquire().await.unwrap();
    sqlx::query("SET statement_timeout = '20ms'")
        .execute(&mut *slow)
        .await
        .unwrap();
    let error: Error = sqlx::query("SELECT pg_sleep(60)")
        .execute(&mut *slow)
        .await
        .unwrap_err()
        .into();
    assert_eq!(
        (error.class(), error.happened()),
        (&ErrorClass::Timeout, Happened::No)
    );
}

#[tokio::test]
async fn a_statement_whose_connection_is_cut_may_have_happened() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let mut victim = sqlx::PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut victim)
        .await
        .unwrap();
    let cut = async {
        // Waits until the statement is under way.
        let running = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
        while sqlx::query_scalar::<_, i64>(running)
            .bind(pid)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(pid)
            .execute(&pool)
            .await
            .unwrap();
    };
    let statement = sqlx::query("SELECT pg_sleep(60)").execute(&mut victim);
    let (failed, ()) = tokio::join!(statement, cut);
    let error: Error = failed.unwrap_err().into();
    assert_eq!(
        (error.class(), error.happened()),
        (&ErrorClass::Transient, Happened::Unknown)
    );
    // The next use finds a dead connection.
    let error: Error = sqlx::query("SELECT 1")
        .execute(&mut victim)
        .await
        .unwrap_err()
        .into();
    assert_eq!(
        (error.class(), error.happened()),
        (&ErrorClass::Transient, Happened::Unknown)
    );
}

#[tokio::test]
async fn a_deadlock_and_a_serialization_failure_are_transient() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    sqlx::query("CREATE TABLE t (id int PRIMARY KEY, n int)")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO t VALUES (1, 0), (2, 0)")
        .execute(&pool)
        .await
        .unwrap();
    let (mut a, mut b) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let first = "UPDATE t SET n = n + 1 WHERE id = 1";
    let second = "UPDATE t SET n = n + 1 WHERE id = 2";
    sqlx::query(first).execute(&mut *a).await.unwrap();
    sqlx::query(second).execute(&mut *b).await.unwrap();
    let (x, y) = tokio::join!(
        async {
            let done = sqlx::query(second).execute(&mut *a).await;
            a.rollback().await.unwrap();
            done
        },
        async {
            let done = sqlx::query(first).execute(&mut *b).await;
            b.rollback().await.unwrap();
            done
        }
    );
    let error: Error = x.err().or(y.err()).unwrap().into();
    assert_eq!(error.sqlstate().as_deref(), Some("40P01"));
    assert_eq!((error.is_transient(), error.happened()), (true, Happened::No));

    let serializable = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    let mut late = pool.begin_with(serializable).await.unwrap();
    sqlx::query("SELECT n FROM t")
        .fetch_all(&mut *late)
        .await
        .unwrap();
    sqlx::query(first).execute(&pool).await.unwrap();
    let error: Error = sqlx::query(first).execute(&mut *late).await.unwrap_err().into();
    assert_eq!(error.sqlstate().as_deref(), Some("40001"));
    assert_eq!(error.class(), &ErrorClass::Transient);
}

fn system_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[tokio::test]
async fn measures_how_far_the_clock_is_off() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let right = clock_offset(&pool, &system_ms).await.unwrap();
    let fast = clock_offset(&pool, &|| system_ms() + 60_000).await.unwrap();
    let moved = fast.offset_ms - right.offset_ms;
    let blur = right.uncertainty_ms + fast.uncertainty_ms + 2;
    assert!((moved - 60_000).abs() <= blur, "{right:?} {fast:?}");
    assert!(fast.exceeds(Duration::from_secs(50)));
    // A round trip that takes long is not mistaken for an offset.
    let slow = AtomicI64::new(system_ms() - 10_000);
    let slow = clock_offset(&pool, &|| slow.fetch_add(20_000, Ordering::Relaxed))
        .await
        .unwrap();
    assert!(slow.uncertainty_ms >= 10_000);
}

#[tokio::test]
async fn a_test_database_is_its_own_and_goes_away() {
    let Some(first) = TestDatabase::create().await else {
        return;
    };
    let Some(second) = TestDatabase::create().await else {
        return;
    };
    let pool = first.pool().await;
    sqlx::query("INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ('a', 1, 1, 'k')")
        .execute(&pool)
        .await
        .unwrap();
    let other: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.log_meta")
        .fetch_one(&second.pool().await)
        .await
        .unwrap();
    assert_eq!(other, 0);
    let create: bool =
        sqlx::query_scalar("SELECT has_database_privilege('annals_projector', current_database(), 'CREATE')")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(create, "as after a migration");
    let name = first.name().to_owned();
    drop(first); // with a pool still open
    let server = testing::server_url().unwrap();
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
