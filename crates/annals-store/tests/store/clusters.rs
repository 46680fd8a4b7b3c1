//! The private cluster: made, found again, started again on the same data, stopped.

use annals_store::cluster::{Cluster, ClusterError};
use annals_store::migrate;
use annals_store::pool::PoolSettings;
use sqlx::PgPool;

async fn connect(cluster: &Cluster) -> PgPool {
    let url = cluster.database("annals").await.unwrap();
    PoolSettings::new(url, "annals-test").connect().await.unwrap()
}

/// Root's clusters lie elsewhere than the data dir: what this test made is removed.
fn remove(data: &std::path::Path) {
    if let Some(home) = data.parent()
        && home.starts_with("/var/lib/annals/")
    {
        std::fs::remove_dir_all(home).unwrap();
    }
}

#[tokio::test]
async fn is_made_found_again_and_started_again_on_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("with space");
    let first = match Cluster::start(&data_dir).await {
        Ok(cluster) => cluster,
        Err(error @ (ClusterError::NotInstalled | ClusterError::NoPostgresUser)) => {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{error}");
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(!first.found_running());
    let pool = connect(&first).await;
    migrate::up(&pool).await.unwrap();
    let settings: (String, String, String, String) = sqlx::query_as(
        "SELECT current_setting('listen_addresses'), current_setting('fsync'),
                current_setting('max_connections'), current_setting('shared_buffers')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(
        settings,
        (String::new(), "on".into(), "200".into(), "256MB".into())
    );
    sqlx::query("INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ('shop', 1, 1, 'k')")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let data = first.data().to_owned();

    drop(first); // as if its process had been killed
    let second = Cluster::start(&data_dir).await.unwrap();
    assert!(second.found_running());
    let pool = connect(&second).await;
    second.stop().await.unwrap();
    assert!(sqlx::query("SELECT 1").execute(&pool).await.is_err());

    let third = Cluster::start(&data_dir).await.unwrap();
    assert!(!third.found_running());
    let app: String = sqlx::query_scalar("SELECT app FROM annals.log_meta")
        .fetch_one(&connect(&third).await)
        .await
        .unwrap();
    assert_eq!(app, "shop");
    assert!(Cluster::stop_in(&data_dir).await.unwrap());
    assert!(!Cluster::stop_in(&data_dir).await.unwrap());

    // Data of a version that is not installed are left alone.
    std::fs::write(data.join("PG_VERSION"), "99\n").unwrap();
    let refused = Cluster::start(&data_dir).await.unwrap_err();
    assert!(
        matches!(refused, ClusterError::OtherVersion { major: 99, .. }),
        "{refused}"
    );
    remove(&data);
}
