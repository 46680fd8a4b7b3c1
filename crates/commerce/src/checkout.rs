//! The checkout: the process that takes an order from placed to confirmed, and after the parcel left, to paid.
//!
//! ```text
//! placed ─► admit ─► reserve, reserve, … ─► request ─► ask the gateway ─► confirm
//! shipped ─► ship, ship, … ─► capture
//! rejected, cancelled ─► release, release, …, void ─► (void refused because captured) refund
//! ```
//!
//! Customer, products, payment and order are streams without a common order, so anything may be seen before
//! anything of another stream. What keeps it right:
//!
//! - *the order's stream arbitrates*: whether an order is confirmed, rejected or cancelled is decided there, and the
//!   process only asks. It undoes its work when it reads `order.rejected` or `order.cancelled`, never before;
//! - *undoing follows doing within each stream*: commands of one instance to one stream go in order, so a `release`
//!   or a `void` comes after the `reserve` or `request` that was sent before it, answered or not;
//! - *nothing is begun for an order that is being turned down.*

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::time::Duration;

use annals_domain::{self as annals, Actions, Aggregate, Outcome, Process, ProcessContext, Refusal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::customer::{self, Customer};
use crate::gateway::{Authorize, AuthorizePayment, Notice, TellGateway};
use crate::limits::{CustomerId, OrderId, PaymentMethod, ReserveQuantity, Sku, clamped, reason};
use crate::money::{Currency, Money, Price};
use crate::order::{self, Order};
use crate::payment::{self, Payment};
use crate::product::{self, Product};

/// What the checkout reacts to.
#[derive(Debug, annals::Input)]
pub enum Input {
    /// What became of an order.
    Order(Outcome<Order>),
    /// What became of an admission.
    Customer(Outcome<Customer>),
    /// What became of a reservation.
    Product(Outcome<Product>),
    /// What became of a payment.
    Payment(Outcome<Payment>),
    /// The order has waited long enough.
    #[input(timer)]
    TimedOut(OrderId),
}

/// The checkout's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long an order may wait for its confirmation (`commerce.checkout_timeout_s`, 900 s).
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(900),
        }
    }
}

/// The checkout of one order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkout {
    /// What the order's stream has said so far.
    stage: Stage,
    /// What is to be done; there from `order.placed` on.
    plan: Option<Plan>,
    /// For how many demands, in order, a `reserve` was ever sent.
    reserves_sent: usize,
    /// How many of them were answered with yes.
    reserved: usize,
    /// Whether `payments/request` was ever sent.
    requested: bool,
    /// Whether `orders/reject` was ever sent.
    rejecting: bool,
    /// What the payment's stream has said so far, in the payment's own terms.
    payment: Payment,
    /// Which products have left the house.
    shipped: BTreeSet<Sku>,
}

/// How far the order has come, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Stage {
    #[default]
    Unknown,
    Placed,
    Confirmed,
    /// Rejected or cancelled.
    Closed,
    Shipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Plan {
    customer: CustomerId,
    total: Money,
    method: PaymentMethod,
    /// By product, in the order of the lines; at most 100.
    demands: Vec<Demand>,
}

/// All lines of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Demand {
    sku: Sku,
    quantity: ReserveQuantity,
    unit_price: Price,
}

impl Plan {
    fn of(placed: &order::Placed) -> Self {
        let currency = placed.currency;
        let mut demands = Vec::<Demand>::new();
        for line in &placed.lines {
            let pieces = i128::from(line.quantity.get());
            match demands.iter_mut().find(|demand| demand.sku == line.sku) {
                Some(demand) => demand.quantity = clamped(i128::from(demand.quantity.get()) + pieces),
                None => demands.push(Demand::new(line, currency)),
            }
        }
        Self {
            customer: placed.customer,
            total: Money {
                amount: placed.total,
                currency,
            },
            method: placed.payment_method.clone(),
            demands,
        }
    }
}

