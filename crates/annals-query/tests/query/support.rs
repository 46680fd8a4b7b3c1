//! A database with two projections, made by hand as the engine makes them: `shop` (stream) and `people` (shared).

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_domain::{Ambient, Fixed};
use annals_query::{
    Access, CHANNEL, CursorKey, Definition, Expansion, Freshness, Limits, ListAnswer, LogIdentity, Queries,
    QueryError, Request, Resources, RowAnswer, Scope,
};
use annals_record::{Generation, ShardCount};
use annals_store::notify::Listener;
use annals_store::testing::TestDatabase;
use serde_json::Value;
use sqlx::PgPool;

pub const ANN: &str = "0192f000-0000-7000-8000-0000000000aa";
pub const BOB: &str = "0192f000-0000-7000-8000-0000000000bb";
pub const NOW_MS: i64 = 1_800_000_000_000;

pub struct World {
    pub pool: PgPool,
    pub queries: Arc<Queries>,
    pub freshness: Arc<Freshness>,
    pub url: String,
    _database: Option<TestDatabase>,
    pub clock: Arc<Fixed>,
}

pub fn order(n: u32) -> String {
    format!("0192f000-0000-7000-8000-{n:012x}")
}

pub fn definitions() -> Vec<Definition> {
    let shop = Definition {
        resource: "orders".into(),
        projection: "shop".into(),
        build: 1,
        digest: [1; 32],
        doc: "Orders.".into(),
        table: "orders".into(),
        key: vec!["order_id".into()],
        versioned: true,
        owner: Some("customer_id".into()),
        private: vec!["note".into()],
        condition: "status <> 'hidden'".into(),
        filter: ["status", "customer_id", "placed_at", "total", "paid_on", "gift"]
            .map(String::from)
            .to_vec(),
        sort: ["placed_at", "total", "paid_on"].map(String::from).to_vec(),
        expand: BTreeMap::from([(
            "customer".into(),
            Expansion {
                resource: "people".into(),
                column: "customer_id".into(),
            },
        )]),
    };
    let lines = Definition {
        resource: "lines".into(),
        table: "lines".into(),
        key: vec!["sku".into(), "line".into()],
        versioned: false,
        owner: None,
        private: vec![],
        condition: "true".into(),
        filter: vec!["line".into()],
        sort: vec!["line".into()],
        expand: BTreeMap::new(),
        ..shop.clone()
    };
    let people = Definition {
        resource: "people".into(),
        projection: "people".into(),
        digest: [2; 32],
        table: "people".into(),
        key: vec!["customer_id".into()],
        versioned: false,
        owner: Some("customer_id".into()),
        private: vec!["name".into()],
        condition: "shown".into(),
        filter: vec![],
        sort: vec![],
        expand: BTreeMap::new(),
        ..shop.clone()
    };
    vec![shop, lines, people]
}

pub const SHOP: &str = "
    CREATE SCHEMA shop_b$B;
    CREATE TABLE shop_b$B.orders (order_id uuid PRIMARY KEY, customer_id uuid NOT NULL, status text NOT NULL,
        total bigint NOT NULL, placed_at timestamptz NOT NULL, paid_on date, gift boolean, note text,
        _version bigint NOT NULL);
    CREATE INDEX ON shop_b$B.orders (placed_at, order_id);
    CREATE INDEX ON shop_b$B.orders (total, order_id);
    CREATE INDEX ON shop_b$B.orders (paid_on, order_id);
    CREATE INDEX ON shop_b$B.orders (status);
    CREATE INDEX ON shop_b$B.orders (customer_id);
    CREATE TABLE shop_b$B.lines (sku text, line int, amount numeric NOT NULL, PRIMARY KEY (sku, line));
    CREATE INDEX ON shop_b$B.lines (line, sku);";

pub const PEOPLE: &str = "
    CREATE SCHEMA people_b1;
    CREATE TABLE people_b1.people (customer_id uuid PRIMARY KEY, name text, city text, shown boolean NOT NULL);";

