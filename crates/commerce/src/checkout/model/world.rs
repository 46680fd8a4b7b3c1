//! The streams, the instances and what is under way between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annals_domain::kit::{self, Dice, personal};
use annals_domain::{Action, AggregateKey as _, Command as _, Context, Effect as _, SendCommand};
use serde_json::{Value, json};

use super::super::*;
use super::gateway::Books;
use crate::fixture::{command, customer, order, sku, usd, version};
use crate::gateway::Verdict;

/// One stream: its state, its records as the process reads them, and how far it has read.
#[derive(Debug)]
pub(super) struct Stream<A: Aggregate> {
    pub(super) key: A::Key,
    pub(super) state: A,
    events: u64,
    records: Vec<Outcome<A>>,
    read: usize,
    keys: BTreeSet<u64>,
}

impl<A: Aggregate> Stream<A> {
    fn new(key: A::Key) -> Self {
        Self {
            key,
            state: A::default(),
            events: 0,
            records: Vec::new(),
            read: 0,
            keys: BTreeSet::new(),
        }
    }

    /// Asks, once per key; the process's own commands have one. Whether something happened.
    pub(super) fn ask(&mut self, command: &A::Command, key: Option<u64>) -> bool {
        if key.is_some_and(|key| !self.keys.insert(key)) {
            return false;
        }
        let ctx = Context::new(&self.key, kit::time(), version(self.events));
        let result = self.state.decide(command, &ctx);
        for event in result.iter().flatten() {
            self.state.evolve(event);
            self.events += 1;
        }
        let happened = result.as_ref().is_ok_and(|events| !events.is_empty());
        // Of others, a process sees neither refusals nor answers that changed nothing.
        if key.is_some() || happened {
            let result = result.map_err(refusal);
            self.records.push(Outcome {
                key: self.key.clone(),
                command: command.clone(),
                result,
                own: key.is_some(),
            });
        }
        happened
    }

    fn next(&mut self) -> Outcome<A> {
        self.read += 1;
        self.records[self.read - 1].clone()
    }

    fn has_news(&self) -> bool {
        self.read < self.records.len()
    }

    fn send(&mut self, sent: &SendCommand, key: u64) {
        let command = A::Command::read(sent.command, sent.data.get().as_bytes())
            .unwrap()
            .unwrap();
        self.ask(&command, Some(key));
    }
}

fn refusal<R: annals_domain::Rejection>(rejection: R) -> Refusal {
    let mut detail = Vec::new();
    rejection
        .write_detail(&mut serde_json::Serializer::new(&mut detail))
        .unwrap();
    let detail = serde_json::from_slice(&detail).unwrap();
    Refusal {
        code: rejection.code().to_owned(),
        detail,
    }
}

/// One checkout and its outbox.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) state: Checkout,
    pub(super) stuck: Vec<String>,
    timer: bool,
    queues: BTreeMap<String, VecDeque<(u64, SendCommand)>>,
    asks: Vec<Ask>,
    notices: Vec<(u64, Notice)>,
}

/// An authorization under way. Once it was sent it cannot be withdrawn, and arrives whenever the network likes.
#[derive(Debug)]
struct Ask {
    key: u64,
    payload: Authorize,
    sent: bool,
    arrived: bool,
}

impl Ask {
    /// A gateway that hangs keeps what it was asked and never answers.
    fn hangs(&self) -> bool {
        self.arrived && self.payload.method.as_str() == "tok_hang"
    }
}

