//! Every rule and every move of orders.

mod bodies;

use annals_domain::kit::{Dice, given, never_panics, time};
use annals_domain::{AggregateKey as _, kit};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, customer, order};

fn c(name: &str, data: Value) -> Command {
    fixture::command::<Order>(name, data)
}
fn e(name: &str, data: Value) -> Event {
    fixture::event::<Order>(&format!("order.{name}"), data)
}

/// Two lines of one product around another: 3 + 2 + 1 pieces for 3,000 + 500 + 1,000.
fn place_data() -> Value {
    json!({
        "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "payment_method": "tok_ok",
        "lines": [
            { "sku": "P1", "quantity": 3, "unit_price": 1000 },
            { "sku": "P2", "quantity": 2, "unit_price": 250 },
            { "sku": "P1", "quantity": 1, "unit_price": 1000 },
        ],
    })
}
fn place() -> Command {
    c("place", place_data())
}
fn placed() -> Event {
    e(
        "placed",
        json!({
            "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "payment_method": "tok_ok",
            "total": 4500, "units": 6,
            "lines": [
                { "line": 1, "sku": "P1", "quantity": 3, "unit_price": 1000, "amount": 3000 },
                { "line": 2, "sku": "P2", "quantity": 2, "unit_price": 250, "amount": 500 },
                { "line": 3, "sku": "P1", "quantity": 1, "unit_price": 1000, "amount": 1000 },
            ],
        }),
    )
}
fn confirmed() -> Event {
    let data = json!({
        "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "total": 4500, "units": 6,
    });
    e("confirmed", data)
}
fn cancelled(total: i64, units: i64) -> Event {
    let data = json!({
        "reason": "changed my mind", "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02",
        "total": total, "units": units,
    });
    e("cancelled", data)
}
fn rejected() -> Event {
    e("rejected", json!({ "reason": "changed my mind" }))
}
fn parcel() -> Value {
    json!({ "carrier": "DHL", "tracking": "123" })
}
fn because(name: &str) -> Command {
    c(name, json!({ "reason": "changed my mind" }))
}
fn give_back(lines: Value) -> Command {
    c("return", json!({ "reason": "broken", "lines": lines }))
}
fn returned(amount: i64, units: i64, complete: bool, lines: Value) -> Event {
    let data = json!({
        "reason": "broken", "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02",
        "amount": amount, "units": units, "complete": complete, "lines": lines,
    });
    e("returned", data)
}
fn all_back() -> Event {
    let lines = json!([
        { "line": 1, "sku": "P1", "quantity": 3, "amount": 3000 },
        { "line": 2, "sku": "P2", "quantity": 2, "amount": 500 },
        { "line": 3, "sku": "P1", "quantity": 1, "amount": 1000 },
    ]);
    returned(4500, 6, true, lines)
}

/// A history that ends at each status.
fn histories() -> Vec<(Status, Vec<Event>)> {
    let shipped = || e("shipped", parcel());
    let delivered = || e("delivered", json!({}));
    let until = |events: &[fn() -> Event]| events.iter().map(|event| event()).collect::<Vec<_>>();
    let mut sent = until(&[placed, confirmed]);
    sent.push(shipped());
    let mut there = sent.clone();
    there.push(delivered());
    let mut back = there.clone();
    back.push(all_back());
    vec![
        (Status::Placed, until(&[placed])),
        (Status::Confirmed, until(&[placed, confirmed])),
        (Status::Rejected, until(&[placed, rejected])),
        (Status::Cancelled, until(&[placed, || cancelled(0, 0)])),
        (Status::Shipped, sent),
        (Status::Delivered, there),
        (Status::Returned, back),
    ]
}
fn history(of: Status) -> Vec<Event> {
    histories()
        .into_iter()
        .find(|(status, _)| *status == of)
        .unwrap()
        .1
}

#[test]
fn is_placed_with_numbered_lines_and_sums() {
    let given = given::<Order>([]).when(place()).then([placed()]);
    assert_eq!(given.state().status(), Some(Status::Placed));
}

#[test]
fn is_placed_once_whatever_became_of_it() {
    for (_, events) in histories() {
        given::<Order>(events)
            .when(place())
            .then_rejected(Rejection::AlreadyPlaced);
    }
}

