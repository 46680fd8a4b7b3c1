//! Every rule of products, and that the stock adds up whatever is asked.

use annals_domain::kit::{Dice, given, never_panics};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, eur, order, usd, usd_price};

fn c(name: &str, data: Value) -> Command {
    fixture::command::<Product>(name, data)
}
fn e(name: &str, data: Value) -> Event {
    fixture::event::<Product>(&format!("product.{name}"), data)
}
fn registered() -> Event {
    e("registered", json!({ "name": "Bolt", "price": usd(500) }))
}
fn received(quantity: i64) -> Event {
    e(
        "stock_received",
        json!({ "quantity": quantity, "reference": "D-1" }),
    )
}
fn reserve_data(n: u128, quantity: i64) -> Value {
    json!({ "order": order(n), "quantity": quantity, "unit_price": usd(500) })
}
fn reserve(n: u128, quantity: i64) -> Command {
    c("reserve", reserve_data(n, quantity))
}
fn reserved(n: u128, quantity: i64) -> Event {
    e("stock_reserved", reserve_data(n, quantity))
}
fn held(n: u128, quantity: i64) -> Value {
    json!({ "order": order(n), "quantity": quantity })
}
fn of_order(name: &str, n: u128) -> Command {
    c(name, json!({ "order": order(n) }))
}
fn because(name: &str) -> Command {
    c(name, json!({ "reason": "season" }))
}
fn discontinued() -> Event {
    e("discontinued", json!({ "reason": "season" }))
}

#[test]
fn is_registered_once() {
    let register = || c("register", json!({ "name": "Bolt", "price": usd(500) }));
    let given = given::<Product>([]).when(register()).then([registered()]);
    assert_eq!(given.state().status(), Some(Status::Active));
    given.when(register()).then_rejected(Rejection::AlreadyRegistered);
}

#[test]
fn refuses_everything_else_before_it_is_registered() {
    let commands = [
        c("reprice", json!({ "price": usd(1) })),
        c("receive", json!({ "quantity": 1, "reference": "D-1" })),
        c("adjust", json!({ "delta": 1, "reason": "found" })),
        reserve(1, 1),
        of_order("release", 1),
        of_order("ship", 1),
        because("discontinue"),
        because("reinstate"),
    ];
    for command in commands {
        given::<Product>([])
            .when(command)
            .then_rejected(Rejection::UnknownProduct);
    }
}

#[test]
fn takes_a_new_price_in_its_currency_only() {
    let currency = Currency::new("USD").unwrap();
    given::<Product>([registered()])
        .when(c("reprice", json!({ "price": usd(600) })))
        .then([e("repriced", json!({ "price": usd(600) }))])
        .when(c("reprice", json!({ "price": eur(600) })))
        .then_rejected(Rejection::CurrencyDiffers { currency });
}

#[test]
fn can_be_repriced_and_received_while_discontinued() {
    given::<Product>([registered(), discontinued()])
        .when(c("reprice", json!({ "price": usd(600) })))
        .then([e("repriced", json!({ "price": usd(600) }))])
        .when(c("receive", json!({ "quantity": 5, "reference": "D-1" })))
        .then([received(5)]);
}

#[test]
fn receives_and_adjusts_stock() {
    let given = given::<Product>([registered()])
        .when(c("receive", json!({ "quantity": 10, "reference": "D-1" })))
        .then([received(10)])
        .when(c("adjust", json!({ "delta": -3, "reason": "broken" })))
        .then([e("stock_adjusted", json!({ "delta": -3, "reason": "broken" }))]);
    assert_eq!(given.state().on_hand(), 7);
}

#[test]
fn cannot_be_adjusted_below_what_orders_hold() {
    let given = given::<Product>([registered(), received(10), reserved(1, 4)]);
    given
        .when(c("adjust", json!({ "delta": -7, "reason": "lost" })))
        .then_rejected(Rejection::BelowReserved { reserved: 4 })
        .when(c("adjust", json!({ "delta": -6, "reason": "lost" })))
        .then([e("stock_adjusted", json!({ "delta": -6, "reason": "lost" }))]);
}

#[test]
fn cannot_be_adjusted_below_zero() {
    given::<Product>([registered()])
        .when(c("adjust", json!({ "delta": -1, "reason": "lost" })))
        .then_rejected(Rejection::BelowReserved { reserved: 0 });
}

#[test]
fn holds_what_is_available_and_no_more() {
    let given = given::<Product>([registered(), received(10)])
        .when(reserve(1, 8))
        .then([reserved(1, 8)])
        .when(reserve(2, 3))
        .then_rejected(Rejection::OutOfStock { available: 2 })
        .when(reserve(2, 2))
        .then([reserved(2, 2)]);
    assert_eq!((given.state().on_hand(), given.state().reserved()), (10, 10));
}

#[test]
fn an_equal_reserve_again_changes_nothing_whatever_has_become_of_price_and_stock() {
    let events = [
        registered(),
        received(10),
        reserved(1, 10),
        e("repriced", json!({ "price": usd(600) })),
        discontinued(),
    ];
    given::<Product>(events).when(reserve(1, 10)).then_nothing();
}

#[test]
fn another_reserve_of_the_same_order_is_refused() {
    let quantity = ReserveQuantity::new(4).unwrap();
    given::<Product>([registered(), received(10), reserved(1, 4)])
        .when(reserve(1, 5))
        .then_rejected(Rejection::ReservationDiffers { quantity })
        .when(c(
            "reserve",
            json!({ "order": order(1), "quantity": 4, "unit_price": usd(499) }),
        ))
        .then_rejected(Rejection::ReservationDiffers { quantity });
}

