//! Large tables: every offered combination begins at an index, expansion costs no query a row, and a page deep in a
//! million rows costs what the first one costs.

use std::path::Path;
use std::time::{Duration, Instant};

use annals_projection::{Manifest, build};
use annals_query::{CursorKey, Request, Resources, check};
use annals_store::testing::TestDatabase;
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::support::{ANN, World, checkpoint, ids, orders, run};

/// Rows of each read model of the repository.
const MANY: i64 = 60_000;

/// An expression over `n` for a column: keys and other wide columns differ in every row, texts are of a few kinds.
fn value(ty: &str, is_key: bool) -> &'static str {
    match (ty, is_key) {
        ("uuid", true) => "('0192f000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
        ("uuid", false) => "('0192f000-0000-7000-8000-' || lpad(to_hex(n % 3000), 12, '0'))::uuid",
        ("text", true) => "'P' || lpad(n::text, 8, '0')",
        ("text", false) => "'kind' || n % 5",
        ("date", _) => "date '1996-01-01' + (n % 3000)::int",
        ("timestamptz", _) => "timestamptz '2026-01-01' + n * interval '1 minute'",
        ("int4", true) => "(n % 7)::int",
        ("int4", false) => "(n % 900)::int",
        ("int8", _) => "(n * 7919) % 50000",
        ("bool", _) => "n % 2 = 0",
        (other, _) => panic!("no values for {other}"),
    }
}

async fn fill(pool: &PgPool, manifest: &Manifest) {
    for table in &manifest.tables {
        let schema = manifest.id.schema();
        let columns = sqlx::query(
            "SELECT a.attname::text, t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = ($1 || '.' || $2)::regclass AND a.attnum > 0 AND a.attgenerated = '' ORDER BY a.attnum",
        )
        .bind(&schema)
        .bind(&table.name)
        .fetch_all(pool)
        .await
        .unwrap();
        let columns: Vec<(String, String)> = columns.iter().map(|row| (row.get(0), row.get(1))).collect();
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let values = columns.iter().map(|(name, ty)| value(ty, table.key.contains(name)));
        let sql = format!(
            "INSERT INTO {schema}.{name} ({}) SELECT {} FROM generate_series(1, {MANY}) n ON CONFLICT DO NOTHING;
             ANALYZE {schema}.{name}",
            names.join(", "),
            values.collect::<Vec<_>>().join(", "),
            name = table.name,
        );
        run(pool, &sql).await;
    }
}

#[tokio::test]
async fn no_offered_combination_of_any_read_model_reads_a_large_table_from_end_to_end() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../projections");
    let mut definitions = Vec::new();
    let mut large = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let manifest = Manifest::load(&entry.unwrap().path()).unwrap();
        build::ensure(&pool, &manifest).await.unwrap();
        fill(&pool, &manifest).await;
        definitions.extend(annals_query::resource::definitions(&manifest));
        large += 1;
    }
    assert!(large >= 6, "every manifest of the repository");
    let resources = Resources::of(&pool, definitions).await.unwrap();
    let key = CursorKey::new(&[7; 32]).unwrap();
    let survey = check::survey(&pool, &resources, &key).await.unwrap();
    eprintln!("{} plans", survey.plans);
    assert!(survey.plans > 1_000, "{} plans", survey.plans);
    assert!(survey.unserved.is_empty(), "{:#?}", survey.unserved);

    // It is the indexes: without one, it is found.
    run(&pool, "DROP INDEX orders_b1.orders_total").await;
    let survey = check::survey(&pool, &resources, &key).await.unwrap();
    let found = |query: &str| survey.unserved.iter().any(|one| one.resource == "orders" && one.query == query);
    assert!(found("sort=total") && found("sort=-total later"), "{:#?}", survey.unserved);
}

async fn million(world: &World) {
    let fill = format!(
        "DROP INDEX shop_b1.orders_placed_at_order_id_idx, shop_b1.orders_total_order_id_idx,
             shop_b1.orders_paid_on_order_id_idx, shop_b1.orders_status_idx, shop_b1.orders_customer_id_idx;
         ALTER TABLE shop_b1.orders SET UNLOGGED;
         INSERT INTO shop_b1.orders
         SELECT ('0192f000-0000-7000-8000-' || lpad(to_hex(n * 2), 12, '0'))::uuid, '{ANN}', 'placed', n % 500,
             '2026-11-01'::timestamptz + n * interval '1 second', CASE WHEN n % 10 > 0 THEN '2026-11-01'::date + n / 1000 END,
             NULL, NULL, 1 FROM generate_series(1, 1000000) n;
         CREATE INDEX ON shop_b1.orders (placed_at, order_id);
         CREATE INDEX ON shop_b1.orders (total, order_id);
         CREATE INDEX ON shop_b1.orders (paid_on, order_id);
         INSERT INTO people_b1.people VALUES ('{ANN}', 'Ann', 'Oslo', true);
         ANALYZE shop_b1.orders;"
    );
    run(&world.pool, &fill).await;
}

