//! Inputs and actions of one order's checkout, by the names that the tests use.

use annals_domain::kit::{GivenProcess, committed, given_process, own, refused};
use serde_json::json;

use super::super::*;
use crate::fixture::{command, customer, event, order, sku, usd};

pub(super) const TIMEOUT: Duration = Duration::from_secs(900);

pub(super) fn id() -> OrderId {
    order(1)
}
/// Lines of P1, P2 and P1 again.
pub(super) fn placed() -> Input {
    let line = |n: i64, sku: &str, quantity: i64| json!({ "line": n, "sku": sku, "quantity": quantity, "unit_price": 500, "amount": 500 * quantity });
    let data = json!({
        "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "payment_method": "tok_ok",
        "total": 3000, "units": 6, "lines": [line(1, "P1", 3), line(2, "P2", 2), line(3, "P1", 1)],
    });
    let place = json!({
        "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "payment_method": "tok_ok",
        "lines": [{ "sku": "P1", "quantity": 3, "unit_price": 500 }],
    });
    of_order("place", place, "placed", data)
}
pub(super) fn of_order(
    name: &str,
    data: serde_json::Value,
    happened: &str,
    event_data: serde_json::Value,
) -> Input {
    let event = event::<Order>(&format!("order.{happened}"), event_data);
    Input::Order(committed::<Order>(id(), command::<Order>(name, data), [event]))
}
pub(super) fn sums() -> serde_json::Value {
    json!({ "customer": customer(1), "currency": "USD", "ordered_on": "1996-01-02", "total": 3000, "units": 6 })
}
pub(super) fn confirmed() -> Input {
    of_order("confirm", json!({}), "confirmed", sums())
}
pub(super) fn cancelled() -> Input {
    let mut data = sums();
    data["reason"] = "changed my mind".into();
    of_order(
        "cancel",
        json!({ "reason": "changed my mind" }),
        "cancelled",
        data,
    )
}
pub(super) fn rejected() -> Input {
    of_order(
        "reject",
        json!({ "reason": "r" }),
        "rejected",
        json!({ "reason": "r" }),
    )
}
pub(super) fn order_shipped() -> Input {
    let parcel = json!({ "carrier": "DHL", "tracking": "1" });
    of_order("ship", parcel.clone(), "shipped", parcel)
}
pub(super) fn order_refused(asked: order::Command, status: order::Status) -> Input {
    Input::Order(refused::<Order>(
        id(),
        asked,
        order::Rejection::WrongStatus { status },
    ))
}

pub(super) fn admit() -> customer::Command {
    command::<Customer>("admit", json!({ "order": id(), "currency": "USD" }))
}
pub(super) fn admitted() -> Input {
    let event = event::<Customer>(
        "customer.order_admitted",
        json!({ "order": id(), "currency": "USD" }),
    );
    Input::Customer(own(committed::<Customer>(customer(1), admit(), [event])))
}

pub(super) fn reserve(quantity: i64) -> product::Command {
    let data = json!({ "order": id(), "quantity": quantity, "unit_price": usd(500) });
    command::<Product>("reserve", data)
}
pub(super) fn reserved(of: &str, quantity: i64) -> Input {
    let data = json!({ "order": id(), "quantity": quantity, "unit_price": usd(500) });
    let event = event::<Product>("product.stock_reserved", data);
    Input::Product(own(committed::<Product>(sku(of), reserve(quantity), [event])))
}
pub(super) fn reserve_refused(of: &str, quantity: i64) -> Input {
    let rejection = product::Rejection::OutOfStock { available: 1 };
    Input::Product(refused::<Product>(sku(of), reserve(quantity), rejection))
}
pub(super) fn of_stock(name: &str) -> product::Command {
    command::<Product>(name, json!({ "order": id() }))
}
pub(super) fn stock_shipped(of: &str, quantity: i64) -> Input {
    let event = event::<Product>(
        "product.stock_shipped",
        json!({ "order": id(), "quantity": quantity }),
    );
    Input::Product(own(committed::<Product>(sku(of), of_stock("ship"), [event])))
}

