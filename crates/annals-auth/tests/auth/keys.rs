//! The keys of data subjects in a real Postgres.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_auth::seal::{SealedValue, SubjectSealer};
use annals_auth::subject::CACHED_KEYS;
use annals_auth::{KeyError, KeyRing, Opened, Opener, SubjectKeys};
use annals_domain::personal::Sealer;
use annals_domain::{Ambient, DataSubject, Fixed};
use annals_store::testing::TestDatabase;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tempfile::TempDir;

use crate::forge::clock;

/// A database, a key-encryption key, and a clock that the test moves.
pub(crate) struct World {
    pub(crate) pool: PgPool,
    pub(crate) ambient: Ambient,
    pub(crate) time: Arc<Fixed>,
    dir: TempDir,
    _database: TestDatabase,
}

impl World {
    pub(crate) async fn new() -> Option<Self> {
        let database = TestDatabase::create().await?;
        let (ambient, time) = clock();
        Some(Self {
            pool: database.pool().await,
            ambient,
            time,
            dir: tempfile::tempdir().unwrap(),
            _database: database,
        })
    }
    fn kek(&self) -> std::path::PathBuf {
        self.dir.path().join("subject.key")
    }
    /// Another node's view: nothing cached.
    pub(crate) fn keys(&self) -> SubjectKeys {
        self.keys_over(self.pool.clone())
    }
    fn keys_over(&self, pool: PgPool) -> SubjectKeys {
        let ring = KeyRing::open_or_create(&self.kek()).unwrap();
        SubjectKeys::new(pool, ring, CACHED_KEYS, self.ambient.clone())
    }
}

pub(crate) fn subject(name: &str) -> DataSubject {
    DataSubject::from_text(name)
}

async fn seal(keys: &SubjectKeys, ambient: &Ambient, name: &str, plain: &str) -> Option<String> {
    let key = keys.get_or_create(&subject(name)).await.unwrap();
    SubjectSealer::new(subject(name), key, ambient.clone()).seal(plain)
}

/// A pool whose server does not exist.
pub(crate) fn dead_pool() -> PgPool {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1)
        .disable_statement_logging();
    PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy_with(options)
}

#[tokio::test]
async fn what_one_node_seals_another_opens() {
    let Some(world) = World::new().await else { return };
    let sealed = seal(&world.keys(), &world.ambient, "person-1", "\"Ada\"")
        .await
        .unwrap();
    let opener = Opener::new(world.keys());
    let opened = opener.open_many(&[&sealed]).await.unwrap();
    assert_eq!(opened, [Opened::Plain("Ada".into())]);
    assert!(!sealed.contains("Ada"));
}

