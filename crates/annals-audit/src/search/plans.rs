//! How Postgres answers each filter, alone and in pairs, of a table that is full: what is read stays bounded.

use annals_store::testing::TestDatabase;
use chrono::DateTime;
use sqlx::PgPool;

use super::*;

const LIMIT: i64 = 51;

/// 24 shapes, two of them rare; actors of whom one sent half of all records and others three each.
const FILL: &str = "
    INSERT INTO annals.audit_shape (kind, category, types)
    SELECT 1, (ARRAY['product', 'order', 'payment', 'customer'])[1 + n % 4],
           ARRAY[(ARRAY['product', 'order', 'payment', 'customer'])[1 + n % 4] || '.event_' || n]
    FROM generate_series(1, 20) n
    UNION ALL SELECT 2, 'order', '{}' UNION ALL SELECT 2, 'product', '{}'
    UNION ALL SELECT 3, '', '{}' UNION ALL SELECT 1, 'order', ARRAY['order.rare'];
    INSERT INTO annals.audit_record (record, time, log_offset, shard, shape, actor)
    SELECT gen_random_uuid(), timestamptz '2026-11-01' + n * interval '10 ms', n / 16, n % 16,
           CASE WHEN n % 10000 = 1 THEN 23 WHEN n % 20000 = 2 THEN 24 ELSE 1 + (n * 7) % 22 END,
           CASE WHEN n % 2 = 0 THEN 'bench' ELSE 'customer-' || (n * 31) % 20000 END
    FROM generate_series(1, 60000) n;";

async fn full() -> Option<(TestDatabase, PgPool)> {
    let database = TestDatabase::create().await?;
    let pool = database.pool().await;
    sqlx::raw_sql(FILL).execute(&pool).await.unwrap();
    Some((database, pool))
}

/// Every filter, with values that are frequent, rare, and that nothing has.
fn filters() -> Vec<(String, Search)> {
    let text = |text: &str| Some(text.to_owned());
    let at = |ms: i64| DateTime::from_timestamp_millis(1_793_491_200_000 + ms);
    let deep = Cursor(at(590_000).unwrap().timestamp_micros(), 3, 3_000).write();
    let mut all: Vec<(String, Search)> = vec![("nothing".to_owned(), Search::default())];
    let mut add = |name: &str, search: Search| all.push((name.to_owned(), search));
    for value in ["order", "customer", "nothing"] {
        let category = text(value);
        add(
            value,
            Search {
                category,
                ..Search::default()
            },
        );
    }
    for value in ["order.event_1", "order.rare", "order.never"] {
        let event_type = text(value);
        add(
            value,
            Search {
                event_type,
                ..Search::default()
            },
        );
    }
    for value in ["bench", "customer-31", "nobody"] {
        let actor = text(value);
        add(
            value,
            Search {
                actor,
                ..Search::default()
            },
        );
    }
    for kind in [
        RecordKind::Commit,
        RecordKind::Refusal,
        RecordKind::Claim,
        RecordKind::Close,
    ] {
        let kind = Some(kind);
        add(
            &format!("{kind:?}"),
            Search {
                kind,
                ..Search::default()
            },
        );
    }
    add(
        "late",
        Search {
            from: at(595_000),
            ..Search::default()
        },
    );
    add(
        "early",
        Search {
            to: at(5_000),
            ..Search::default()
        },
    );
    add(
        "deep",
        Search {
            after: Some(deep),
            ..Search::default()
        },
    );
    all
}

fn both(one: &Search, other: &Search) -> Search {
    Search {
        category: one.category.clone().or_else(|| other.category.clone()),
        event_type: one.event_type.clone().or_else(|| other.event_type.clone()),
        actor: one.actor.clone().or_else(|| other.actor.clone()),
        kind: one.kind.or(other.kind),
        from: one.from.or(other.from),
        to: one.to.or(other.to),
        after: one.after.clone().or_else(|| other.after.clone()),
    }
}

/// Nodes of a plan that read records, and all pages that it touched.
fn reads(plan: &serde_json::Value, nodes: &mut Vec<String>) {
    if plan["Relation Name"] == "audit_record" {
        nodes.push(format!("{} {}", plan["Node Type"], plan["Index Name"]));
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        reads(child, nodes);
    }
}

