//! Every rule and every move of payments, and that no money appears or vanishes.

use annals_domain::kit::{self, Dice, given, never_panics};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, customer, eur, order, usd, usd_money};

fn c(name: &str, data: Value) -> Command {
    fixture::command::<Payment>(name, data)
}
fn e(name: &str, data: Value) -> Event {
    fixture::event::<Payment>(&format!("payment.{name}"), data)
}
fn of(amount: Value) -> Value {
    json!({ "customer": customer(1), "amount": amount, "method": "tok_ok" })
}
fn request() -> Command {
    c("request", of(usd(4500)))
}
fn requested() -> Event {
    e("requested", of(usd(4500)))
}
fn authorize() -> Command {
    c("authorize", json!({ "reference": "A-1" }))
}
fn authorized() -> Event {
    e("authorized", json!({ "reference": "A-1" }))
}
fn decline() -> Command {
    c("decline", json!({ "reason": "no funds" }))
}
fn declined() -> Event {
    e("declined", json!({ "reason": "no funds" }))
}
fn moved(name: &str, amount: i64) -> Event {
    e(name, json!({ "customer": customer(1), "amount": usd(amount) }))
}
fn refund(amount: Value) -> Command {
    c("refund", json!({ "amount": amount }))
}

/// A history that ends at each status.
fn histories() -> Vec<(Status, Vec<Event>)> {
    let captured = || vec![requested(), authorized(), moved("captured", 4500)];
    let mut refunded = captured();
    refunded.push(moved("refunded", 4500));
    vec![
        (Status::Requested, vec![requested()]),
        (Status::Authorized, vec![requested(), authorized()]),
        (Status::Declined, vec![requested(), declined()]),
        (Status::Captured, captured()),
        (Status::Voided, vec![requested(), moved("voided", 4500)]),
        (Status::Refunded, refunded),
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
fn is_requested_once_whatever_became_of_it() {
    given::<Payment>([]).when(request()).then([requested()]);
    for (_, events) in histories() {
        given::<Payment>(events)
            .when(request())
            .then_rejected(Rejection::AlreadyRequested);
    }
}

#[test]
fn refuses_everything_else_before_it_is_requested() {
    for command in [
        authorize(),
        decline(),
        Command::Capture,
        Command::Void,
        refund(usd(1)),
    ] {
        given::<Payment>([])
            .when(command)
            .then_rejected(Rejection::UnknownPayment);
    }
}

/// The whole table of moves: each command at each status leads where it should, changes nothing, or is refused
/// with the status.
#[test]
fn moves_as_the_table_says_and_in_no_other_way() {
    use Status::{Authorized, Captured, Declined, Refunded, Requested, Voided};
    let moves = [
        (authorize(), vec![Requested], Authorized, None),
        (decline(), vec![Requested], Declined, None),
        (Command::Capture, vec![Authorized], Captured, Some(Captured)),
        (Command::Void, vec![Requested, Authorized], Voided, Some(Voided)),
        (refund(usd(4500)), vec![Captured], Refunded, None),
    ];
    for (command, from, to, unchanged) in moves {
        for (status, events) in histories() {
            let asked = given::<Payment>(events.clone()).when(command.clone());
            if from.contains(&status) {
                let events = events.into_iter().chain(asked.answer().unwrap());
                assert_eq!(given::<Payment>(events).state().status(), Some(to));
            } else if unchanged == Some(status) {
                asked.then_nothing();
            } else {
                asked.then_rejected(Rejection::WrongStatus { status });
            }
        }
    }
}

#[test]
fn answers_of_the_gateway_are_kept() {
    given::<Payment>([requested()])
        .when(authorize())
        .then([authorized()]);
    given::<Payment>([requested()]).when(decline()).then([declined()]);
}

#[test]
fn captures_and_voids_the_whole_amount_of_its_customer() {
    given::<Payment>([requested(), authorized()])
        .when(Command::Capture)
        .then([moved("captured", 4500)]);
    given::<Payment>([requested(), authorized()])
        .when(Command::Void)
        .then([moved("voided", 4500)]);
    given::<Payment>([requested()])
        .when(Command::Void)
        .then([moved("voided", 4500)]);
}

#[test]
fn stays_captured_until_all_is_given_back() {
    let given = given::<Payment>(history(Status::Captured));
    assert_eq!(given.state().refundable(), Some(usd_money(4500)));
    let given = given.when(refund(usd(1500))).then([moved("refunded", 1500)]);
    assert_eq!(given.state().status(), Some(Status::Captured));
    assert_eq!(given.state().refundable(), Some(usd_money(3000)));
    let given = given
        .when(refund(usd(3001)))
        .then_rejected(Rejection::ExceedsCaptured {
            captured: usd_money(4500),
        })
        .when(refund(usd(3000)))
        .then([moved("refunded", 3000)]);
    assert_eq!(given.state().status(), Some(Status::Refunded));
    assert_eq!(given.state().refundable(), None);
}

#[test]
fn gives_nothing_back_in_another_currency_or_beyond_what_was_captured() {
    given::<Payment>(history(Status::Captured))
        .when(refund(eur(1)))
        .then_rejected(Rejection::CurrencyDiffers {
            currency: Currency::new("USD").unwrap(),
        })
        .when(refund(usd(4501)))
        .then_rejected(Rejection::ExceedsCaptured {
            captured: usd_money(4500),
        })
        .when(refund(usd(9_007_199_254_740_991)))
        .then_rejected(Rejection::ExceedsCaptured {
            captured: usd_money(4500),
        });
}

#[test]
fn a_payment_of_nothing_can_go_all_the_way() {
    let zero = |name| e(name, json!({ "customer": customer(1), "amount": usd(0) }));
    let given = given::<Payment>([e("requested", of(usd(0))), authorized()])
        .when(Command::Capture)
        .then([zero("captured")])
        .when(refund(usd(0)))
        .then([zero("refunded")]);
    assert_eq!(given.state().status(), Some(Status::Refunded));
}

#[test]
fn belongs_to_nobody() {
    let payment = given::<Payment>([requested()]);
    assert_eq!(payment.state().owner(&order(1), &Command::Capture), None);
    assert!(Payment::KEYLESS.is_empty());
}

fn any(dice: &mut Dice) -> Command {
    match dice.number(0..=11) {
        0 => c("request", of(usd(*dice.pick(&[0, 4500, 9_007_199_254_740_991])))),
        1..=3 => authorize(),
        4 if dice.one_in(8) => decline(),
        5 if dice.one_in(8) => Command::Void,
        6 | 7 => Command::Capture,
        8 => refund(eur(1)),
        _ => refund(usd(*dice.pick(&[0, 1, 1000, 4500, 9_007_199_254_740_991]))),
    }
}

#[test]
fn never_panics_and_reaches_every_event_and_rejection() {
    let tally = never_panics::<Payment>(0..400, 40, any);
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

#[test]
fn what_was_given_back_and_what_is_left_are_what_was_captured() {
    let key = order(1);
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let mut payment = Payment::default();
        let (mut captured, mut refunded) = (0_i64, 0_i64);
        for version in 0..60 {
            let ctx = Context::new(&key, kit::time(), fixture::version(version));
            for event in payment.decide(&any(&mut dice), &ctx).unwrap_or_default() {
                match &event {
                    Event::Captured(e) => captured += e.amount.amount.get(),
                    Event::Refunded(e) => refunded += e.amount.amount.get(),
                    Event::Requested(_) | Event::Authorized(_) | Event::Declined(_) | Event::Voided(_) => {}
                }
                payment.evolve(&event);
            }
            assert!(refunded <= captured, "seed {seed}");
            match payment.status() {
                Some(Status::Captured) => {
                    let left = payment.refundable().map(|left| left.amount.get());
                    assert_eq!(left, Some(captured - refunded), "seed {seed}");
                }
                Some(Status::Refunded) => assert_eq!(captured, refunded, "seed {seed}"),
                _ => assert_eq!((captured, refunded), (0, 0), "seed {seed}"),
            }
        }
    }
}
