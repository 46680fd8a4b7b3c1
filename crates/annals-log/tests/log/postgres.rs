//! What only the Postgres log does: one statement for all shards, identity, failures that are told apart.

use std::sync::Arc;
use std::time::Duration;

use annals_log::testing::Chained;
use annals_log::{
    Appended, Appending, Checkpoint, Durability, Log, LogError, PostgresLog, PostgresSettings, PostgresTask,
    ReadLimits, ReaderSettings, ShardReader, Wakes,
};
use annals_record::{AppName, Offset, Shard, ShardCount};
use annals_store::notify::{Limits, Listener, Notifier};
use annals_store::pool::PoolSettings;
use annals_store::testing::TestDatabase;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::domain;

/// A database with an empty log, and the tasks of all that opened it. Fields go in this order.
pub struct Fixture {
    pub tasks: JoinSet<()>,
    pub pool: PgPool,
    pub app: AppName,
    pub shards: ShardCount,
    pub database: TestDatabase,
}

impl Fixture {
    pub async fn create(shards: ShardCount) -> Option<Self> {
        let database = TestDatabase::create().await?;
        let (pool, app) = (database.pool().await, AppName::try_from("example").unwrap());
        PostgresLog::create(&pool, &app, shards).await.unwrap();
        Some(Self {
            tasks: JoinSet::new(),
            pool,
            app,
            shards,
            database,
        })
    }

    /// Opens the log as another process would.
    pub fn opening(&self) -> impl Future<Output = (Arc<dyn Log>, PostgresTask)> + use<> {
        let (pool, app) = (self.pool.clone(), self.app.clone());
        async move {
            let settings = PostgresSettings {
                poll: Duration::from_millis(50),
                ..PostgresSettings::default()
            };
            let opened = PostgresLog::open(pool, &app, None, settings, Wakes::default()).await;
            let (log, task) = opened.unwrap();
            let log: Arc<dyn Log> = Arc::new(log);
            (log, task)
        }
    }

    pub async fn open(&mut self) -> Arc<dyn Log> {
        let (log, task) = self.opening().await;
        self.tasks.spawn(task.run());
        log
    }

    pub fn writer(&self, shard: u32) -> Chained {
        Chained::new(self.app.clone(), Shard::new(shard), self.shards)
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM annals.journal")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

fn count(shards: u32) -> ShardCount {
    ShardCount::try_from(shards).unwrap()
}

fn claim(log: &dyn Log, writer: &mut Chained) -> Appending {
    let at = writer.head();
    let record = writer.claim();
    log.append(writer.shard(), at, vec![record])
}

#[tokio::test]
async fn a_shard_whose_head_moved_fails_alone() {
    let Some(mut fixture) = Fixture::create(count(3)).await else {
        return;
    };
    let log = fixture.open().await;
    let mut writers: Vec<_> = (0..3).map(|shard| fixture.writer(shard)).collect();
    let mut zombie = fixture.writer(1);
    assert!(matches!(claim(&*log, &mut writers[1]).await, Appended::Landed(_)));
    // Handed over at once: one statement.
    let moved = writers[1].head();
    let answers = [
        claim(&*log, &mut writers[0]),
        claim(&*log, &mut zombie),
        claim(&*log, &mut writers[2]),
    ];
    let [a, b, c] = answers;
    assert!(matches!(a.await, Appended::Landed(_)));
    let told = b.await;
    assert!(
        matches!(&told, Appended::HeadMoved(head) if *head == moved),
        "{told:?}"
    );
    assert!(matches!(c.await, Appended::Landed(_)));
    assert_eq!(fixture.rows().await, 3);
}

#[tokio::test]
async fn a_log_is_created_once_and_opened_by_its_own_app_only() {
    let Some(fixture) = Fixture::create(count(2)).await else {
        return;
    };
    let (pool, app) = (&fixture.pool, &fixture.app);
    PostgresLog::create(pool, app, count(2)).await.unwrap();
    let other = AppName::try_from("other").unwrap();
    let refused = [
        PostgresLog::create(pool, app, count(3)).await,
        PostgresLog::create(pool, &other, count(2)).await,
    ];
    for refused in refused {
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the log refuses: this database holds the postgres log of app `example` with 2 shards, generation 1"
        );
    }
    for (app, shards) in [(&other, None), (app, Some(count(3)))] {
        let settings = PostgresSettings::default();
        let opened = PostgresLog::open(pool.clone(), app, shards, settings, Wakes::default()).await;
        assert!(matches!(opened, Err(LogError::Refused(_))));
    }
    let Some(empty) = TestDatabase::create().await else {
        return;
    };
    let settings = PostgresSettings::default();
    let opened = PostgresLog::open(empty.pool().await, app, None, settings, Wakes::default()).await;
    assert!(matches!(opened, Err(LogError::Refused(_))));
}

#[tokio::test]
async fn a_statement_that_the_server_refused_is_not_written_and_the_next_one_is() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let log = fixture.open().await;
    fixture
        .execute("ALTER TABLE annals.journal ADD CONSTRAINT no_claims CHECK (kind <> 3)")
        .await;
    let mut writer = fixture.writer(0);
    let refused = claim(&*log, &mut writer).await;
    assert!(matches!(refused, Appended::NotWritten(_)), "{refused:?}");
    fixture
        .execute("ALTER TABLE annals.journal DROP CONSTRAINT no_claims")
        .await;
    assert_eq!(log.end(Shard::new(0)).await.unwrap(), Offset::new(0));
    let mut writer = fixture.writer(0);
    assert!(matches!(claim(&*log, &mut writer).await, Appended::Landed(_)));
}

