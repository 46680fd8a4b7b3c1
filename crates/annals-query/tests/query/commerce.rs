//! The read models of commerce, their builds made by the projection engine: every offer has an index.

use std::path::Path;
use std::sync::Arc;

use annals_domain::Ambient;
use annals_projection::{Manifest, build};
use annals_query::{
    Access, CursorKey, Freshness, Limits, LogIdentity, Queries, Request, Resources, Scope, check,
};
use annals_record::{Generation, ShardCount};
use annals_store::testing::TestDatabase;

#[tokio::test]
async fn every_offered_filter_and_sort_of_commerce_has_an_index() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../projections");
    let mut definitions = Vec::new();
    for name in [
        "orders",
        "order_lines",
        "products",
        "payments",
        "customers",
        "daily_sales",
    ] {
        let manifest = Manifest::load(&folder.join(name)).unwrap();
        build::ensure(&pool, &manifest).await.unwrap();
        definitions.extend(annals_query::resource::definitions(&manifest));
    }
    let resources = Resources::of(&pool, definitions).await.unwrap();
    assert_eq!(resources.definitions().count(), 6);
    let key = CursorKey::new(&[7; 32]).unwrap();
    let unserved = check::unserved(&pool, &resources, &key).await.unwrap();
    assert_eq!(unserved, []);

    // The database role of query nodes may read all that a query needs.
    let limits = Limits::default();
    let mut settings = limits.pool(database.url());
    settings.role = Some("annals_query".to_owned());
    let role = settings.connect().await.unwrap();
    let log = LogIdentity {
        generation: Generation::FIRST,
        shards: ShardCount::try_from(4).unwrap(),
    };
    let resources = Arc::new(resources);
    let freshness = Arc::new(Freshness::new(role.clone(), resources.projections(), log));
    freshness.refresh().await.unwrap();
    let (ambient, _) = Ambient::fixed(0, 1);
    let queries = Queries::new(role, Arc::clone(&resources), freshness, key, ambient, limits);
    for definition in resources.definitions() {
        let mut scope = Scope::default().with(&definition.resource, Access::own("x"));
        let expand: Vec<_> = definition.expand.keys().cloned().collect();
        for to in definition.expand.values() {
            scope = scope.with(&to.resource, Access::public());
        }
        let mut request = Request::list(&definition.resource, scope);
        if !expand.is_empty() {
            request = request.with("expand", &expand.join(","));
        }
        let list = queries.list(queries.prepare(request).unwrap()).await.unwrap();
        assert_eq!(list.body(), r#"{"data":[],"next":null}"#);
    }
}
