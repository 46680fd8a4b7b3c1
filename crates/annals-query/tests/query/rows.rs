//! Rows and lists: what is shown to whom, and what is refused.

use annals_query::{Access, Private, QueryError, Request, Rows, Scope, check};
use annals_record::Version;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{ANN, BOB, World, everything, ids, json, order, orders, run};

#[tokio::test]
async fn a_row_has_its_types_its_version_and_its_position() {
    let Some(world) = World::make().await else { return };
    world
        .order(7, ANN, 9_007_199_254_740_991, Some("1996-01-02"))
        .await;
    let row = world
        .row(Request::row("orders", order(7).to_uppercase(), everything()))
        .await
        .unwrap();
    let expected = serde_json::json!({"data": {
        "order_id": order(7), "customer_id": ANN, "status": "placed", "total": 9_007_199_254_740_991i64,
        "placed_at": "2026-11-01T00:00:02.123Z", "paid_on": "1996-01-02", "gift": null, "note": "gift wrap"}});
    assert_eq!(json(&row.body()), expected);
    assert_eq!(row.version, Some(Version::new(3)));
    assert_eq!(row.meta.positions, ["0:0".parse().unwrap()]);
    assert_eq!((row.meta.lag_ms, row.meta.parked), (0, 0));
    for key in ["nonsense", "", "1,2", &order(8)] {
        let error = world
            .row(Request::row("orders", key, everything()))
            .await
            .unwrap_err();
        assert!(matches!(error, QueryError::NotFound), "{key}: {error}");
    }
}

#[tokio::test]
async fn composite_keys_join_with_a_comma() {
    let Some(world) = World::make().await else { return };
    run(&world.pool, "INSERT INTO shop_b1.lines VALUES ('P1', 2, 12.50)").await;
    let row = world
        .row(Request::row("lines", "P1,2", everything()))
        .await
        .unwrap();
    assert_eq!(row.body(), r#"{"data":{"sku":"P1","line":2,"amount":12.50}}"#);
    assert_eq!(row.version, None);
    for key in ["P1", "P1,2,3", "P1,x", "P1,3"] {
        let error = world
            .row(Request::row("lines", key, everything()))
            .await
            .unwrap_err();
        assert!(matches!(error, QueryError::NotFound), "{key}: {error}");
    }
}

#[tokio::test]
async fn others_rows_do_not_exist_and_private_columns_are_null() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    world.order(2, BOB, 2, None).await;
    let scope = |access: Access| Scope::default().with("orders", access);
    let own = || scope(Access::own(ANN));
    assert!(world.row(Request::row("orders", order(1), own())).await.is_ok());
    let error = world
        .row(Request::row("orders", order(2), own()))
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::NotFound));
    let list = Request {
        count: true,
        ..Request::list("orders", own())
    };
    let list = world.list(list).await.unwrap();
    assert_eq!((ids(&list), list.count), (vec![1], Some(1)));

    let note = async |access: Access, n: u32| {
        let row = world
            .row(Request::row("orders", order(n), scope(access)))
            .await
            .unwrap();
        json(&row.data)["note"].is_string()
    };
    let mixed = Access {
        rows: Rows::All,
        private: Private::Own(ANN.into()),
    };
    assert!(note(Access::own(ANN), 1).await && note(Access::all(), 2).await && note(mixed.clone(), 1).await);
    assert!(!note(Access::public(), 1).await && !note(mixed, 2).await);

    // Not named, no owner column, or an owner that cannot be one: nothing.
    for scope in [Scope::default(), scope(Access::own("x' OR true --"))] {
        let list = world.list(Request::list("orders", scope)).await.unwrap();
        assert_eq!(list.data.as_ref(), "[]");
    }
    run(&world.pool, "INSERT INTO shop_b1.lines VALUES ('P1', 2, 12.50)").await;
    let lines = Request::list("lines", Scope::default().with("lines", Access::own(ANN)));
    assert_eq!(world.list(lines).await.unwrap().data.as_ref(), "[]");
}