#[tokio::test]
async fn nodes_that_make_a_key_at_once_get_the_same_one() {
    let Some(world) = World::new().await else { return };
    let made = tokio::join!(
        seal_on_own_node(&world),
        seal_on_own_node(&world),
        seal_on_own_node(&world),
        seal_on_own_node(&world),
    );
    let texts = [&made.0, &made.1, &made.2, &made.3].map(String::as_str);
    let opened = Opener::new(world.keys()).open_many(&texts).await.unwrap();
    assert!(
        opened.iter().all(|one| *one == Opened::Plain(1.into())),
        "{opened:?}"
    );
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.subject_key")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

async fn seal_on_own_node(world: &World) -> String {
    seal(&world.keys(), &world.ambient, "person-1", "1")
        .await
        .unwrap()
}

#[tokio::test]
async fn a_destroyed_key_is_gone_at_once_here_and_within_a_minute_elsewhere() {
    let Some(world) = World::new().await else { return };
    let (here, elsewhere) = (world.keys(), world.keys());
    let sealed = seal(&here, &world.ambient, "person-1", "1").await.unwrap();
    let there = Opener::new(elsewhere);
    assert_eq!(
        there.open_many(&[&sealed]).await.unwrap(),
        [Opened::Plain(1.into())]
    );
    here.destroy(&subject("person-1")).await.unwrap();
    assert_eq!(
        Opener::new(here.clone()).open_many(&[&sealed]).await.unwrap(),
        [Opened::Erased]
    );
    assert_eq!(
        seal(&here, &world.ambient, "person-1", "1").await,
        None,
        "and is never made anew"
    );
    world.time.advance_ms(59_999);
    assert_eq!(
        there.open_many(&[&sealed]).await.unwrap(),
        [Opened::Plain(1.into())]
    );
    world.time.advance_ms(1);
    assert_eq!(there.open_many(&[&sealed]).await.unwrap(), [Opened::Erased]);
    // Twice does nothing twice; and who never had a key will never get one.
    let when = destroyed_at(&world.pool).await;
    here.destroy(&subject("person-1")).await.unwrap();
    assert_eq!(destroyed_at(&world.pool).await, when);
    here.destroy(&subject("person-2")).await.unwrap();
    assert_eq!(seal(&here, &world.ambient, "person-2", "1").await, None);
    assert!(matches!(here.destroy(&subject("")).await, Err(KeyError::AppKey)));
}

async fn destroyed_at(pool: &PgPool) -> String {
    sqlx::query_scalar(
        "SELECT destroyed_at::text FROM annals.subject_key WHERE data_subject = 'person-1' AND wrapped_key IS NULL",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_key_in_memory_needs_no_postgres_and_another_is_unavailable_without_it() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    let sealed = seal(&keys, &world.ambient, "person-1", "1").await.unwrap();
    world.pool.close().await;
    assert!(keys.get_or_create(&subject("person-1")).await.is_ok());
    assert!(Opener::new(keys.clone()).open_many(&[&sealed]).await.is_ok());
    let dead = world.keys_over(dead_pool());
    for result in [
        dead.get_or_create(&subject("person-1")).await.map(drop),
        dead.destroy(&subject("person-1")).await,
        Opener::new(dead.clone()).open_many(&[&sealed]).await.map(drop),
        dead.app_key().await.map(drop),
    ] {
        assert!(result.unwrap_err().is_unavailable());
    }
}

#[tokio::test]
async fn rewrapping_keeps_keys_and_ends_the_old_key_encryption_key() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    let app = keys.app_key().await.unwrap();
    let first = seal(&keys, &world.ambient, "person-1", "1").await.unwrap();
    let second = seal(&keys, &world.ambient, "person-2", "2").await.unwrap();
    keys.destroy(&subject("person-2")).await.unwrap();
    let old = std::fs::read(world.kek()).unwrap();
    KeyRing::add(&world.kek()).unwrap();
    keys.use_ring(KeyRing::open(&world.kek()).unwrap());
    assert_eq!(keys.rewrap().await.unwrap(), 0, "known, not yet used");
    keys.use_ring(KeyRing::promote(&world.kek()).unwrap());
    assert_eq!(keys.rewrap().await.unwrap(), 2, "the app's and one other");
    KeyRing::retire(&world.kek()).unwrap();
    assert_eq!(std::fs::read(world.kek()).unwrap().len(), 32);
    assert_ne!(std::fs::read(world.kek()).unwrap(), old);
    let after = world.keys();
    assert_eq!(after.rewrap().await.unwrap(), 0);
    let opened = Opener::new(after.clone())
        .open_many(&[&first, &second])
        .await
        .unwrap();
    assert_eq!(opened, [Opened::Plain(1.into()), Opened::Erased]);
    assert_eq!(format!("{app:?}"), "Key(…)", "keys are never printed");
    // A node that has the old one only cannot read them, and says so.
    std::fs::write(world.kek(), &old).unwrap();
    let error = world.keys().app_key().await.unwrap_err();
    assert!(matches!(error, KeyError::UnknownWrappingKey));
}

#[tokio::test]
async fn rows_that_were_exchanged_or_changed_are_noticed() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    seal(&keys, &world.ambient, "person-1", "1").await.unwrap();
    seal(&keys, &world.ambient, "person-2", "2").await.unwrap();
    sqlx::query(
        "UPDATE annals.subject_key SET wrapped_key =
            (SELECT wrapped_key FROM annals.subject_key WHERE data_subject = 'person-2')
         WHERE data_subject = 'person-1'",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let error = world
        .keys()
        .get_or_create(&subject("person-1"))
        .await
        .unwrap_err();
    assert!(matches!(error, KeyError::Damaged) && !error.is_unavailable());
}

#[tokio::test]
async fn many_values_are_opened_at_once_and_wrong_ones_are_told_from_erased_ones() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    let mut texts = Vec::new();
    for n in 0..20 {
        texts.push(
            seal(&keys, &world.ambient, &format!("person-{n}"), &n.to_string())
                .await
                .unwrap(),
        );
    }
    keys.destroy(&subject("person-3")).await.unwrap();
    // Another data subject's name on the same bytes: a wrong key offered for an encrypted field.
    let (_, rest) = texts[5].rsplit_once('.').unwrap();
    let (name, _) = texts[6].rsplit_once('.').unwrap();
    let crossed = format!("{name}.{rest}");
    assert_eq!(
        SealedValue::parse(&crossed).unwrap().subject(),
        &subject("person-6")
    );
    let mut asked: Vec<_> = texts.iter().map(String::as_str).collect();
    asked.extend([crossed.as_str(), "", "1..", "no text"]);
    let opened = Opener::new(world.keys()).open_many(&asked).await.unwrap();
    for (n, one) in opened.iter().enumerate() {
        let expected = match n {
            3 => Opened::Erased,
            0..20 => Opened::Plain(n.into()),
            _ => Opened::Wrong,
        };
        assert_eq!(*one, expected, "{n}");
    }
    let mut documents = [
        json!({"a": {"personal": texts[0]}, "b": [{"personal": texts[3]}, {"erased": true}], "c": 1}),
        json!({"personal": crossed}),
    ];
    let tally = Opener::new(world.keys()).open_in(&mut documents).await.unwrap();
    assert_eq!(
        documents,
        [json!({"a": 0, "b": [null, null], "c": 1}), json!(null)]
    );
    assert_eq!((tally.plain, tally.erased, tally.wrong), (1, 1, 1));
    // A data subject without a row: nothing says that it was erased.
    let stranger = World::new().await.unwrap();
    let opened = Opener::new(stranger.keys())
        .open_many(&[&texts[0]])
        .await
        .unwrap();
    assert_eq!(opened, [Opened::Wrong]);
}