/// What can happen next, whoever has to do it.
#[derive(Debug, Clone)]
pub(super) enum Step {
    ReadOrder(usize),
    ReadPayment(usize),
    ReadProduct(usize),
    ReadCustomer,
    Send(usize, String),
    Ask(usize, usize),
    Tell(usize, usize),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) orders: Vec<Stream<Order>>,
    pub(super) payments: Vec<Stream<Payment>>,
    pub(super) products: Vec<Stream<Product>>,
    pub(super) customer: Stream<Customer>,
    pub(super) instances: Vec<Instance>,
    pub(super) gateway: Books,
    /// How often people will still interfere.
    pub(super) interference: u32,
    /// Whether somebody moved money by hand.
    pub(super) by_hand: bool,
    pub(super) crashes: u64,
    /// Decides where it crashes, apart from everything else.
    faults: Option<Dice>,
    next_key: u64,
}

impl World {
    /// Good orders, enough stock, and nobody about.
    pub(super) fn quiet() -> Self {
        Self::with(["tok_ok", "tok_ok"], [10, 10, 10], 0, None)
    }

    pub(super) fn new(dice: &mut Dice, faults: bool) -> Self {
        let methods = [
            "tok_ok",
            "tok_ok",
            "tok_ok",
            "tok_ok",
            "tok_ok",
            "tok_flaky",
            "tok_declined",
            "tok_hang",
        ];
        let mut method = || *dice.pick(&methods);
        let methods = [method(), method()];
        let mut stock = || *dice.pick(&[10, 10, 10, 10, 4]);
        let stock = [stock(), stock(), stock()];
        let interference = u32::try_from(dice.number(0..=30)).unwrap();
        let faults = faults.then(|| Dice::new(dice.clone().bits()));
        Self::with(methods, stock, interference, faults)
    }

    fn with(methods: [&str; 2], stock: [i64; 3], interference: u32, faults: Option<Dice>) -> Self {
        let mut world = Self {
            orders: vec![Stream::new(order(1)), Stream::new(order(2))],
            payments: vec![Stream::new(order(1)), Stream::new(order(2))],
            products: ["P0", "P1", "P2"].map(|of| Stream::new(sku(of))).into(),
            customer: Stream::new(customer(1)),
            instances: vec![Instance::default(), Instance::default()],
            gateway: Books::default(),
            interference,
            by_hand: false,
            crashes: 0,
            faults,
            next_key: 0,
        };
        let contact = customer::Contact {
            name: personal("a"),
            email: personal("b"),
            address: None,
        };
        world.customer.ask(&customer::Command::Register(contact), None);
        for (product, quantity) in world.products.iter_mut().zip(stock) {
            product.ask(
                &command::<Product>("register", json!({ "name": "Bolt", "price": usd(500) })),
                None,
            );
            let receipt = json!({ "quantity": quantity, "reference": "D-1" });
            product.ask(&command::<Product>("receive", receipt), None);
        }
        for (n, method) in methods.into_iter().enumerate() {
            world.orders[n].ask(&command::<Order>("place", place(n, method)), None);
        }
        world
    }

    pub(super) fn held_by(&self, order: OrderId) -> BTreeMap<Sku, i64> {
        let held = self
            .products
            .iter()
            .filter_map(|p| Some((p.key.clone(), p.state.held_by(order)?.get())));
        held.collect()
    }

    pub(super) fn demanded(&self, n: usize) -> BTreeMap<Sku, i64> {
        let demands = self.instances[n].state.demands().iter();
        demands
            .map(|demand| (demand.sku.clone(), demand.quantity.get()))
            .collect()
    }

    /// All that counts at the end, for comparison.
    pub(super) fn picture(&self) -> String {
        let instances: Vec<_> = self.instances.iter().map(|i| (&i.state, &i.stuck)).collect();
        let states = (
            self.orders.iter().map(|o| &o.state).collect::<Vec<_>>(),
            self.payments.iter().map(|p| &p.state).collect::<Vec<_>>(),
            self.products.iter().map(|p| &p.state).collect::<Vec<_>>(),
        );
        let accounts: Vec<_> = self.orders.iter().map(|o| self.gateway.account(o.key)).collect();
        format!("{states:#?}\n{instances:#?}\n{accounts:?}")
    }