#[test]
fn without_a_day_it_is_of_the_day_of_the_decision() {
    let mut data = place_data();
    data.as_object_mut().unwrap().remove("ordered_on");
    let answer = given::<Order>([])
        .at(time())
        .when(c("place", data))
        .answer()
        .unwrap();
    let [Event::Placed(placed)] = &answer[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(placed.ordered_on.to_string(), "2026-01-02");
}

#[test]
fn its_day_is_at_most_today_in_utc() {
    let on = |day: &str| {
        let mut data = place_data();
        data["ordered_on"] = day.into();
        c("place", data)
    };
    let midnight = time().date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc();
    let last = midnight + TimeDelta::days(1) - TimeDelta::milliseconds(1);
    assert!(
        given::<Order>([])
            .at(last)
            .when(on("2026-01-02"))
            .answer()
            .is_ok()
    );
    given::<Order>([])
        .at(last)
        .when(on("2026-01-03"))
        .then_rejected(Rejection::DateInFuture);
    let next = midnight + TimeDelta::days(1);
    assert!(
        given::<Order>([])
            .at(next)
            .when(on("2026-01-03"))
            .answer()
            .is_ok()
    );
}

#[test]
fn refuses_everything_else_before_it_is_placed() {
    let commands = [
        Command::Confirm,
        because("reject"),
        because("cancel"),
        c("ship", parcel()),
        Command::Deliver,
        give_back(json!([{ "line": 1, "quantity": 1 }])),
    ];
    for command in commands {
        given::<Order>([])
            .when(command)
            .then_rejected(Rejection::UnknownOrder);
    }
}

/// The whole table of moves: each command at each status leads where it should, or is refused with the status.
#[test]
fn moves_as_the_table_says_and_in_no_other_way() {
    use Status::{Cancelled, Confirmed, Delivered, Placed, Rejected, Returned, Shipped};
    let all =
        json!([{ "line": 1, "quantity": 3 }, { "line": 2, "quantity": 2 }, { "line": 3, "quantity": 1 }]);
    let moves = [
        (Command::Confirm, vec![Placed], Confirmed),
        (because("reject"), vec![Placed], Rejected),
        (because("cancel"), vec![Placed, Confirmed], Cancelled),
        (c("ship", parcel()), vec![Confirmed], Shipped),
        (Command::Deliver, vec![Shipped], Delivered),
        (give_back(all), vec![Delivered], Returned),
    ];
    for (command, from, to) in moves {
        for (status, events) in histories() {
            let asked = given::<Order>(events.clone()).when(command.clone());
            if from.contains(&status) {
                let events = events.into_iter().chain(asked.answer().unwrap());
                assert_eq!(given::<Order>(events).state().status(), Some(to));
            } else {
                asked.then_rejected(Rejection::WrongStatus { status });
            }
        }
    }
}

#[test]
fn a_confirmation_says_what_counts_from_now_on() {
    given::<Order>([placed()])
        .when(Command::Confirm)
        .then([confirmed()]);
}

#[test]
fn cancelling_takes_back_only_what_counted() {
    given::<Order>([placed()])
        .when(because("cancel"))
        .then([cancelled(0, 0)]);
    given::<Order>([placed(), confirmed()])
        .when(because("cancel"))
        .then([cancelled(4500, 6)]);
}

#[test]
fn rejecting_shipping_and_delivering_say_what_their_commands_said() {
    given::<Order>([placed()])
        .when(because("reject"))
        .then([rejected()]);
    given::<Order>(history(Status::Confirmed))
        .when(c("ship", parcel()))
        .then([e("shipped", parcel())])
        .when(Command::Deliver)
        .then([Event::Delivered]);
}

#[test]
fn a_part_comes_back_and_then_the_rest() {
    let part = json!([{ "line": 1, "sku": "P1", "quantity": 2, "amount": 2000 }]);
    let given = given::<Order>(history(Status::Delivered))
        .when(give_back(json!([{ "line": 1, "quantity": 2 }])))
        .then([returned(2000, 2, false, part)]);
    assert_eq!(given.state().status(), Some(Status::Delivered));
    let rest = json!([
        { "line": 1, "sku": "P1", "quantity": 1, "amount": 1000 },
        { "line": 2, "sku": "P2", "quantity": 2, "amount": 500 },
        { "line": 3, "sku": "P1", "quantity": 1, "amount": 1000 },
    ]);
    let asked = json!([
        { "line": 3, "quantity": 1 }, { "line": 2, "quantity": 2 }, { "line": 1, "quantity": 1 },
    ]);
    let given = given.when(give_back(asked)).then([returned(2500, 4, true, rest)]);
    assert_eq!(given.state().status(), Some(Status::Returned));
}

#[test]
fn a_line_named_twice_gives_back_both_quantities_once() {
    let twice = json!([{ "line": 1, "quantity": 1 }, { "line": 1, "quantity": 2 }]);
    let once = json!([{ "line": 1, "sku": "P1", "quantity": 3, "amount": 3000 }]);
    given::<Order>(history(Status::Delivered))
        .when(give_back(twice))
        .then([returned(3000, 3, false, once)]);
}

#[test]
fn no_more_comes_back_than_was_sent() {
    let line = |n| LineNumber::new(n).unwrap();
    let one_back = returned(
        1000,
        1,
        false,
        json!([{ "line": 3, "sku": "P1", "quantity": 1, "amount": 1000 }]),
    );
    let events = history(Status::Delivered).into_iter().chain([one_back]);
    given::<Order>(events)
        .when(give_back(json!([{ "line": 1, "quantity": 4 }])))
        .then_rejected(Rejection::ReturnExceedsOrder { line: line(1) })
        .when(give_back(
            json!([{ "line": 1, "quantity": 2 }, { "line": 1, "quantity": 2 }]),
        ))
        .then_rejected(Rejection::ReturnExceedsOrder { line: line(1) })
        .when(give_back(
            json!([{ "line": 2, "quantity": 1 }, { "line": 3, "quantity": 1 }]),
        ))
        .then_rejected(Rejection::ReturnExceedsOrder { line: line(3) })
        .when(give_back(json!([{ "line": 4, "quantity": 1 }])))
        .then_rejected(Rejection::NoSuchLine { line: line(4) })
        .when(give_back(
            json!([{ "line": 9_007_199_254_740_991_i64, "quantity": 1 }]),
        ))
        .then_rejected(Rejection::NoSuchLine {
            line: line(9_007_199_254_740_991),
        });
}

#[test]
fn belongs_to_its_customer() {
    let owner = |n| Some(Owner::new(customer(n).to_string()));
    let mut data = place_data();
    data["customer"] = json!(customer(2));
    let none = Order::default();
    assert_eq!(none.owner(&order(1), &c("place", data.clone())), owner(2));
    assert_eq!(none.owner(&order(1), &because("cancel")), None);
    let known = given::<Order>([placed()]);
    assert_eq!(known.state().owner(&order(1), &because("cancel")), owner(1));
    assert_eq!(
        known.state().owner(&order(1), &c("place", data)),
        owner(1),
        "it stays the first customer's"
    );
}

#[test]
fn the_server_can_make_its_key() {
    assert_eq!(Order::KEYLESS, ["place"]);
    assert!(OrderId::made_from(order(1).get()).is_some());
}

fn any(dice: &mut Dice) -> Command {
    let number = |dice: &mut Dice| *dice.pick(&[1, 2, 3, 3, 4, 9_007_199_254_740_991_i64]);
    match dice.number(0..=11) {
        0 => {
            let mut data = place_data();
            data["ordered_on"] = json!(*dice.pick(&["0001-01-01", "1996-01-02", "9999-12-31"]));
            data["lines"][0]["quantity"] = json!(*dice.pick(&[1, 3, 1_000_000]));
            c("place", data)
        }
        1 | 2 => Command::Confirm,
        3 if dice.one_in(6) => because("reject"),
        4 if dice.one_in(6) => because("cancel"),
        5 => c("ship", parcel()),
        6 => Command::Deliver,
        _ => {
            let lines = (0..dice.number(1..=3)).map(|_| {
                let quantity = *dice.pick(&[1, 1, 1, 2, 1_000_000]);
                json!({ "line": number(dice), "quantity": quantity })
            });
            give_back(lines.collect())
        }
    }
}

#[test]
fn never_panics_and_reaches_every_event_and_rejection() {
    let tally = never_panics::<Order>(0..150, 60, any);
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
}

/// Whatever is returned in whatever parts, it never adds up to more than the order, and to all of it at the end.
#[test]
fn what_comes_back_adds_up() {
    let key = order(1);
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let mut state = given::<Order>(history(Status::Delivered)).state().clone();
        let (mut amount, mut units) = (0, 0);
        for version in 4..40 {
            let line = dice.number(1..=3);
            let command = give_back(json!([{ "line": line, "quantity": dice.number(1..=3) }]));
            let ctx = Context::new(&key, kit::time(), fixture::version(version));
            for event in state.decide(&command, &ctx).unwrap_or_default() {
                if let Event::Returned(e) = &event {
                    amount += e.amount.get();
                    units += e.units.get();
                    assert_eq!(e.complete, units == 6, "seed {seed}");
                }
                state.evolve(&event);
            }
            assert!(amount <= 4500 && units <= 6, "seed {seed}");
            assert_eq!(
                state.status() == Some(Status::Returned),
                amount == 4500,
                "seed {seed}"
            );
        }
    }
}