#[tokio::test]
async fn a_connection_lost_under_way_is_unknown_and_a_new_one_is_made() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let log = fixture.open().await;
    let mut writer = fixture.writer(0);
    assert!(matches!(claim(&*log, &mut writer).await, Appended::Landed(_)));
    // The statement waits for this lock until its backend is ended.
    let mut lock = fixture.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM annals.log_head FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let lost = claim(&*log, &mut writer);
    let end = async {
        loop {
            let ended: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
            if ended > 0 {
                return;
            }
        }
    };
    let (lost, ()) = tokio::join!(lost, end);
    assert!(matches!(lost, Appended::Unknown(_)), "{lost:?}");
    lock.rollback().await.unwrap();
    let mut again = fixture.writer(0);
    again.claim();
    assert!(matches!(claim(&*log, &mut again).await, Appended::Landed(_)));
}

#[tokio::test]
async fn refuses_what_is_too_large_or_of_no_shard_without_asking() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let log = fixture.open().await;
    let mut writer = fixture.writer(0);
    let at = writer.head();
    let large = writer.commit_sized("order-1", 1, 1 << 20);
    let small = writer.commit("order-1", 1, 1);
    for (shard, record) in [(0, large), (1, small)] {
        let refused = log.append(Shard::new(shard), at, vec![record]).await;
        assert!(
            matches!(refused, Appended::NotWritten(LogError::Refused(_))),
            "{refused:?}"
        );
    }
    assert!(matches!(log.end(Shard::new(1)).await, Err(LogError::Refused(_))));
}