impl Demand {
    fn new(line: &order::PlacedLine, currency: Currency) -> Self {
        Self {
            sku: line.sku.clone(),
            quantity: clamped(line.quantity.get().into()),
            unit_price: Price {
                amount: line.unit_price,
                currency,
            },
        }
    }
}

impl Process for Checkout {
    const NAME: &'static str = "checkout";
    type Id = OrderId;
    type Input = Input;
    type Settings = Settings;

    /// Of customers and products only the answers to own commands matter; releases need none.
    fn instance(input: &Input) -> Option<OrderId> {
        match input {
            Input::Order(outcome) => Some(outcome.key),
            Input::Payment(outcome) => Some(outcome.key),
            Input::TimedOut(order) => Some(*order),
            Input::Customer(outcome) => match &outcome.command {
                customer::Command::Admit(c) if outcome.own => Some(c.order),
                customer::Command::Admit(_)
                | customer::Command::Register(_)
                | customer::Command::ChangeContact(_)
                | customer::Command::Block(_)
                | customer::Command::Unblock(_)
                | customer::Command::Erase(_) => None,
            },
            Input::Product(outcome) => match &outcome.command {
                product::Command::Reserve(c) if outcome.own => Some(c.order),
                product::Command::Ship(c) if outcome.own => Some(c.order),
                product::Command::Reserve(_)
                | product::Command::Ship(_)
                | product::Command::Release(_)
                | product::Command::Register(_)
                | product::Command::Reprice(_)
                | product::Command::Receive(_)
                | product::Command::Adjust(_)
                | product::Command::Discontinue(_)
                | product::Command::Reinstate(_) => None,
            },
        }
    }

    fn react(&mut self, input: &Input, ctx: &ProcessContext<'_, Self>) -> Actions {
        let order = *ctx.id;
        match input {
            Input::Order(outcome) => self.on_order(order, outcome, ctx.settings),
            Input::Customer(outcome) => self.on_customer(order, outcome),
            Input::Product(outcome) => self.on_product(order, outcome),
            Input::Payment(outcome) => self.on_payment(order, outcome),
            Input::TimedOut(_) => self.reject(order, "timeout"),
        }
    }

    fn step(&self) -> &'static str {
        let payment = self.payment.status();
        match self.stage {
            Stage::Unknown => "waiting for the order",
            Stage::Closed => "closed",
            Stage::Confirmed => "confirmed",
            Stage::Shipped if payment == Some(payment::Status::Captured) => "captured",
            Stage::Shipped if self.all_shipped() => "capturing",
            Stage::Shipped => "shipping",
            Stage::Placed if self.rejecting => "rejecting",
            Stage::Placed if payment == Some(payment::Status::Authorized) => "confirming",
            Stage::Placed if payment == Some(payment::Status::Requested) => "waiting for the gateway",
            Stage::Placed if self.requested => "requesting the payment",
            Stage::Placed if self.reserves_sent > 0 => "reserving",
            Stage::Placed => "waiting for the customer's admission",
        }
    }
}

/// What each stream's news lead to.
impl Checkout {
    /// Refusals of `confirm`, `reject` and `cancel` mean nothing: the event that was faster decides.
    fn on_order(&mut self, order: OrderId, outcome: &Outcome<Order>, settings: &Settings) -> Actions {
        each_event(outcome, |event| match event {
            order::Event::Placed(e) => self.begin(order, e, settings),
            order::Event::Confirmed(_) => {
                self.stage = Stage::Confirmed;
                Actions::none().withdraw_timer(Input::TIMED_OUT)
            }
            order::Event::Rejected(_) | order::Event::Cancelled(_) => self.close(order),
            order::Event::Shipped(_) => self.ship(order),
            order::Event::Delivered | order::Event::Returned(_) => Actions::none(),
        })
    }

    fn on_customer(&mut self, order: OrderId, outcome: &Outcome<Customer>) -> Actions {
        match &outcome.result {
            Ok(_) if self.reserves_sent == 0 => self.go_on(order),
            Ok(_) => Actions::none(),
            Err(refusal) => self.reject(order, &refusal.code),
        }
    }