/// The median time of a request, each time from the table.
async fn time(world: &World, request: &Request) -> Duration {
    let mut times = Vec::new();
    for n in 0..31 {
        // Another answer than the one that is remembered: the checkpoint has moved.
        checkpoint(&world.pool, "shop/1", 3, n).await;
        world.freshness.refresh().await.unwrap();
        let began = Instant::now();
        world.list(request.clone()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn page_ten_thousand_of_a_million_rows_costs_what_page_one_costs_and_none_is_skipped() {
    let Some(world) = World::make().await else { return };
    million(&world).await;
    let key = CursorKey::new(&[7; 32]).unwrap();
    for sort in ["placed_at", "-placed_at", "-total", "paid_on", "-paid_on"] {
        let (column, direction) = sort.strip_prefix('-').map_or((sort, "ASC"), |column| (column, "DESC"));
        let first = orders().with("sort", sort);
        // The row that page 10,000 of 50 rows begins behind.
        let exact = match column {
            "placed_at" => r#"to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#,
            _ => &format!("{column}::text"),
        };
        let sql = format!(
            "SELECT {exact}, order_id::text FROM shop_b1.orders
             ORDER BY {column} {direction} NULLS LAST, order_id {direction} OFFSET 9999 * 50 - 1 LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&world.pool).await.unwrap();
        let behind = [row.get(0), row.get(1)];
        let prepared = world.queries.prepare(first.clone()).unwrap();
        let deep = first.clone().with("cursor", &check::cursor(&key, &prepared, &behind));
        let blocks = async |request: &Request| {
            let prepared = world.queries.prepare(request.clone()).unwrap();
            check::blocks(&world.pool, &prepared).await.unwrap()
        };
        let (at_first, at_deep) = (blocks(&first).await, blocks(&deep).await);
        let (one, ten_thousand) = (time(&world, &first).await, time(&world, &deep).await);
        eprintln!("{sort}: page 1 {one:?} and {at_first} blocks, page 10,000 {ten_thousand:?} and {at_deep} blocks");
        assert!(at_deep <= at_first + 20, "{sort}: {at_first} blocks, then {at_deep}");
        assert!(ten_thousand < one * 3 + Duration::from_millis(5), "{sort}: {one:?}, then {ten_thousand:?}");
    }

    // Expansion: one statement, and for each row one probe of the other table's index.
    let plain = orders().with("limit", "500");
    let expanded = plain.clone().with("expand", "customer");
    let of = async |request: Request| {
        let prepared = world.queries.prepare(request).unwrap();
        check::blocks(&world.pool, &prepared).await.unwrap()
    };
    let (without, with) = (of(plain).await, of(expanded).await);
    assert!(with <= without + 500 * 4, "{without} blocks, {with} with an expansion");

    // A walk over 200,000 rows, while others come in before and behind: each old row once.
    let mut cursor: Option<String> = None;
    let mut expected = 2_u32;
    for page in 0..400_u32 {
        let mut request = orders().with("sort", "placed_at").with("limit", "500");
        if let Some(cursor) = &cursor {
            request = request.with("cursor", cursor);
        }
        let list = world.list(request).await.unwrap();
        for id in ids(&list).into_iter().filter(|id| id % 2 == 0) {
            assert_eq!(id, expected);
            expected += 2;
        }
        cursor = list.next.map(|next| next.to_string());
        if page % 40 == 0 {
            for near in [1, expected + 301] {
                let n = near | 1;
                let sql = format!(
                    "INSERT INTO shop_b1.orders SELECT ('0192f000-0000-7000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid,
                         customer_id, status, total, placed_at + interval '1 ms', NULL, NULL, NULL, 1
                     FROM shop_b1.orders WHERE order_id = ('0192f000-0000-7000-8000-' || lpad(to_hex({n} + 1), 12, '0'))::uuid
                     ON CONFLICT DO NOTHING"
                );
                run(&world.pool, &sql).await;
            }
        }
    }
    assert!(expected > 390_000, "{expected}");
}
