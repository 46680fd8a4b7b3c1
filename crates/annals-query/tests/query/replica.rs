//! A query node over a hot standby that lags: a real second server, whose replay is paused. What it says is old, and it
//! says how old; with a token nobody is answered before it has caught up.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use annals_query::{CHANNEL, Limits, QueryError, Request};
use annals_store::cluster::{Cluster, ClusterError};
use annals_store::notify::Listener;
use annals_store::{migrate, pool::PoolSettings};
use sqlx::{PgPool, Row};

use crate::support::{ANN, World, ids, json, orders, run};

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A standby of a private cluster, made by `pg_basebackup`; both are stopped and removed when it is dropped.
struct Standby {
    bin: PathBuf,
    home: PathBuf,
    primary: PathBuf,
    owner: (u32, u32),
    url: String,
}

impl Standby {
    async fn of(primary: &Cluster, pool: &PgPool, home: &Path) -> Self {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
        let bin: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
            .fetch_one(pool)
            .await
            .unwrap();
        let socket: String = sqlx::query_scalar("SHOW unix_socket_directories").fetch_one(pool).await.unwrap();
        let of_data = std::fs::metadata(primary.data()).unwrap();
        let owner = (of_data.uid(), of_data.gid());
        std::fs::DirBuilder::new().mode(0o700).create(home).unwrap();
        chown(home, Some(owner.0), Some(owner.1)).unwrap();
        let place = home.to_string_lossy().into_owned();
        let standby = Self {
            bin: bin.into(),
            url: format!("postgres://postgres@localhost/annals?host={}", place.replace('/', "%2F")),
            home: home.to_owned(),
            primary: primary.data().to_owned(),
            owner,
        };
        let data = standby.data();
        standby.done("pg_basebackup", &["-D", &data, "-R", "-c", "fast", "-h", &socket, "-U", "postgres"]);
        // Not fewer connections than the primary has, or it refuses to start.
        let options = format!("-k {place} -c listen_addresses= -c max_connections=200");
        let log = format!("{place}/log");
        standby.done("pg_ctl", &["start", "-w", "-D", &data, "-l", &log, "-o", &options]);
        standby
    }

    fn data(&self) -> String {
        self.home.join("data").to_string_lossy().into_owned()
    }