#[tokio::test]
async fn an_expansion_stands_in_place_and_has_its_own_access() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    world.order(2, BOB, 2, None).await;
    run(
        &world.pool,
        &format!("INSERT INTO people_b1.people VALUES ('{ANN}', 'Ann', 'Oslo', true), ('{BOB}', 'Bob', 'Rome', false)"),
    )
    .await;
    let expand = |scope: Scope| {
        Request::list("orders", scope)
            .with("expand", "customer")
            .with("fields", "total")
    };
    let list = world.list(expand(everything())).await.unwrap();
    let ann = serde_json::json!({"customer_id": ANN, "name": "Ann", "city": "Oslo", "shown": true});
    assert_eq!(
        json(&list.data),
        serde_json::json!([{"total": 1, "customer": ann}, {"total": 2, "customer": null}])
    );
    let scope = everything().with("people", Access::public());
    let list = world.list(expand(scope)).await.unwrap();
    assert!(json(&list.data)[0]["customer"]["name"].is_null());
    let scope = Scope::default().with("orders", Access::all());
    let list = world.list(expand(scope)).await.unwrap();
    assert!(json(&list.data)[0]["customer"].is_null());
    let request = Request::row("orders", order(1), everything()).with("expand", "customer");
    assert_eq!(
        json(&world.row(request).await.unwrap().data)["customer"]["city"],
        "Oslo"
    );
}

/// Parameters, and the orders that they let through.
type Case = (&'static [(&'static str, &'static str)], &'static [u32]);

