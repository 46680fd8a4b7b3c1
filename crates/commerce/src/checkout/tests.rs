//! Every row of the checkout's table, and every race that can be named.

mod vocabulary;

use annals_domain::kit::{committed, own, refused};
use serde_json::json;

use super::*;
use crate::fixture::{self, command, customer, sku, usd, usd_money};
use vocabulary::*;

#[test]
fn goes_from_placed_to_confirmed_step_by_step() {
    let ask = Authorize {
        payment: id(),
        amount: usd_money(3000),
        method: PaymentMethod::new("tok_ok").unwrap(),
    };
    given([])
        .when(placed())
        .and_step("waiting for the customer's admission")
        .then(
            Actions::none()
                .wake("timed_out", TIMEOUT)
                .send::<Customer>(&customer(1), admit()),
        )
        .when(admitted())
        .and_step("reserving")
        .then(Actions::none().send::<Product>(&sku("P1"), reserve(4)))
        .when(reserved("P1", 4))
        .then(Actions::none().send::<Product>(&sku("P2"), reserve(2)))
        .when(reserved("P2", 2))
        .and_step("requesting the payment")
        .then(send_payment(request()))
        .when(requested())
        .and_step("waiting for the gateway")
        .then(Actions::none().perform::<AuthorizePayment>(&ask))
        .when(authorized())
        .and_step("confirming")
        .then(Actions::none().send::<Order>(&id(), order::Command::Confirm))
        .when(confirmed())
        .and_step("confirmed")
        .then(Actions::none().withdraw_timer("timed_out"));
}

#[test]
fn goes_from_shipped_to_captured_when_all_products_have_left() {
    let ship = |of: &str, actions: Actions| actions.send::<Product>(&sku(of), of_stock("ship"));
    given(until_confirmed())
        .when(order_shipped())
        .and_step("shipping")
        .then(ship("P2", ship("P1", Actions::none())))
        .when(stock_shipped("P2", 2))
        .then_nothing()
        .when(stock_shipped("P1", 4))
        .and_step("capturing")
        .then(send_payment(payment::Command::Capture))
        .when(Input::Payment(own(captured())))
        .and_step("captured")
        .then(tell(Notice::Capture {
            payment: id(),
            amount: usd_money(3000),
        }));
}

#[test]
fn an_equal_reserve_again_is_a_yes_too() {
    let unchanged = Input::Product(own(committed::<Product>(sku("P1"), reserve(4), [])));
    given([placed(), admitted()])
        .when(unchanged)
        .then(Actions::none().send::<Product>(&sku("P2"), reserve(2)));
}

#[test]
fn a_refused_admission_rejects_with_its_code() {
    let refusal = Input::Customer(refused::<Customer>(
        customer(1),
        admit(),
        customer::Rejection::Blocked,
    ));
    given([placed()])
        .when(refusal)
        .and_step("rejecting")
        .then(reject("blocked"));
}

#[test]
fn a_refused_reserve_rejects_with_its_code_and_releases_what_was_ever_asked_for() {
    given([placed(), admitted(), reserved("P1", 4)])
        .when(reserve_refused("P2", 2))
        .then(reject("out_of_stock"))
        .when(rejected())
        .and_step("closed")
        .then(undone(&["P1", "P2"], false));
}

#[test]
fn a_refused_request_rejects_with_its_code() {
    let refusal = refused::<Payment>(id(), request(), payment::Rejection::AlreadyRequested);
    given([placed(), admitted(), reserved("P1", 4), reserved("P2", 2)])
        .when(Input::Payment(refusal))
        .then(reject("already_requested"));
}

#[test]
fn a_declined_payment_rejects_and_is_not_voided() {
    given(until_requested())
        .when(declined())
        .then(reject("payment_declined"))
        .when(rejected())
        .then(undone(&["P1", "P2"], false));
}

#[test]
fn the_timer_rejects_at_any_moment_before_the_confirmation() {
    let whole = then(until_requested(), [authorized()]);
    for length in 1..=whole.len() {
        given(whole_until(length))
            .when(Input::TimedOut(id()))
            .then(reject("timeout"));
    }
}

