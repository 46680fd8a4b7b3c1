//! The checkout in a small world: real rules, random order of everything that has no order, people who interfere.
//!
//! Two orders share a customer and three products. Each stream keeps its order; across streams the process may read
//! in any order. Commands of one instance to one stream go one after the other. At any moment the order may be
//! cancelled, the timer may fire, money may be moved by hand, prices and stock may change, the customer may be
//! blocked. What must hold when nothing moves any more stands in `settle`.

mod gateway;
mod people;
mod world;

use annals_domain::kit::Dice;
use serde_json::json;

use super::*;
use gateway::Account;
use world::World;

const SEEDS: u64 = 2_000;

/// Everything that has no order of its own, thrown at random until nothing is left to do.
fn run(seed: u64, faults: bool) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::new(&mut dice, faults);
    for _ in 0..2_000 {
        if dice.one_in(7) && world.interference > 0 {
            world.interference -= 1;
            world.interfere(&mut dice);
            continue;
        }
        let steps = world.steps();
        if steps.is_empty() {
            if world.interference == 0 && !world.time_out_everything() {
                return world;
            }
            world.interference = 0;
            continue;
        }
        if dice.one_in(40) {
            world.time_out(&mut dice);
            continue;
        }
        let step = dice.pick(&steps).clone();
        world.take(step, &mut dice);
    }
    panic!("seed {seed}: it does not come to rest");
}

/// What holds of every order when nothing moves any more.
fn settle(world: &World, seed: u64) {
    for n in 0..world.orders.len() {
        let (state, payment) = (&world.orders[n].state, &world.payments[n].state);
        let id = world.orders[n].key;
        let instance = &world.instances[n];
        let what = format!(
            "seed {seed}, order {n}: {state:?} {payment:?} {:?}",
            instance.state
        );
        let status = state.status().expect("both orders were placed");
        let paid = payment.status();
        let held = world.held_by(id);
        let stuck = !instance.stuck.is_empty();
        match status {
            order::Status::Placed => panic!("{what}: it was left waiting"),
            order::Status::Rejected | order::Status::Cancelled => {
                assert!(held.is_empty(), "{what}: {held:?} is still held");
                use payment::Status::{Captured, Declined, Refunded, Voided};
                let undone = matches!(paid, None | Some(Declined | Refunded | Voided));
                assert!(
                    undone || (stuck && paid == Some(Captured)),
                    "{what}: the money was kept"
                );
                assert_eq!(instance.state.step(), "closed", "{what}");
            }
            order::Status::Confirmed => {
                assert_eq!(held, world.demanded(n), "{what}: not all is held");
                use payment::Status::{Authorized, Captured, Refunded};
                assert!(
                    matches!(paid, Some(Authorized | Captured | Refunded)),
                    "{what}: the money is gone"
                );
                assert!(!stuck, "{what}");
            }
            order::Status::Shipped | order::Status::Delivered | order::Status::Returned => {
                assert!(held.is_empty(), "{what}: {held:?} has not left");
                use payment::Status::{Captured, Refunded, Voided};
                let by_hand = stuck && matches!(paid, Some(Refunded | Voided));
                assert!(
                    by_hand || matches!(paid, Some(Captured | Refunded)),
                    "{what}: it was not paid"
                );
            }
        }
        if stuck {
            assert!(
                world.by_hand,
                "{what}: stuck though nobody moved money: {:?}",
                instance.stuck
            );
        }
        agrees_with_gateway(world.gateway.account(id), payment, &what);
    }
}