#[tokio::test]
async fn a_notification_wakes_a_reader_of_another_process() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let pool = PoolSettings::new(fixture.database.url(), "test");
    let (notifier, sending) = Notifier::new(&pool, Limits::default()).unwrap();
    fixture.tasks.spawn(async move {
        sending.run().await;
    });
    let listener = Listener::connect(&pool, &[annals_log::postgres::CHANNEL])
        .await
        .unwrap();
    // Polls too rarely to be what wakes the reader.
    let settings = PostgresSettings {
        poll: Duration::from_secs(3_600),
        ..PostgresSettings::default()
    };
    let mut logs = Vec::new();
    let ends = [(Some(notifier), None), (None, Some(listener))];
    for (notifier, listener) in ends {
        let wakes = Wakes { notifier, listener };
        let opened =
            PostgresLog::open(fixture.pool.clone(), &fixture.app, None, settings.clone(), wakes).await;
        let (log, task) = opened.unwrap();
        fixture.tasks.spawn(task.run());
        logs.push(log);
    }
    let mut writer = fixture.writer(0);
    let limits = ReadLimits {
        wait: Duration::from_secs(60),
        ..ReadLimits::default()
    };
    let read = logs[1].read(Shard::new(0), Offset::new(0), limits);
    let (read, landed) = tokio::join!(read, claim(&logs[0], &mut writer));
    assert!(matches!(landed, Appended::Landed(_)));
    assert_eq!(read.unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_moves_its_checkpoint_with_what_it_writes_and_resumes_there() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let (writing, reading) = (fixture.open().await, fixture.open().await);
    let mut writer = fixture.writer(0);
    let mut at = Checkpoint::genesis(writer.head());
    for round in 0..3_u64 {
        let head = writer.head();
        let records = (1..=5)
            .map(|n| writer.commit("order-1", 5 * round + n, 1))
            .collect();
        let landed = writing.append(Shard::new(0), head, records).await;
        assert!(matches!(landed, Appended::Landed(_)));
        // Each round is another process's: it finds the stored checkpoint and reads from the tables.
        let (settings, catalog) = (ReaderSettings::default(), domain::catalog());
        let opened = ShardReader::open(reading.clone(), catalog, Shard::new(0), at.clone(), settings).await;
        let mut reader = opened.unwrap();
        while reader.checkpoint().head.next < writer.head().next {
            let Some(batch) = reader.next().await.unwrap() else {
                continue;
            };
            let mut transaction = fixture.pool.begin().await.unwrap();
            Checkpoint::advance(&mut transaction, "process/x", batch.shard, &batch.from, &batch.to)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
        }
        let stored = Checkpoint::load(&fixture.pool, "process/x", Shard::new(0))
            .await
            .unwrap();
        at = stored.unwrap();
        assert_eq!(at.head, writer.head());
    }
}

#[tokio::test]
async fn a_log_that_was_cut_is_noticed_by_who_has_it_open_and_by_who_opens_it() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let log = fixture.open().await;
    let mut writer = fixture.writer(0);
    let genesis = writer.head();
    for _ in 0..3 {
        assert!(matches!(claim(&*log, &mut writer).await, Appended::Landed(_)));
    }
    let limits = ReadLimits {
        wait: Duration::from_millis(10),
        ..ReadLimits::default()
    };
    let read = async |log: &dyn Log, from| log.read(Shard::new(0), Offset::new(from), limits).await;
    fixture
        .execute("ALTER TABLE annals.journal DISABLE TRIGGER USER; DELETE FROM annals.journal WHERE log_offset = 1")
        .await;
    let another = fixture.open().await;
    assert_eq!(read(&*another, 0).await.unwrap().len(), 1);
    let hole = read(&*another, 1).await;
    assert!(matches!(hole, Err(LogError::Refused(_))), "{hole:?}");

    fixture
        .execute("DELETE FROM annals.journal; UPDATE annals.log_head SET next_offset = 0")
        .await;
    let ends_at_0 = |read: &_| matches!(read, Err(LogError::BeyondEnd { end, .. }) if *end == genesis.next);
    let another = fixture.open().await;
    assert!(ends_at_0(&read(&*another, 2).await));
    // The ring still has the records until the next poll.
    while !ends_at_0(&read(&*log, 2).await) {
        // A read that the ring answers waits for nothing, and the poll needs a turn.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn says_what_it_rests_on() {
    let Some(mut fixture) = Fixture::create(count(4)).await else {
        return;
    };
    let described = fixture.open().await.describe().await.unwrap();
    assert_eq!((described.shards, described.app), (count(4), fixture.app.clone()));
    assert_eq!(described.durability, Durability::OneServer);
    let fsync = described
        .settings
        .iter()
        .find(|check| check.name == "fsync")
        .unwrap();
    assert_eq!(fsync.ok, fsync.value == "on");
    assert!(
        described
            .settings
            .iter()
            .any(|check| check.name == "synchronous_commit" && check.ok)
    );
}

#[tokio::test]
async fn what_waits_when_the_log_is_dropped_still_lands() {
    let Some(mut fixture) = Fixture::create(count(1)).await else {
        return;
    };
    let log = fixture.open().await;
    let mut writer = fixture.writer(0);
    let answer = claim(&*log, &mut writer);
    drop(log);
    assert!(matches!(answer.await, Appended::Landed(_)));
    while fixture.tasks.join_next().await.is_some() {}
    assert_eq!(fixture.rows().await, 1);
}