    fn on_product(&mut self, order: OrderId, outcome: &Outcome<Product>) -> Actions {
        let shipping = matches!(outcome.command, product::Command::Ship(_));
        match &outcome.result {
            Ok(_) if shipping => self.shipped(order, &outcome.key),
            Err(refusal) if shipping => stuck(&format!("ship of {}", outcome.key), refusal),
            Ok(_) if self.awaits(&outcome.key) => {
                self.reserved += 1;
                self.go_on(order)
            }
            Ok(_) => Actions::none(),
            Err(refusal) => self.reject(order, &refusal.code),
        }
    }

    fn on_payment(&mut self, order: OrderId, outcome: &Outcome<Payment>) -> Actions {
        if let Err(refusal) = &outcome.result {
            return self.on_payment_refused(order, &outcome.command, refusal);
        }
        each_event(outcome, |event| {
            self.payment.evolve(event);
            let tell = |notice| Actions::none().perform::<TellGateway>(&notice);
            match event {
                payment::Event::Requested(e) => self.authorize(order, e),
                payment::Event::Authorized(_) => self.confirm(order),
                payment::Event::Declined(_) => self.reject(order, "payment_declined"),
                payment::Event::Captured(e) => tell(Notice::Capture {
                    payment: order,
                    amount: e.amount,
                }),
                payment::Event::Refunded(e) => tell(Notice::Refund {
                    payment: order,
                    amount: e.amount,
                }),
                payment::Event::Voided(_) => self.cancel(order, tell(Notice::Void { payment: order })),
            }
        })
    }

    /// `authorize` and `decline` are the gateway's answers: refused, they came too late. A void is refused because
    /// the money was taken by hand; the payment's news up to the refusal say how much of it is left.
    fn on_payment_refused(
        &mut self,
        order: OrderId,
        command: &payment::Command,
        refusal: &Refusal,
    ) -> Actions {
        match command {
            payment::Command::Request(_) => self.reject(order, &refusal.code),
            payment::Command::Void => match self.payment.refundable() {
                Some(amount) => {
                    let refund = payment::Command::Refund(payment::Refund { amount });
                    Actions::none().send::<Payment>(&order, refund)
                }
                None => Actions::none(),
            },
            payment::Command::Capture => stuck("capture", refusal),
            payment::Command::Refund(_) => stuck("refund", refusal),
            payment::Command::Authorize(_) | payment::Command::Decline(_) => Actions::none(),
        }
    }
}

/// What is to be done about it.
impl Checkout {
    /// Whether the order still waits, and was not given up. Only then anything is begun.
    fn is_open(&self) -> bool {
        self.stage == Stage::Placed && !self.rejecting
    }

    fn begin(&mut self, order: OrderId, placed: &order::Placed, settings: &Settings) -> Actions {
        self.stage = Stage::Placed;
        self.plan = Some(Plan::of(placed));
        let admission = customer::Admission {
            order,
            currency: placed.currency,
        };
        Actions::none()
            .wake(Input::TIMED_OUT, settings.timeout)
            .send::<Customer>(&placed.customer, customer::Command::Admit(admission))
    }

    /// The next product; after the last one the payment.
    fn go_on(&mut self, order: OrderId) -> Actions {
        let Some(plan) = self.plan.as_ref().filter(|_| self.is_open()) else {
            return Actions::none();
        };
        match plan.demands.get(self.reserves_sent) {
            Some(demand) => {
                self.reserves_sent += 1;
                let reservation = product::Reservation {
                    order,
                    quantity: demand.quantity,
                    unit_price: demand.unit_price,
                };
                Actions::none().send::<Product>(&demand.sku, product::Command::Reserve(reservation))
            }
            None => {
                self.requested = true;
                let request = payment::Request {
                    customer: plan.customer,
                    amount: plan.total,
                    method: plan.method.clone(),
                };
                Actions::none().send::<Payment>(&order, payment::Command::Request(request))
            }
        }
    }