/// The gateway holds and has what the payment says, and nothing else.
fn agrees_with_gateway(account: Account, payment: &Payment, what: &str) {
    let Some(status) = payment.status() else {
        assert_eq!(account, Account::default(), "{what}: the gateway knows more");
        return;
    };
    use payment::Status::{Authorized, Captured, Declined, Refunded, Requested, Voided};
    assert_ne!(status, Requested, "{what}: nobody ended it");
    assert_eq!(account.holds, status == Authorized, "{what}: {account:?}");
    assert_eq!(account.voided, status == Voided, "{what}: {account:?}");
    let left = payment.refundable().map_or(0, |left| left.amount.get());
    assert_eq!(account.captured - account.refunded, left, "{what}: {account:?}");
    assert_eq!(
        account.captured > 0,
        matches!(status, Captured | Refunded),
        "{what}: {account:?}"
    );
    assert!(status != Declined || account.captured == 0, "{what}: {account:?}");
}

#[test]
fn whatever_happens_in_whatever_order_nothing_is_kept_that_should_be_given_back() {
    let mut ends = std::collections::BTreeMap::<String, u64>::new();
    for seed in 0..SEEDS {
        let world = run(seed, false);
        settle(&world, seed);
        for (order, payment) in world.orders.iter().zip(&world.payments) {
            let end = format!("{:?} {:?}", order.state.status(), payment.state.status());
            *ends.entry(end).or_default() += 1;
        }
        if world.instances.iter().any(|instance| !instance.stuck.is_empty()) {
            *ends.entry("stuck".to_owned()).or_default() += 1;
        }
    }
    eprintln!("{ends:#?}");
    // The world is worth nothing if it does not get everywhere.
    use order::Status::{Cancelled, Confirmed, Delivered, Rejected, Shipped};
    use payment::Status::{Authorized, Captured, Declined, Refunded, Voided};
    let reached = |order, payment: Option<payment::Status>| {
        ends.contains_key(&format!("{:?} {payment:?}", Some(order)))
    };
    assert!(reached(Rejected, None) && reached(Rejected, Some(Declined)) && reached(Rejected, Some(Voided)));
    assert!(
        reached(Cancelled, None) && reached(Cancelled, Some(Voided)) && reached(Cancelled, Some(Refunded))
    );
    assert!(reached(Confirmed, Some(Authorized)) && reached(Confirmed, Some(Captured)));
    assert!(reached(Shipped, Some(Captured)) && reached(Delivered, Some(Captured)));
    assert!(ends.contains_key("stuck"));
}

/// Crashes lose what was not committed: the reaction is done again from the stored state, the command is sent
/// again under its key, the gateway is asked again under its key. None of that may show.
#[test]
fn a_crash_at_any_point_ends_in_the_same_final_state() {
    let mut crashes = 0;
    for seed in 0..SEEDS / 3 {
        let (calm, rough) = (run(seed, false), run(seed, true));
        assert_eq!(calm.picture(), rough.picture(), "seed {seed}");
        crashes += rough.crashes;
    }
    assert!(crashes > SEEDS, "hardly anything crashed: {crashes}");
}

#[test]
fn left_alone_a_good_order_is_confirmed() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut world = World::quiet();
        while let Some(step) = Some(world.steps())
            .filter(|steps| !steps.is_empty())
            .map(|s| dice.pick(&s).clone())
        {
            world.take(step, &mut dice);
        }
        for n in 0..world.orders.len() {
            assert_eq!(
                world.orders[n].state.status(),
                Some(order::Status::Confirmed),
                "seed {seed}"
            );
            assert_eq!(
                world.held_by(world.orders[n].key),
                world.demanded(n),
                "seed {seed}"
            );
            let parcel = json!({ "carrier": "DHL", "tracking": "1" });
            world.orders[n].ask(&crate::fixture::command::<Order>("ship", parcel), None);
        }
        while let Some(step) = Some(world.steps())
            .filter(|steps| !steps.is_empty())
            .map(|s| dice.pick(&s).clone())
        {
            world.take(step, &mut dice);
        }
        settle(&world, seed);
        for payment in &world.payments {
            assert_eq!(
                payment.state.status(),
                Some(payment::Status::Captured),
                "seed {seed}"
            );
        }
    }
}
