//! The search table changes its shape with its rows in it, forth and back.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use annals_store::migrate;
use annals_store::testing::TestDatabase;

const BEFORE: &str = "
    INSERT INTO annals.audit_record (record, shard, log_offset, time, kind, category, stream, actor, command, types)
    SELECT gen_random_uuid(), n % 4, n / 4, timestamptz '2026-11-01' + n * interval '1 s',
           CASE WHEN n < 4 THEN 3 WHEN n % 5 = 0 THEN 2 ELSE 1 END, CASE WHEN n >= 4 THEN 'order' END,
           CASE WHEN n >= 4 THEN 'order-' || n END, CASE WHEN n >= 4 THEN 'actor-' || n % 3 END,
           CASE WHEN n >= 4 THEN 'place' END,
           CASE WHEN n >= 4 AND n % 5 <> 0 THEN ARRAY['order.placed', 'order.told'] ELSE '{}' END
    FROM generate_series(0, 99) n";
/// All that a search asks for, in a form that both shapes of the table have.
const OLD: &str = "SELECT md5(string_agg(concat_ws('|', record, shard, log_offset, time, kind,
    COALESCE(category, ''), actor, types), ',' ORDER BY shard, log_offset)) FROM annals.audit_record";
const NEW: &str = "SELECT md5(string_agg(concat_ws('|', record, shard, log_offset, time, kind,
    category, actor, types), ',' ORDER BY shard, log_offset))
    FROM annals.audit_record JOIN annals.audit_shape USING (shape)";

#[tokio::test]
async fn takes_the_rows_along_up_and_down() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let one = async |sql: &'static str| {
        sqlx::query_scalar::<_, String>(sql)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    migrate::down_to(&pool, 10).await.unwrap();
    sqlx::query(BEFORE).execute(&pool).await.unwrap();
    let before = one(OLD).await;
    migrate::up(&pool).await.unwrap();
    assert_eq!(one(NEW).await, before);
    assert_eq!(one("SELECT count(*)::text FROM annals.audit_shape").await, "3");
    migrate::down_to(&pool, 10).await.unwrap();
    assert_eq!(one(OLD).await, before);
    migrate::up(&pool).await.unwrap();
    assert_eq!(one(NEW).await, before);
}