#[tokio::test]
async fn each_database_role_can_do_its_own_part() {
    let Some(world) = World::new().await else { return };
    let keys = world.keys();
    let sealed = seal(&keys, &world.ambient, "person-1", "1").await.unwrap();
    for (role, may_make, may_destroy) in [
        ("annals_command", true, false),
        ("annals_process", true, true),
        ("annals_query", false, false),
        ("annals_projector", false, false),
    ] {
        let options = world
            .pool
            .connect_options()
            .as_ref()
            .clone()
            .options([("role", role)]);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .unwrap();
        let keys = world.keys_over(pool);
        assert!(
            Opener::new(keys.clone()).open_many(&[&sealed]).await.is_ok(),
            "{role}"
        );
        let made = keys.get_or_create(&subject(&format!("made-{role}"))).await;
        assert_eq!(made.is_ok(), may_make, "{role}");
        let destroyed = keys.destroy(&subject(&format!("gone-{role}"))).await;
        assert_eq!(destroyed.is_ok(), may_destroy, "{role}");
        if let Err(error) = destroyed {
            assert!(matches!(error, KeyError::Refused(_)), "{role}");
        }
    }
}

#[test]
fn a_key_encryption_key_is_not_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("deep/subject.key");
    KeyRing::open_or_create(path).unwrap();
    assert_eq!(
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