    /// Everything that can happen next by itself.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let news = |has: bool, step: Step| has.then_some(step);
        steps.extend(news(self.customer.has_news(), Step::ReadCustomer));
        for (n, stream) in self.orders.iter().enumerate() {
            steps.extend(news(stream.has_news(), Step::ReadOrder(n)));
        }
        for (n, stream) in self.payments.iter().enumerate() {
            steps.extend(news(stream.has_news(), Step::ReadPayment(n)));
        }
        for (n, stream) in self.products.iter().enumerate() {
            steps.extend(news(stream.has_news(), Step::ReadProduct(n)));
        }
        for (i, instance) in self.instances.iter().enumerate() {
            let waiting = instance.queues.iter().filter(|(_, queue)| !queue.is_empty());
            steps.extend(waiting.map(|(stream, _)| Step::Send(i, stream.clone())));
            let asks = instance.asks.iter().enumerate().filter(|(_, ask)| !ask.hangs());
            steps.extend(asks.map(|(k, _)| Step::Ask(i, k)));
            // Notices of one payment in order; a refund that overtook its capture would only be told again.
            if !instance.notices.is_empty() {
                steps.push(Step::Tell(i, 0));
            }
        }
        steps
    }

    pub(super) fn take(&mut self, step: Step, dice: &mut Dice) {
        match step {
            Step::ReadOrder(n) => {
                let outcome = self.orders[n].next();
                self.react(Input::Order(outcome));
            }
            Step::ReadPayment(n) => {
                let outcome = self.payments[n].next();
                self.react(Input::Payment(outcome));
            }
            Step::ReadProduct(n) => {
                let outcome = self.products[n].next();
                self.react(Input::Product(outcome));
            }
            Step::ReadCustomer => {
                let outcome = self.customer.next();
                self.react(Input::Customer(outcome));
            }
            Step::Send(i, stream) => {
                let (key, sent) = self.instances[i]
                    .queues
                    .get_mut(&stream)
                    .unwrap()
                    .pop_front()
                    .unwrap();
                self.send(&sent, key);
                if self.crashes_here() {
                    self.send(&sent, key);
                }
            }
            Step::Ask(i, k) => self.authorize(i, k, dice),
            Step::Tell(i, k) => {
                let (key, notice) = self.instances[i].notices[k].clone();
                let told = self.gateway.tell(&notice, key);
                if told && self.crashes_here() {
                    assert!(self.gateway.tell(&notice, key));
                }
                assert!(told, "in order, the gateway understands every notice");
                self.instances[i].notices.remove(k);
            }
        }
    }

    /// A timer of an order that waits, if there is one, fires early.
    pub(super) fn time_out(&mut self, dice: &mut Dice) {
        let i = usize::from(dice.one_in(2));
        self.fire(i);
    }

    /// Time passes: all timers fire. Whether there were any.
    pub(super) fn time_out_everything(&mut self) -> bool {
        let fired = [self.fire(0), self.fire(1)];
        fired.contains(&true)
    }

    fn fire(&mut self, i: usize) -> bool {
        let fires = std::mem::take(&mut self.instances[i].timer);
        if fires {
            self.react(Input::TimedOut(self.orders[i].key));
        }
        fires
    }

    fn crashes_here(&mut self) -> bool {
        let crash = self.faults.as_mut().is_some_and(|dice| dice.one_in(3));
        self.crashes += u64::from(crash);
        crash
    }

    fn send(&mut self, sent: &SendCommand, key: u64) {
        match sent.category {
            "order" => find(&mut self.orders, sent).send(sent, key),
            "payment" => find(&mut self.payments, sent).send(sent, key),
            "product" => find(&mut self.products, sent).send(sent, key),
            _ => self.customer.send(sent, key),
        }
    }

    /// It is sent, the gateway hears it, and the answer arrives or has to be asked for again.
    fn authorize(&mut self, i: usize, k: usize, dice: &mut Dice) {
        let ask = &mut self.instances[i].asks[k];
        let flaky = ask.payload.method.as_str() == "tok_flaky" && dice.one_in(3);
        if !std::mem::replace(&mut ask.sent, true) || flaky {
            return;
        }
        let verdict: Verdict = self.gateway.authorize(&ask.payload, ask.key);
        ask.arrived = true;
        if ask.hangs() || dice.one_in(3) {
            return;
        }
        let payload = &ask.payload;
        let answer = SendCommand::to::<Payment>(&payload.payment, &verdict.into());
        self.instances[i].asks.remove(k);
        self.enqueue(i, answer);
    }

    /// One transaction: the state, the outbox and the timers. A crash before it is over changes nothing.
    fn react(&mut self, input: Input) {
        let Some(id) = Checkout::instance(&input) else {
            return;
        };
        let i = self.orders.iter().position(|stream| stream.key == id).unwrap();
        let settings = Settings::default();
        let ctx = ProcessContext {
            id: &id,
            time: kit::time(),
            settings: &settings,
        };
        if self.crashes_here() {
            let stored = serde_json::to_string(&self.instances[i].state).unwrap();
            let mut lost = self.instances[i].state.clone();
            lost.react(&input, &ctx);
            self.instances[i].state = serde_json::from_str(&stored).unwrap();
        }
        let actions = self.instances[i].state.react(&input, &ctx);
        for action in actions.into_vec() {
            self.note(i, action);
        }
    }

    fn note(&mut self, i: usize, action: Action) {
        let key = self.fresh();
        let instance = &mut self.instances[i];
        match action {
            Action::Send(sent) => self.enqueue(i, sent),
            Action::Wake {
                timer: Input::TIMED_OUT,
                ..
            } => instance.timer = true,
            Action::WithdrawTimer(Input::TIMED_OUT) => instance.timer = false,
            Action::Perform { effect, payload } if effect == AuthorizePayment::NAME => {
                let payload = serde_json::from_str(payload.get()).unwrap();
                instance.asks.push(Ask {
                    key,
                    payload,
                    sent: false,
                    arrived: false,
                });
            }
            Action::Perform { effect, payload } if effect == TellGateway::NAME => {
                instance
                    .notices
                    .push((key, serde_json::from_str(payload.get()).unwrap()));
            }
            Action::WithdrawEffect(effect) if effect == AuthorizePayment::NAME => {
                instance.asks.retain(|ask| ask.sent);
            }
            Action::Stuck(why) => instance.stuck.push(why),
            other @ (Action::Wake { .. }
            | Action::WithdrawTimer(_)
            | Action::Perform { .. }
            | Action::WithdrawEffect(_)) => panic!("the checkout has no such action: {other:?}"),
        }
    }

    fn enqueue(&mut self, i: usize, sent: SendCommand) {
        let key = self.fresh();
        let stream = format!("{}-{}", sent.category, sent.key);
        self.instances[i]
            .queues
            .entry(stream)
            .or_default()
            .push_back((key, sent));
    }

    fn fresh(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }
}

fn find<'a, A: Aggregate>(streams: &'a mut [Stream<A>], sent: &SendCommand) -> &'a mut Stream<A> {
    let stream = streams.iter_mut().find(|stream| stream.key.to_key() == sent.key);
    stream.expect("a command goes to a stream of this world")
}

/// The first order wants P0, P1 and P0 again; the second P1, P2.
fn place(n: usize, method: &str) -> Value {
    let line = |of: &str, quantity: i64| json!({ "sku": of, "quantity": quantity, "unit_price": 500 });
    let lines = match n {
        0 => vec![line("P0", 2), line("P1", 2), line("P0", 1)],
        _ => vec![line("P1", 3), line("P2", 2)],
    };
    json!({ "customer": customer(1), "currency": "USD", "payment_method": method, "lines": lines })
}