    fn call(&self, program: &str, arguments: &[&str]) -> Output {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).current_dir("/").stdin(std::process::Stdio::null());
        // Root may become another; anybody else is the owner.
        if self.owner.0 != 0 && std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt;
            own.uid() == 0
        }) {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        // The server keeps the pipes of whoever starts it.
        let out = std::fs::File::create(self.home.join(format!("{program}.out"))).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        command.output().unwrap()
    }

    fn done(&self, program: &str, arguments: &[&str]) {
        let output = self.call(program, arguments);
        let said = std::fs::read_to_string(self.home.join(format!("{program}.out"))).unwrap_or_default();
        assert!(output.status.success(), "{program}: {said}");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        for data in [self.data(), self.primary.to_string_lossy().into_owned()] {
            self.call("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", &data]);
        }
        // Root's clusters lie elsewhere than the data dir: what this test made is removed.
        match self.primary.parent().filter(|home| home.starts_with("/var/lib/annals/")) {
            Some(both) => std::fs::remove_dir_all(both).unwrap(),
            None => std::fs::remove_dir_all(&self.home).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_replica_that_lags_says_so_and_never_shows_less_than_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let primary = match Cluster::start(dir.path()).await {
        Ok(cluster) => cluster,
        Err(error @ (ClusterError::NotInstalled | ClusterError::NoPostgresUser)) => {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{error}");
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let url = primary.database("annals").await.unwrap();
    let pool = PoolSettings::new(url.clone(), "annals-test").connect().await.unwrap();
    migrate::up(&pool).await.unwrap();
    let world = World::over(url.reveal().to_owned(), pool.clone(), None, Limits::default()).await;
    world.order(1, ANN, 1, None).await;
    let home = primary.data().parent().unwrap().join("standby");
    let standby = Standby::of(&primary, &pool, &home).await;
    lags(&world, &standby.url).await;
    drop(standby);
}

async fn lags(world: &World, url: &str) {
    // A standby cannot be listened to; the node goes on without.
    let refused = Listener::connect(&Limits::default().pool(url), &[CHANNEL]).await.unwrap_err();
    assert!(refused.to_string().contains("recovery"), "{refused}");
    let node = world.node_at(url, Limits::default(), None).await;
    let primary = world.node(Limits::default()).await;
    let own = PgPool::connect(url).await.unwrap();
    let list = async |request: Request| {
        let prepared = node.queries.prepare(request)?;
        node.queries.list(prepared).await
    };
    assert_eq!(ids(&list(orders()).await.unwrap()), [1]);
    let mut live = node.queries.subscribe(orders(), "ann", None).await.unwrap();
    let annals_query::live::Next::Events(_) = live.next().await else { panic!("no snapshot") };

    run(&own, "SELECT pg_wal_replay_pause()").await;
    let paused = async {
        loop {
            let row = sqlx::query("SELECT pg_get_wal_replay_pause_state()").fetch_one(&own).await.unwrap();
            if row.get::<String, _>(0) == "paused" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, paused).await.unwrap();
    world.order(2, ANN, 2, None).await;
    world.change("UPDATE shop_b1.orders SET total = 10 WHERE total = 1").await;
    let fresh = |wait: Duration| Request {
        after: vec!["0:1".parse().unwrap()],
        wait,
        ..orders()
    };
    let written = primary.queries.list(primary.queries.prepare(fresh(SOON)).unwrap()).await.unwrap();
    assert_eq!(ids(&written), [1, 2]);
    // The replica shows what it has, with the position that it has.
    let old = list(orders()).await.unwrap();
    assert_eq!((ids(&old), json(&old.data)[0]["total"].as_i64()), (vec![1], Some(1)));
    assert_eq!(old.meta.positions, ["0:0".parse().unwrap()]);
    let behind = list(fresh(Duration::from_millis(300))).await.unwrap_err();
    assert!(matches!(behind, QueryError::Behind { distance: 1, .. }), "{behind}");
    // Who has seen more elsewhere is not taken back.
    let mut ahead = primary.queries.subscribe(orders(), "ann", None).await.unwrap();
    let annals_query::live::Next::Events(seen) = ahead.next().await else { panic!("no snapshot") };
    let back = Request {
        wait: Duration::from_millis(100),
        ..orders()
    };
    let behind = node.queries.subscribe(back, "ann", Some(seen[0].id.clone())).await.unwrap_err();
    assert!(matches!(behind, QueryError::Behind { .. }), "{behind}");
    // Its lag grows as long as it does not replay what it has received.
    let grown = async {
        while list(orders()).await.unwrap().meta.lag_ms < 1_000 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, grown).await.unwrap();

    // Whoever waits is answered as soon as it has caught up.
    let (queries, request) = (std::sync::Arc::clone(&node.queries), fresh(SOON));
    let waiting = tokio::spawn(async move {
        let prepared = queries.prepare(request).unwrap();
        queries.list(prepared).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    run(&own, "SELECT pg_wal_replay_resume()").await;
    let caught_up = waiting.await.unwrap().unwrap();
    assert_eq!((ids(&caught_up), json(&caught_up.data)[0]["total"].as_i64()), (vec![1, 2], Some(10)));
    let next = tokio::time::timeout(SOON, live.next()).await.unwrap();
    let annals_query::live::Next::Events(events) = next else { panic!("{next:?}") };
    assert_eq!(events.len(), 2);
    let level = async {
        while list(orders()).await.unwrap().meta.lag_ms > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, level).await.unwrap();
    own.close().await;
}