async fn refuse_what_reads_much(pool: &PgPool) {
    let filters = filters();
    let mut transaction = pool.begin().await.unwrap();
    by_index(&mut transaction).await.unwrap();
    let mut worst = 0;
    for (i, (a, one)) in filters.iter().enumerate() {
        for (b, other) in &filters[i..] {
            let search = both(one, other);
            let mut query = statement(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) ",
                &search,
                LIMIT,
            )
            .unwrap();
            let plan: serde_json::Value = query
                .build_query_scalar()
                .fetch_one(&mut *transaction)
                .await
                .unwrap();
            let (plan, mut nodes) = (&plan[0]["Plan"], Vec::new());
            reads(plan, &mut nodes);
            let index = if search.actor.is_some() {
                "audit_record_actor"
            } else {
                "audit_record_shape"
            };
            assert_eq!(nodes.len(), 1, "{a} and {b}: {nodes:?}");
            assert!(
                nodes[0].contains("Index") && nodes[0].contains(index),
                "{a} and {b}: {nodes:?}\n{plan:#}"
            );
            let pages =
                plan["Shared Hit Blocks"].as_u64().unwrap() + plan["Shared Read Blocks"].as_u64().unwrap();
            worst = worst.max(pages);
            // A page for each entry at worst (nothing is known to be visible yet), and the way down for each shape.
            let bound = 24 * (u64::try_from(LIMIT).unwrap() + 6);
            assert!(pages < bound, "{a} and {b} touch {pages} pages\n{plan:#}");
        }
    }
    assert!(worst > 0);
}

#[tokio::test]
async fn every_filter_and_pair_is_answered_by_an_index_whose_reads_are_bounded() {
    let Some((_database, pool)) = full().await else {
        return;
    };
    let mut connection = pool.acquire().await.unwrap();
    // Without statistics, as a new node has it, and with them.
    refuse_what_reads_much(&pool).await;
    sqlx::query("VACUUM ANALYZE annals.audit_record")
        .execute(&mut *connection)
        .await
        .unwrap();
    sqlx::query("ANALYZE annals.audit_shape")
        .execute(&mut *connection)
        .await
        .unwrap();
    refuse_what_reads_much(&pool).await;
}

#[tokio::test]
async fn pages_of_every_filter_give_each_record_once_and_in_order() {
    let Some((_database, pool)) = full().await else {
        return;
    };
    let of_type = |event_type: &str| Search {
        event_type: Some(event_type.to_owned()),
        ..Search::default()
    };
    let customers = Search {
        category: Some("customer".to_owned()),
        actor: Some("bench".to_owned()),
        ..Search::default()
    };
    let late = Search {
        from: DateTime::from_timestamp(1_793_491_200 + 598, 0),
        ..Search::default()
    };
    for (search, wanted) in [
        (of_type("order.rare"), "s.types @> ARRAY['order.rare']"),
        (of_type("order.event_1"), "s.types @> ARRAY['order.event_1']"),
        (customers, "s.category = 'customer' AND actor = 'bench'"),
        (late, "r.time >= '2026-11-01 00:09:58'"),
    ] {
        let name = wanted;
        let wanted: Vec<(i32, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT r.shard, r.log_offset FROM annals.audit_record r JOIN annals.audit_shape s USING (shape)
             WHERE {wanted} ORDER BY r.time, r.shard, r.log_offset"
        )))
        .fetch_all(&pool)
        .await
        .unwrap();
        let (mut found, mut search) = (Vec::new(), search);
        loop {
            let rows = statement("", &search, 100)
                .unwrap()
                .build()
                .fetch_all(&pool)
                .await
                .unwrap();
            let Some(last) = rows.last() else { break };
            let time: DateTime<Utc> = last.get("time");
            let (shard, offset) = (last.get("shard"), last.get("log_offset"));
            search.after = Some(Cursor(time.timestamp_micros(), shard, offset).write());
            found.extend(
                rows.iter()
                    .map(|row| (row.get::<i32, _>("shard"), row.get::<i64, _>("log_offset"))),
            );
        }
        assert!(!wanted.is_empty(), "{name}");
        assert_eq!(found, wanted, "{name}");
    }
}