fn whole_until(length: usize) -> Vec<Input> {
    then(until_requested(), [authorized()])
        .into_iter()
        .take(length)
        .collect()
}

#[test]
fn the_timer_does_nothing_afterwards() {
    for end in [confirmed(), rejected(), cancelled()] {
        given([placed(), end]).when(Input::TimedOut(id())).then_nothing();
    }
    given([placed(), Input::TimedOut(id())])
        .when(Input::TimedOut(id()))
        .then_nothing();
    given([]).when(Input::TimedOut(id())).then_nothing();
}

#[test]
fn nothing_is_begun_while_the_order_is_being_rejected() {
    let inputs = then(until_requested(), [authorized()]);
    for length in 1..inputs.len() {
        let next = whole_until(length + 1).pop().unwrap();
        given(then(whole_until(length), [Input::TimedOut(id())]))
            .when(next)
            .then_nothing();
    }
}

#[test]
fn a_cancelled_order_is_undone_at_any_moment_and_nothing_is_begun_afterwards() {
    let both: &[&str] = &["P1", "P2"];
    let reserved_for: [&[&str]; 6] = [&[], &["P1"], both, both, both, both];
    for (length, products) in (1..).zip(reserved_for) {
        let closed = given(whole_until(length))
            .when(cancelled())
            .then(undone(products, length >= 4));
        let closed = closed.when(cancelled()).then_nothing();
        if let Some(next) = whole_until(length + 1).into_iter().nth(length) {
            closed.when(next).then_nothing();
        }
    }
    given(until_confirmed())
        .when(cancelled())
        .then(undone(&["P1", "P2"], true));
}

#[test]
fn a_payment_requested_after_the_rejection_starts_no_authorization() {
    let requesting = vec![placed(), admitted(), reserved("P1", 4), reserved("P2", 2)];
    given(then(requesting, [rejected()]))
        .when(requested())
        .then_nothing();
}

#[test]
fn a_decline_after_the_cancellation_changes_nothing_nor_does_its_refused_void() {
    given(then(until_requested(), [cancelled()]))
        .when(declined())
        .then_nothing()
        .when(payment_refused(payment::Command::Void, payment::Status::Declined))
        .then_nothing();
}

#[test]
fn a_void_refused_because_captured_refunds_what_is_left() {
    let by_hand = [
        authorized(),
        Input::Payment(captured()),
        Input::Payment(refunded(1000)),
        cancelled(),
    ];
    let void_refused = || payment_refused(payment::Command::Void, payment::Status::Captured);
    given(then(until_requested(), by_hand))
        .when(void_refused())
        .then(send_payment(refund(2000)))
        .when(Input::Payment(own(refunded(2000))))
        .then(tell(Notice::Refund {
            payment: id(),
            amount: usd_money(2000),
        }));
}

#[test]
fn a_void_refused_because_all_was_refunded_does_nothing() {
    let by_hand = [
        authorized(),
        Input::Payment(captured()),
        Input::Payment(refunded(3000)),
        cancelled(),
    ];
    given(then(until_requested(), by_hand))
        .when(payment_refused(payment::Command::Void, payment::Status::Refunded))
        .then_nothing();
}

#[test]
fn refused_confirmations_rejections_and_cancellations_mean_nothing() {
    let status = order::Status::Cancelled;
    let why = json!({ "reason": "r" });
    for asked in [
        order::Command::Confirm,
        command::<Order>("reject", why.clone()),
        command::<Order>("cancel", why.clone()),
    ] {
        given(then(until_requested(), [authorized()]))
            .when(order_refused(asked, status))
            .then_nothing();
    }
}

#[test]
fn answers_of_the_gateway_that_came_too_late_mean_nothing() {
    let late = [
        command::<Payment>("authorize", json!({ "reference": "A-1" })),
        command::<Payment>("decline", json!({ "reason": "no funds" })),
    ];
    for asked in late {
        given(then(
            until_requested(),
            [cancelled(), Input::Payment(own(voided()))],
        ))
        .when(payment_refused(asked, payment::Status::Voided))
        .then_nothing();
    }
}