impl World {
    pub async fn make() -> Option<Self> {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Option<Self> {
        let database = TestDatabase::create().await?;
        let pool = database.pool().await;
        Some(Self::over(database.url(), pool, Some(database), limits).await)
    }

    /// In a migrated database.
    pub async fn over(url: String, pool: PgPool, database: Option<TestDatabase>, limits: Limits) -> Self {
        run(&pool, &SHOP.replace("$B", "1")).await;
        run(&pool, PEOPLE).await;
        run(
            &pool,
            "INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ('test', 4, 1, 'postgres');
             INSERT INTO annals.projection (name, build, digest, state, live)
             VALUES ('shop', 1, '', 'live', true), ('people', 1, '', 'live', true)",
        )
        .await;
        checkpoint(&pool, "shop/1", 0, 1).await;
        checkpoint(&pool, "people/1", 0, 1).await;
        let resources = Arc::new(Resources::of(&pool, definitions()).await.unwrap());
        let log = LogIdentity {
            generation: Generation::FIRST,
            shards: ShardCount::try_from(4).unwrap(),
        };
        let query_pool = limits.pool(url.as_str()).connect().await.unwrap();
        let freshness = Arc::new(Freshness::new(query_pool.clone(), resources.projections(), log));
        freshness.refresh().await.unwrap();
        let (ambient, clock) = Ambient::fixed(NOW_MS, 1);
        let key = CursorKey::new(&[7; 32]).unwrap();
        let queries = Queries::new(
            query_pool,
            resources,
            Arc::clone(&freshness),
            key,
            ambient,
            limits,
        );
        Self {
            pool,
            queries: Arc::new(queries),
            freshness,
            url,
            _database: database,
            clock,
        }
    }

    /// Another query node over the same database, which keeps itself up to date until it is dropped.
    pub async fn node(&self, limits: Limits) -> Node {
        let listener = Listener::connect(&limits.pool(self.url.as_str()), &[CHANNEL])
            .await
            .unwrap();
        self.node_at(&self.url, limits, Some(listener)).await
    }

    /// The same over a database with the same contents.
    pub async fn node_at(&self, url: &str, limits: Limits, listener: Option<Listener>) -> Node {
        let pool = limits.pool(url).connect().await.unwrap();
        let resources = Arc::new(Resources::of(&pool, definitions()).await.unwrap());
        let log = self.freshness.log();
        let freshness = Arc::new(Freshness::new(pool.clone(), resources.projections(), log));
        freshness.refresh().await.unwrap();
        let (ambient, _) = Ambient::fixed(NOW_MS, 1);
        let key = CursorKey::new(&[7; 32]).unwrap();
        let queries = Arc::new(Queries::new(pool, resources, freshness, key, ambient, limits));
        let kept = Arc::clone(&queries);
        let task = tokio::spawn(async move { kept.run(listener).await });
        Node { queries, task }
    }

    /// Does this to the rows of `shop`, moves its checkpoint with it, and says so.
    pub async fn change(&self, sql: &str) {
        let sql = format!(
            "BEGIN; {sql}; UPDATE annals.checkpoint SET next_offset = next_offset + 1, accepted = accepted + 1
             WHERE reader = 'projection/shop/1' AND shard = 0; COMMIT; NOTIFY {CHANNEL}, 'shop'"
        );
        run(&self.pool, &sql).await;
    }

    pub async fn order(&self, n: u32, customer: &str, total: i64, paid_on: Option<&str>) {
        sqlx::query(
            "INSERT INTO shop_b1.orders VALUES ($1::uuid, $2::uuid, 'placed', $3,
                 timestamptz '2026-11-01T00:00:00.123456Z' + $4 * interval '1 second', $5::date, NULL, 'gift wrap', 3)",
        )
        .bind(order(n))
        .bind(customer)
        .bind(total)
        .bind(i32::try_from(n / 3).unwrap())
        .bind(paid_on)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    pub async fn row(&self, request: Request) -> Result<RowAnswer, QueryError> {
        self.queries.row(self.queries.prepare(request)?).await
    }

    pub async fn list(&self, request: Request) -> Result<ListAnswer, QueryError> {
        self.queries.list(self.queries.prepare(request)?).await
    }
}

/// A query node.
pub struct Node {
    pub queries: Arc<Queries>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    /// It does not keep itself up to date any more.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn everything() -> Scope {
    Scope::default()
        .with("orders", Access::all())
        .with("lines", Access::all())
        .with("people", Access::all())
}

pub fn orders() -> Request {
    Request::list("orders", everything())
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The numbers of the orders on a page.
pub fn ids(list: &ListAnswer) -> Vec<u32> {
    let rows = json(&list.data);
    let id = |row: &Value| u32::from_str_radix(&row["order_id"].as_str().unwrap()[24..], 16).unwrap();
    rows.as_array().unwrap().iter().map(id).collect()
}

pub async fn checkpoint(pool: &PgPool, build: &str, shard: i32, next: i64) {
    sqlx::query(
        "INSERT INTO annals.checkpoint (reader, shard, next_offset, accepted, epoch, chain, time_ms, closed, last_ghost)
         VALUES ('projection/' || $1, $2, $3, $3, 1, '', 0, false, false)
         ON CONFLICT (reader, shard) DO UPDATE SET next_offset = $3, accepted = $3",
    )
    .bind(build)
    .bind(shard)
    .bind(next)
    .execute(pool)
    .await
    .unwrap();
}

pub async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}
