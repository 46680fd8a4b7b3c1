//! `projections check`: passes on commerce's own read models, and fails on each kind of mistake.

use std::path::{Path, PathBuf};

use annals_projection::check::{Report, check};
use annals_store::testing::TestDatabase;

use crate::catalog::commerce;

fn projections() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../projections")
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for projection in &report.projections {
        for finding in &projection.findings {
            text += &format!("{}: {finding}\n", projection.name);
        }
        for test in &projection.tests {
            for failure in &test.failures {
                text += &format!(
                    "{}: {}: {}: {:?}\n",
                    projection.name, test.name, failure.run, failure.error
                );
                for difference in &failure.differences {
                    text += &format!("    {difference}\n");
                }
            }
        }
    }
    text
}

#[tokio::test]
async fn the_read_models_of_commerce_pass() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let report = check(&pool, &projections(), &commerce(), None).await.unwrap();
    assert!(report.passed(), "{}", shown(&report));
    let tests: usize = report
        .projections
        .iter()
        .map(|projection| projection.tests.len())
        .sum();
    assert_eq!(report.projections.len(), 6);
    assert!(tests >= 25, "{tests}");
    for projection in &report.projections {
        assert!(
            projection.untested.is_empty(),
            "{}: {:?}",
            projection.name,
            projection.untested
        );
    }
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'check\\_%' OR nspname = 'read'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(left.is_empty(), "{left:?}");
    let checkpoints: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.checkpoint")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(checkpoints, 0);
}
