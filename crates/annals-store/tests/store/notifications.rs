//! Notifications over a real server, its failures included.

use std::time::Duration;

use annals_store::notify::{Heard, Limits, Listener, Notice, Notifier};
use annals_store::pool::PoolSettings;
use annals_store::testing::TestDatabase;
use sqlx::PgPool;
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(20);

fn settings(database: &TestDatabase, name: &str) -> PoolSettings {
    PoolSettings::new(database.url(), name)
}

/// The task ends with the set.
fn start(settings: &PoolSettings, limits: Limits) -> (Notifier, JoinSet<()>) {
    let (notifier, sending) = Notifier::new(settings, limits).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(sending.run());
    (notifier, tasks)
}

async fn hear(listener: &mut Listener) -> Heard {
    tokio::time::timeout(LONG, listener.next()).await.unwrap()
}

fn notice(channel: &str, key: &str, value: &str) -> Heard {
    Heard::Notice(Notice::new(channel, key, value).unwrap())
}

async fn cut(pool: &PgPool, name: &str) {
    let cut: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = $1 AND datname = current_database()",
    )
    .bind(name)
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(cut, 1, "the connection of {name}");
}

#[tokio::test]
async fn what_is_marked_is_heard_on_its_channel() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let mut listener = Listener::connect(&settings(&database, "hears"), &["a", "b"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread, "first of all");
    let (notifier, _task) = start(&settings(&database, "sends"), Limits::default());
    notifier.notify("other", "k", "").unwrap();
    notifier.notify("a", "3", "3:17").unwrap();
    assert_eq!(hear(&mut listener).await, notice("a", "3", "3:17"));
    notifier.notify("b", "k", "").unwrap();
    assert_eq!(hear(&mut listener).await, notice("b", "k", ""));
    assert!(notifier.flush(LONG).await);
}

#[tokio::test]
async fn many_marks_of_one_key_are_few_notifications_and_the_last_value_comes() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let mut listener = Listener::connect(&settings(&database, "hears"), &["c"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    let (notifier, _task) = start(&settings(&database, "sends"), Limits::default());
    // No await in between: the task cannot run on this one-threaded runtime.
    for n in 0..=1_000 {
        notifier.notify("c", "k", &n.to_string()).unwrap();
    }
    notifier.notify("c", "z", "end").unwrap();
    assert_eq!(hear(&mut listener).await, notice("c", "k", "1000"));
    assert_eq!(hear(&mut listener).await, notice("c", "z", "end"));
}

#[tokio::test]
async fn too_many_keys_are_heard_as_read_again() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let mut listener = Listener::connect(&settings(&database, "hears"), &["c"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    let limits = Limits {
        keys: 10,
        ..Limits::default()
    };
    let (notifier, _task) = start(&settings(&database, "sends"), limits);
    for n in 0..100 {
        notifier.notify("c", &n.to_string(), "").unwrap();
    }
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    assert!(notifier.flush(LONG).await);
    notifier.notify("c", "after", "").unwrap();
    assert_eq!(hear(&mut listener).await, notice("c", "after", ""));
}

#[tokio::test]
async fn a_listener_that_lost_its_connection_says_read_again_and_hears_on() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let pool = database.pool().await;
    let mut listener = Listener::connect(&settings(&database, "hears"), &["c"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    let (notifier, _task) = start(&settings(&database, "sends"), Limits::default());
    for round in ["1", "2"] {
        cut(&pool, "hears").await;
        assert_eq!(hear(&mut listener).await, Heard::Reread);
        notifier.notify("c", "k", round).unwrap();
        assert_eq!(hear(&mut listener).await, notice("c", "k", round));
    }
}

#[tokio::test]
async fn a_notifier_that_lost_its_connection_keeps_what_it_could_not_send() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let pool = database.pool().await;
    let mut listener = Listener::connect(&settings(&database, "hears"), &["c"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    let (notifier, _task) = start(&settings(&database, "sends"), Limits::default());
    notifier.notify("c", "k", "1").unwrap();
    assert_eq!(hear(&mut listener).await, notice("c", "k", "1"));
    assert!(notifier.flush(LONG).await);
    cut(&pool, "sends").await;
    notifier.notify("c", "k", "2").unwrap();
    assert_eq!(hear(&mut listener).await, notice("c", "k", "2"));
}

#[tokio::test]
async fn the_task_sends_what_is_left_and_ends_when_the_last_notifier_is_gone() {
    let Some(database) = TestDatabase::create_empty().await else {
        return;
    };
    let mut listener = Listener::connect(&settings(&database, "hears"), &["c"])
        .await
        .unwrap();
    assert_eq!(hear(&mut listener).await, Heard::Reread);
    let (notifier, mut task) = start(&settings(&database, "sends"), Limits::default());
    let clone = notifier.clone();
    notifier.notify("c", "k", "1").unwrap();
    drop(notifier);
    assert_eq!(hear(&mut listener).await, notice("c", "k", "1"));
    clone.notify("c", "k", "2").unwrap();
    drop(clone);
    assert_eq!(hear(&mut listener).await, notice("c", "k", "2"));
    tokio::time::timeout(LONG, task.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_a_server_marking_neither_waits_nor_fails() {
    let nowhere = PoolSettings::new("postgres://nobody@127.0.0.1:1/none", "sends");
    let (notifier, mut task) = start(&nowhere, Limits::default());
    notifier.notify("c", "k", "").unwrap();
    assert!(!notifier.flush(Duration::from_millis(50)).await);
    drop(notifier);
    tokio::time::timeout(LONG, task.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(Listener::connect(&nowhere, &["c"]).await.is_err());
}