pub(super) fn request() -> payment::Command {
    command::<Payment>(
        "request",
        json!({ "customer": customer(1), "amount": usd(3000), "method": "tok_ok" }),
    )
}
pub(super) fn of_payment(
    asked: payment::Command,
    happened: &str,
    data: serde_json::Value,
) -> Outcome<Payment> {
    committed::<Payment>(
        id(),
        asked,
        [event::<Payment>(&format!("payment.{happened}"), data)],
    )
}
pub(super) fn requested() -> Input {
    let data = json!({ "customer": customer(1), "amount": usd(3000), "method": "tok_ok" });
    Input::Payment(own(of_payment(request(), "requested", data)))
}
pub(super) fn authorized() -> Input {
    let data = json!({ "reference": "A-1" });
    Input::Payment(own(of_payment(
        command::<Payment>("authorize", data.clone()),
        "authorized",
        data,
    )))
}
pub(super) fn declined() -> Input {
    let data = json!({ "reason": "no funds" });
    Input::Payment(own(of_payment(
        command::<Payment>("decline", data.clone()),
        "declined",
        data,
    )))
}
pub(super) fn money(amount: i64) -> serde_json::Value {
    json!({ "customer": customer(1), "amount": usd(amount) })
}
pub(super) fn captured() -> Outcome<Payment> {
    of_payment(payment::Command::Capture, "captured", money(3000))
}
pub(super) fn voided() -> Outcome<Payment> {
    of_payment(payment::Command::Void, "voided", money(3000))
}
pub(super) fn refund(amount: i64) -> payment::Command {
    command::<Payment>("refund", json!({ "amount": usd(amount) }))
}
pub(super) fn refunded(amount: i64) -> Outcome<Payment> {
    of_payment(refund(amount), "refunded", money(amount))
}
pub(super) fn payment_refused(asked: payment::Command, status: payment::Status) -> Input {
    Input::Payment(refused::<Payment>(
        id(),
        asked,
        payment::Rejection::WrongStatus { status },
    ))
}

pub(super) fn given(inputs: impl IntoIterator<Item = Input>) -> GivenProcess<Checkout> {
    given_process::<Checkout>(Settings::default()).after(inputs)
}
pub(super) fn until_requested() -> Vec<Input> {
    vec![
        placed(),
        admitted(),
        reserved("P1", 4),
        reserved("P2", 2),
        requested(),
    ]
}
pub(super) fn until_confirmed() -> Vec<Input> {
    let mut inputs = until_requested();
    inputs.extend([authorized(), confirmed()]);
    inputs
}
pub(super) fn then(mut inputs: Vec<Input>, more: impl IntoIterator<Item = Input>) -> Vec<Input> {
    inputs.extend(more);
    inputs
}

pub(super) fn send_order(name: &str, why: &str) -> Actions {
    Actions::none().send::<Order>(&id(), command::<Order>(name, json!({ "reason": why })))
}
pub(super) fn reject(why: &str) -> Actions {
    send_order("reject", why)
}
pub(super) fn send_payment(command: payment::Command) -> Actions {
    Actions::none().send::<Payment>(&id(), command)
}
pub(super) fn tell(notice: Notice) -> Actions {
    Actions::none().perform::<TellGateway>(&notice)
}
/// Undoing: the timer, a release for each of these products, the ask, and the payment if there may be one.
pub(super) fn undone(products: &[&str], void: bool) -> Actions {
    let start = Actions::none().withdraw_timer("timed_out");
    let released = products.iter().fold(start, |actions, of| {
        actions.send::<Product>(&sku(of), of_stock("release"))
    });
    let withdrawn = released.withdraw_effect::<AuthorizePayment>();
    if void {
        withdrawn.send::<Payment>(&id(), payment::Command::Void)
    } else {
        withdrawn
    }
}