#[test]
fn reserves_at_the_present_price_only() {
    let at = |price: Value| {
        c(
            "reserve",
            json!({ "order": order(1), "quantity": 1, "unit_price": price }),
        )
    };
    given::<Product>([registered(), received(10)])
        .when(at(usd(499)))
        .then_rejected(Rejection::PriceChanged {
            price: usd_price(500),
        })
        .when(at(eur(500)))
        .then_rejected(Rejection::CurrencyDiffers {
            currency: Currency::new("USD").unwrap(),
        });
}

#[test]
fn reserves_nothing_while_discontinued() {
    given::<Product>([registered(), received(10), discontinued()])
        .when(reserve(1, 1))
        .then_rejected(Rejection::Discontinued);
}

#[test]
fn releases_what_an_order_holds_once() {
    let given = given::<Product>([registered(), received(10), reserved(1, 4)])
        .when(of_order("release", 2))
        .then_nothing()
        .when(of_order("release", 1))
        .then([e("reservation_released", held(1, 4))]);
    assert_eq!((given.state().on_hand(), given.state().reserved()), (10, 0));
    given.when(of_order("release", 1)).then_nothing();
}

#[test]
fn ships_what_an_order_holds_once_and_also_while_discontinued() {
    let given = given::<Product>([registered(), received(10), reserved(1, 4), discontinued()])
        .when(of_order("ship", 2))
        .then_rejected(Rejection::NoSuchReservation)
        .when(of_order("ship", 1))
        .then([e("stock_shipped", held(1, 4))]);
    assert_eq!((given.state().on_hand(), given.state().reserved()), (6, 0));
    given
        .when(of_order("ship", 1))
        .then_rejected(Rejection::NoSuchReservation);
}

#[test]
fn is_discontinued_and_reinstated_in_turn() {
    given::<Product>([registered()])
        .when(because("reinstate"))
        .then_rejected(Rejection::NotDiscontinued)
        .when(because("discontinue"))
        .then([discontinued()])
        .when(because("discontinue"))
        .then_rejected(Rejection::Discontinued)
        .when(because("reinstate"))
        .then([e("reinstated", json!({ "reason": "season" }))])
        .when(because("reinstate"))
        .then_rejected(Rejection::NotDiscontinued);
}

#[test]
fn belongs_to_nobody() {
    let product = given::<Product>([registered()]);
    assert_eq!(
        product
            .state()
            .owner(&fixture::sku("P1"), &because("discontinue")),
        None
    );
}

fn any(dice: &mut Dice) -> Command {
    let n = u128::try_from(dice.number(1..=4)).unwrap();
    let price = if dice.one_in(12) {
        eur(500)
    } else {
        usd(*dice.pick(&[500, 500, 500, 500, 0, 100_000_000_000]))
    };
    let quantity = *dice.pick(&[1, 2, 3, 7, 100_000_000]);
    match dice.number(0..=11) {
        0 => c("register", json!({ "name": "Bolt", "price": usd(500) })),
        1 => c("reprice", json!({ "price": price })),
        2 => c(
            "receive",
            json!({ "quantity": *dice.pick(&[1, 5, 1_000_000_000]), "reference": "D" }),
        ),
        3 => c(
            "adjust",
            json!({ "delta": *dice.pick(&[-1_000_000_000, -2, 0, 3, 1_000_000_000]), "reason": "r" }),
        ),
        4..=6 => c(
            "reserve",
            json!({ "order": order(n), "quantity": quantity, "unit_price": price }),
        ),
        7 => of_order("release", n),
        8 => of_order("ship", n),
        9 if dice.one_in(2) => because("discontinue"),
        _ => because("reinstate"),
    }
}

#[test]
fn never_panics_and_reaches_every_event_and_rejection() {
    let tally = never_panics::<Product>(0..80, 60, any);
    assert_eq!(
        tally.events.len(),
        <Event as annals::Event>::types().len(),
        "{tally:?}"
    );
    assert_eq!(
        tally.rejections.len(),
        <Rejection as annals::Rejection>::CODES.len(),
        "{tally:?}"
    );
    assert!(tally.unchanged > 0);
}

/// The rules against books kept by somebody else: every piece is free, held by one order, or gone.
#[test]
fn the_stock_adds_up_whatever_is_asked() {
    let key = fixture::sku("P1");
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let mut product = Product::default();
        let (mut in_house, mut gone) = (0_i64, 0_i64);
        for version in 0..80 {
            let ctx = Context::new(&key, annals::kit::time(), fixture::version(version));
            let Ok(events) = product.decide(&any(&mut dice), &ctx) else {
                continue;
            };
            for event in &events {
                match event {
                    Event::StockReceived(e) => in_house += e.quantity.get(),
                    Event::StockAdjusted(e) => in_house += e.delta.get(),
                    Event::StockShipped(e) => gone += e.quantity.get(),
                    Event::Registered(_) | Event::Repriced(_) | Event::StockReserved(_) => {}
                    Event::ReservationReleased(_) | Event::Discontinued(_) | Event::Reinstated(_) => {}
                }
                product.evolve(event);
            }
            let held: i64 = (1..=4)
                .filter_map(|n| product.held_by(order(n)))
                .map(ReserveQuantity::get)
                .sum();
            assert_eq!(product.reserved(), held, "seed {seed}");
            assert_eq!(product.on_hand(), in_house - gone, "seed {seed}");
            assert!(0 <= held && held <= product.on_hand(), "seed {seed}");
        }
    }
}