#[tokio::test]
async fn filters_mean_what_they_say() {
    let Some(world) = World::make().await else { return };
    for n in 1..=6 {
        let paid = (n % 2 == 0).then_some("2026-11-02");
        world
            .order(n, if n < 4 { ANN } else { BOB }, i64::from(n) * 100, paid)
            .await;
    }
    run(
        &world.pool,
        &format!(
            "UPDATE shop_b1.orders SET status = 'shipped' WHERE order_id = '{}'",
            order(6)
        ),
    )
    .await;
    run(
        &world.pool,
        &format!(
            "UPDATE shop_b1.orders SET status = 'hidden' WHERE order_id = '{}'",
            order(5)
        ),
    )
    .await;
    let cases: [Case; 13] = [
        (&[], &[1, 2, 3, 4, 6]),
        (&[("status", "placed")], &[1, 2, 3, 4]),
        (&[("status.ne", "placed")], &[6]),
        (&[("status.in", "shipped,other")], &[6]),
        (&[("status", "hidden")], &[]),
        (&[("total.gte", "200"), ("total.lt", "400")], &[2, 3]),
        (&[("total.gt", "200"), ("total.lte", "400")], &[3, 4]),
        (&[("customer_id", BOB)], &[4, 6]),
        (&[("paid_on.is", "null")], &[1, 3]),
        (&[("paid_on.is", "not_null"), ("status", "placed")], &[2, 4]),
        (
            &[("placed_at.gte", "2026-11-01T01:00:01.123456+01:00")],
            &[3, 4, 6],
        ),
        (&[("paid_on", "2026-11-02")], &[2, 4, 6]),
        (&[("gift", "true")], &[]),
    ];
    for (parameters, expected) in cases {
        let request = parameters
            .iter()
            .fold(orders(), |request, (name, value)| request.with(name, value));
        let list = world
            .list(Request {
                count: true,
                ..request
            })
            .await
            .unwrap();
        assert_eq!(ids(&list), expected, "{parameters:?}");
        assert_eq!(list.count, Some(u64::try_from(expected.len()).unwrap()));
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_with_a_hint() {
    let Some(world) = World::make().await else { return };
    let unknown = [
        ("statsu", Some("status")),
        ("total.gtee", Some("total.gte")),
        ("note", None),
        ("_version", None),
    ];
    for (name, hint) in unknown {
        match world.queries.prepare(orders().with(name, "1")).unwrap_err() {
            QueryError::UnknownParameter { name: found, nearest } => {
                assert_eq!(found, name);
                if let Some(hint) = hint {
                    assert_eq!(nearest.as_deref(), Some(hint));
                }
            }
            other => panic!("{other}"),
        }
    }
    let invalid = [
        ("limit", "0"),
        ("limit", "501"),
        ("limit", "+5"),
        ("limit", "x"),
        ("sort", "status"),
        ("sort", "--total"),
        ("sort", "total,placed_at"),
        ("fields", "nope"),
        ("fields", ""),
        ("expand", "orders"),
        ("total", "1.5"),
        ("total.is", "1"),
        ("customer_id", "x"),
        ("placed_at.gt", "yesterday"),
        ("gift", "yes"),
        ("total.in", "1,,2"),
        ("status", "a\0b"),
        ("fields", "_version"),
    ];
    for (name, value) in invalid {
        let error = world.queries.prepare(orders().with(name, value)).unwrap_err();
        assert!(
            matches!(&error, QueryError::InvalidParameter { name: found, .. } if found == name),
            "{name}={value}: {error}"
        );
    }
    let twice = world
        .queries
        .prepare(orders().with("limit", "5").with("limit", "5"))
        .unwrap_err();
    assert!(matches!(twice, QueryError::InvalidParameter { .. }));
    let row = Request::row("orders", order(1), everything()).with("status", "placed");
    assert!(matches!(
        world.queries.prepare(row).unwrap_err(),
        QueryError::UnknownParameter { .. }
    ));
    let nothing = world
        .queries
        .prepare(Request::list("nothing", everything()))
        .unwrap_err();
    assert!(matches!(nothing, QueryError::UnknownResource(_)));
}

#[tokio::test]
async fn an_offer_without_an_index_is_found() {
    let Some(world) = World::make().await else { return };
    let key = annals_query::CursorKey::new(&[7; 32]).unwrap();
    let unserved = check::unserved(&world.pool, world.queries.resources(), &key)
        .await
        .unwrap();
    let queries: Vec<_> = unserved
        .iter()
        .map(|one| (one.resource.as_str(), one.query.as_str()))
        .collect();
    assert_eq!(queries, [("orders", "gift=…")]);
    run(&world.pool, "DROP INDEX shop_b1.orders_paid_on_order_id_idx").await;
    let unserved = check::unserved(&world.pool, world.queries.resources(), &key)
        .await
        .unwrap();
    let found = |query: &str| unserved.iter().any(|one| one.query == query);
    assert!(
        found("paid_on=…") && found("sort=paid_on") && found("sort=-paid_on&cursor=…"),
        "{unserved:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_parameters_have_an_answer_or_a_typed_refusal() {
    let Some(world) = World::make().await else {
        return;
    };
    world.order(1, ANN, 1, None).await;
    let names = prop::sample::select(vec![
        "status",
        "status.in",
        "total",
        "total.lt",
        "total.in",
        "placed_at.gte",
        "paid_on",
        "paid_on.is",
        "gift.ne",
        "customer_id",
        "sort",
        "limit",
        "fields",
        "expand",
        "cursor",
        "x'--",
        "\0",
    ]);
    let values = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "[ -~]{0,12}",
        ".{0,8}",
        prop::sample::select(vec![
            "null",
            "true",
            "'; DROP TABLE x; --",
            "1996-01-02",
            "9999-12-31",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59.999999999-12:00",
            "-total",
            "paid_on",
            "NaN",
            "customer",
            "2016-12-31T23:59:60Z",
            ANN,
        ])
        .prop_map(str::to_owned),
    ];
    let parameters = prop::collection::vec((names, values), 0..3);
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runner.run(&parameters, |parameters| {
            let request = parameters
                .iter()
                .fold(orders(), |request, (name, value)| request.with(name, value));
            if let Ok(prepared) = world.queries.prepare(request) {
                let list = handle.block_on(world.queries.list(prepared));
                prop_assert!(list.is_ok(), "{:?}", list.err());
            }
            Ok(())
        })
    })
    .unwrap();
}
