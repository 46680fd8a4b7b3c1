//! Every rule of customers.

use annals_domain::kit::{Dice, given, never_panics, personal, schema_agrees};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, customer, order};

fn c(name: &str, data: Value) -> Command {
    fixture::command::<Customer>(name, data)
}
fn e(name: &str, data: Value) -> Event {
    fixture::event::<Customer>(&format!("customer.{name}"), data)
}
fn contact() -> Contact {
    Contact {
        name: personal("ada"),
        email: personal("ada@"),
        address: None,
    }
}
fn registered() -> Event {
    Event::Registered(contact())
}
fn because(name: &str) -> Command {
    c(name, json!({ "reason": "chargebacks" }))
}
fn done(name: &str) -> Event {
    e(name, json!({ "reason": "chargebacks" }))
}
fn admit(n: u128, currency: &str) -> Command {
    c("admit", json!({ "order": order(n), "currency": currency }))
}
fn admitted(n: u128, currency: &str) -> Event {
    e(
        "order_admitted",
        json!({ "order": order(n), "currency": currency }),
    )
}

#[test]
fn is_registered_once() {
    given::<Customer>([])
        .when(Command::Register(contact()))
        .then([registered()])
        .when(Command::Register(contact()))
        .then_rejected(Rejection::AlreadyRegistered);
    given::<Customer>([registered(), done("blocked")])
        .when(Command::Register(contact()))
        .then_rejected(Rejection::AlreadyRegistered);
}

#[test]
fn refuses_everything_else_before_registration() {
    let commands = [
        Command::ChangeContact(contact()),
        admit(1, "USD"),
        because("block"),
        because("unblock"),
        because("erase"),
    ];
    for command in commands {
        given::<Customer>([])
            .when(command)
            .then_rejected(Rejection::UnknownCustomer);
    }
}

#[test]
fn changes_its_contact_also_while_blocked() {
    let moved = Contact {
        address: Some(personal("1 Main St")),
        ..contact()
    };
    given::<Customer>([registered(), done("blocked")])
        .when(Command::ChangeContact(moved.clone()))
        .then([Event::ContactChanged(moved)]);
}

#[test]
fn the_first_admission_fixes_the_currency() {
    let given = given::<Customer>([registered()])
        .when(admit(1, "EUR"))
        .then([admitted(1, "EUR")])
        .when(admit(2, "USD"))
        .then_rejected(Rejection::CurrencyDiffers {
            currency: Currency::new("EUR").unwrap(),
        })
        .when(admit(3, "EUR"))
        .then([admitted(3, "EUR")]);
    assert_eq!(
        given.state().currency().map(|c| c.to_string()),
        Some("EUR".to_owned())
    );
}

#[test]
fn admits_nothing_while_blocked() {
    given::<Customer>([registered(), done("blocked")])
        .when(admit(1, "USD"))
        .then_rejected(Rejection::Blocked)
        .when(because("unblock"))
        .then([done("unblocked")])
        .when(admit(1, "USD"))
        .then([admitted(1, "USD")]);
}

#[test]
fn is_blocked_and_unblocked_in_turn() {
    given::<Customer>([registered()])
        .when(because("unblock"))
        .then_rejected(Rejection::NotBlocked)
        .when(because("block"))
        .then([done("blocked")])
        .when(because("block"))
        .then_rejected(Rejection::Blocked)
        .when(because("unblock"))
        .then([done("unblocked")])
        .when(because("unblock"))
        .then_rejected(Rejection::NotBlocked);
}

#[test]
fn is_erased_once_also_while_blocked_and_refuses_everything_afterwards() {
    for events in [vec![registered()], vec![registered(), done("blocked")]] {
        let erased = given::<Customer>(events)
            .when(because("erase"))
            .then([done("erased")]);
        assert_eq!(erased.state().status(), Some(Status::Erased));
        let commands = [
            Command::Register(contact()),
            Command::ChangeContact(contact()),
            admit(1, "USD"),
            because("block"),
            because("unblock"),
            because("erase"),
        ];
        commands.into_iter().fold(erased, |erased, command| {
            erased.when(command).then_rejected(Rejection::Erased)
        });
    }
}

#[test]
fn only_erased_is_the_record_of_an_erasure() {
    let erasures = <Event as annals::Event>::types()
        .into_iter()
        .filter(|event| event.erasure);
    assert_eq!(
        erasures.map(|event| event.name).collect::<Vec<_>>(),
        ["customer.erased"]
    );
}

#[test]
fn belongs_to_itself() {
    let owner = Customer::default().owner(&customer(7), &because("block"));
    assert_eq!(owner, Some(Owner::new(customer(7).to_string())));
    let subject = Customer::data_subject(&customer(7), &Command::Register(contact()));
    assert_eq!(subject.as_str(), format!("customer-{}", customer(7)));
}

#[test]
fn what_is_personal_is_marked_in_the_schema_and_kept_out_of_the_state() {
    let schema = schemars::schema_for!(Contact);
    for field in ["name", "email", "address"] {
        let schema = &schema.as_value()["properties"][field];
        assert!(
            schema.to_string().contains(annals::personal::SCHEMA_KEYWORD),
            "{field}: {schema}"
        );
    }
    assert!(!annals::personal::occurs_in(&schemars::schema_for!(Customer)));
}

#[test]
fn the_address_may_be_left_out() {
    let long = |n| "x".repeat(n);
    schema_agrees::<Contact>([
        json!({ "name": "Ada", "email": "ada@example.org" }),
        json!({ "name": "Ada", "email": "ada@example.org", "address": "1 Main St" }),
        json!({ "name": "Ada", "email": "ada@example.org", "address": null }),
        json!({ "name": "Ada", "email": "ada@example.org", "address": "" }),
        json!({ "name": "", "email": "ada@example.org" }),
        json!({ "name": "Ada", "email": "" }),
        json!({ "name": "Ada" }),
        json!({ "name": long(200), "email": long(254), "address": long(500) }),
        json!({ "name": long(201), "email": long(254), "address": long(500) }),
        json!({ "name": long(200), "email": long(255), "address": long(500) }),
        json!({ "name": long(200), "email": long(254), "address": long(501) }),
        json!({ "name": "Ada", "email": "ada@example.org", "phone": "1" }),
        json!({ "name": { "personal": "x" }, "email": "ada@example.org" }),
    ]);
}

fn any(dice: &mut Dice) -> Command {
    match dice.number(0..=9) {
        0 | 1 => Command::Register(contact()),
        2 => Command::ChangeContact(contact()),
        3..=5 => admit(1, if dice.one_in(3) { "EUR" } else { "USD" }),
        6 => because("block"),
        7 | 8 => because("unblock"),
        _ if dice.one_in(4) => because("erase"),
        _ => admit(2, "USD"),
    }
}

#[test]
fn never_panics_and_reaches_every_event_and_rejection() {
    let tally = never_panics::<Customer>(0..200, 40, any);
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