#[test]
fn refused_shipping_capturing_and_refunding_leave_the_instance_stuck() {
    let stuck = |why: &str| Actions::none().stuck(why);
    let shipping = then(until_confirmed(), [order_shipped()]);
    let refusal = refused::<Product>(sku("P1"), of_stock("ship"), product::Rejection::NoSuchReservation);
    given(shipping)
        .when(Input::Product(refusal))
        .then(stuck("ship of P1 was refused: no_such_reservation"));
    let gone = [order_shipped(), stock_shipped("P1", 4), stock_shipped("P2", 2)];
    given(then(until_confirmed(), gone))
        .when(payment_refused(
            payment::Command::Capture,
            payment::Status::Voided,
        ))
        .then(stuck("capture was refused: wrong_status"));
    given(then(until_confirmed(), [cancelled()]))
        .when(payment_refused(refund(3000), payment::Status::Refunded))
        .then(stuck("refund was refused: wrong_status"));
}

#[test]
fn the_gateway_is_told_whoever_moved_the_money() {
    let told = [
        (
            captured(),
            Notice::Capture {
                payment: id(),
                amount: usd_money(3000),
            },
        ),
        (
            refunded(700),
            Notice::Refund {
                payment: id(),
                amount: usd_money(700),
            },
        ),
    ];
    for (outcome, notice) in told {
        given(until_confirmed())
            .when(Input::Payment(outcome))
            .then(tell(notice));
    }
    given(then(until_confirmed(), [cancelled()]))
        .when(Input::Payment(own(voided())))
        .then(tell(Notice::Void { payment: id() }));
}

#[test]
fn a_payment_voided_by_somebody_else_cancels_the_order_before_it_is_shipped() {
    let notice = || Notice::Void { payment: id() };
    for inputs in [
        until_requested(),
        until_confirmed(),
        then(until_requested(), [Input::TimedOut(id())]),
    ] {
        let cancel = command::<Order>("cancel", json!({ "reason": "payment_voided" }));
        given(inputs)
            .when(Input::Payment(voided()))
            .then(tell(notice()).send::<Order>(&id(), cancel));
    }
    for end in [order_shipped(), cancelled()] {
        given(then(until_confirmed(), [end]))
            .when(Input::Payment(voided()))
            .then(tell(notice()));
    }
}

#[test]
fn an_order_without_a_later_part_is_left_alone() {
    let delivered = of_order("deliver", json!({}), "delivered", json!({}));
    given(then(until_confirmed(), [order_shipped()]))
        .when(delivered)
        .then_nothing();
}

#[test]
fn what_others_ask_of_customers_and_products_concerns_no_order() {
    let others = |outcome: Outcome<Product>| Checkout::instance(&Input::Product(outcome));
    let release = committed::<Product>(sku("P1"), of_stock("release"), []);
    assert_eq!(others(release.clone()), None);
    assert_eq!(
        others(own(release)),
        None,
        "the process needs no answer to a release"
    );
    assert_eq!(others(committed::<Product>(sku("P1"), reserve(1), [])), None);
    let reason = json!({ "reason": "r" });
    let block = committed::<Customer>(customer(1), command::<Customer>("block", reason), []);
    assert_eq!(Checkout::instance(&Input::Customer(block)), None);
}

#[test]
fn lines_of_one_product_are_one_demand_up_to_the_limits() {
    let data = json!({
        "customer": customer(1), "currency": "USD", "payment_method": "tok_ok",
        "lines": vec![json!({ "sku": "P1", "quantity": 1_000_000, "unit_price": 0 }); 100],
    });
    let place = fixture::command::<Order>("place", data);
    let placed = annals::kit::given::<Order>([])
        .when(place.clone())
        .answer()
        .unwrap();
    let placed = Input::Order(committed::<Order>(id(), place, placed));
    let reserve = json!({ "order": id(), "quantity": 100_000_000, "unit_price": usd(0) });
    given([placed])
        .when(admitted())
        .then(Actions::none().send::<Product>(&sku("P1"), command::<Product>("reserve", reserve)));
}