    /// Whether the reservation of `sku` is the one whose answer is due.
    fn awaits(&self, sku: &Sku) -> bool {
        let due = self
            .plan
            .as_ref()
            .and_then(|plan| plan.demands.get(self.reserved));
        self.reserved < self.reserves_sent && due.is_some_and(|demand| demand.sku == *sku)
    }

    fn authorize(&self, order: OrderId, requested: &payment::Request) -> Actions {
        if !self.is_open() {
            return Actions::none();
        }
        Actions::none().perform::<AuthorizePayment>(&Authorize {
            payment: order,
            amount: requested.amount,
            method: requested.method.clone(),
        })
    }

    fn confirm(&self, order: OrderId) -> Actions {
        if !self.is_open() {
            return Actions::none();
        }
        Actions::none().send::<Order>(&order, order::Command::Confirm)
    }

    /// Asks once that the order be turned down. Undoing waits for the order's answer.
    fn reject(&mut self, order: OrderId, code: &str) -> Actions {
        if !self.is_open() {
            return Actions::none();
        }
        self.rejecting = true;
        let because = order::Because { reason: reason(code) };
        Actions::none().send::<Order>(&order, order::Command::Reject(because))
    }

    /// Somebody let the money go: the order cannot be kept, unless it has left already. The process itself voids
    /// only what belongs to an order that it has seen closed.
    fn cancel(&self, order: OrderId, actions: Actions) -> Actions {
        match self.stage {
            Stage::Placed | Stage::Confirmed => {
                let because = order::Because {
                    reason: reason("payment_voided"),
                };
                actions.send::<Order>(&order, order::Command::Cancel(because))
            }
            Stage::Unknown | Stage::Closed | Stage::Shipped => actions,
        }
    }

    /// Undoes everything that was ever begun, once.
    fn close(&mut self, order: OrderId) -> Actions {
        if self.stage == Stage::Closed {
            return Actions::none();
        }
        self.stage = Stage::Closed;
        let mut actions = Actions::none().withdraw_timer(Input::TIMED_OUT);
        for demand in self.demands().iter().take(self.reserves_sent) {
            let release = product::Command::Release(product::OfOrder { order });
            actions = actions.send::<Product>(&demand.sku, release);
        }
        actions = actions.withdraw_effect::<AuthorizePayment>();
        if self.requested && self.payment.status() != Some(payment::Status::Declined) {
            actions = actions.send::<Payment>(&order, payment::Command::Void);
        }
        actions
    }

    fn ship(&mut self, order: OrderId) -> Actions {
        self.stage = Stage::Shipped;
        self.demands().iter().fold(Actions::none(), |actions, demand| {
            let ship = product::Command::Ship(product::OfOrder { order });
            actions.send::<Product>(&demand.sku, ship)
        })
    }

    /// After the last product left, takes the money.
    fn shipped(&mut self, order: OrderId, sku: &Sku) -> Actions {
        let news = self.shipped.insert(sku.clone());
        if news && self.all_shipped() {
            Actions::none().send::<Payment>(&order, payment::Command::Capture)
        } else {
            Actions::none()
        }
    }

    fn all_shipped(&self) -> bool {
        self.demands()
            .iter()
            .all(|demand| self.shipped.contains(&demand.sku))
    }

    fn demands(&self) -> &[Demand] {
        self.plan.as_ref().map_or(&[], |plan| &plan.demands)
    }
}

/// What each event of a commit leads to, in order; a refusal has none.
fn each_event<A: Aggregate>(outcome: &Outcome<A>, react: impl FnMut(&A::Event) -> Actions) -> Actions {
    let events = outcome.result.as_deref().unwrap_or_default();
    events.iter().map(react).flat_map(Actions::into_vec).collect()
}

fn stuck(what: &str, refusal: &Refusal) -> Actions {
    Actions::none().stuck(format!("{what} was refused: {}", refusal.code))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
