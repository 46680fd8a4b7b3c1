//! The read models of commerce, their builds made by the projection engine: every offer has an index.

use std::path::Path;

use annals_projection::{Manifest, build};
use annals_query::{CursorKey, Resources, check};
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
}
