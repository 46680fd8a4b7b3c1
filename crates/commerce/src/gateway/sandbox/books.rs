//! What the sandbox gateway remembers and decides: payments, first answers by key, and dice. No I/O.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;

use crate::gateway::{Authorize, Notice};
use crate::limits::{Amount, OrderId};
use crate::money::Money;

/// So many payments, and so many first answers, are remembered; beyond that the oldest are forgotten.
pub(super) const REMEMBERED: usize = 250_000;

/// What is asked of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Hold money.
    Authorize(Authorize),
    /// A payment's fate.
    Tell(Notice),
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The money is held.
    Authorized,
    /// An explicit no.
    Declined(&'static str),
    /// Noted.
    Done,
    /// Not now: 409.
    NotYet(&'static str),
    /// Never: 422.
    Refused(&'static str),
}

/// How an answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// As it is.
    Answer(Answer),
    /// Nothing was done: 500.
    Fail,
    /// It was done, but the connection breaks.
    Drop,
    /// Nothing was done, and no answer ever comes.
    Hang,
}

/// What became of a payment here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Authorized(Money),
    Declined,
    Voided,
    /// How much was taken and how much of it given back.
    Captured {
        taken: Money,
        back: Amount,
    },
}

/// How often each thing was asked of a payment, by idempotency keys: a key that is sent again counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Asked {
    authorizations: u32,
    captures: u32,
    voids: u32,
    refunds: u32,
}

/// A payment as these books have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    payment: OrderId,
    /// `authorized`, `declined`, `voided` or `captured`; none if no request was answered with more than a no.
    status: Option<&'static str>,
    /// What is held, or was taken.
    amount: Option<Money>,
    /// How much of it was given back, in minor units.
    refunded: Option<Amount>,
    #[serde(flatten)]
    asked: Asked,
}

/// All that the sandbox knows.
#[derive(Debug)]
pub(super) struct Books {
    fates: Memory<OrderId, Fate>,
    asked: Memory<OrderId, Asked>,
    answers: Memory<Arc<str>, (Request, Answer)>,
    dice: u64,
}

impl Books {
    /// Empty books; the same seed makes `tok_flaky` fail at the same requests.
    pub(super) fn new(seed: u64, remembered: usize) -> Self {
        Self {
            fates: Memory::new(remembered),
            asked: Memory::new(remembered),
            answers: Memory::new(remembered),
            dice: seed,
        }
    }

    /// Decides a request, or gives the first answer to its key again.
    pub(super) fn ask(&mut self, key: &str, request: &Request) -> Reply {
        let method = match request {
            Request::Authorize(ask) => ask.method.as_str(),
            Request::Tell(_) => "",
        };
        if method == "tok_hang" {
            return Reply::Hang;
        }
        let luck = if method == "tok_flaky" { self.roll() % 4 } else { 3 };
        if luck == 0 {
            return Reply::Fail;
        }
        let answer = self.answer(key, request);
        if luck == 1 {
            Reply::Drop
        } else {
            Reply::Answer(answer)
        }
    }

    /// What is answered again is what is final: not "not yet".
    fn answer(&mut self, key: &str, request: &Request) -> Answer {
        match self.answers.get(key) {
            Some((first, answer)) if first == request => return *answer,
            Some(_) => return Answer::Refused("the idempotency key was used for another request"),
            None => {}
        }
        let answer = match request {
            Request::Authorize(ask) => self.authorize(ask),
            Request::Tell(notice) => self.tell(notice),
        };
        if !matches!(answer, Answer::NotYet(_)) {
            self.count(request);
            self.answers.put(key.into(), (request.clone(), answer));
        }
        answer
    }

    fn count(&mut self, request: &Request) {
        let payment = match request {
            Request::Authorize(ask) => ask.payment,
            Request::Tell(
                Notice::Capture { payment, .. } | Notice::Void { payment } | Notice::Refund { payment, .. },
            ) => *payment,
        };
        let mut asked = self.asked.get(&payment).copied().unwrap_or_default();
        let count = match request {
            Request::Authorize(_) => &mut asked.authorizations,
            Request::Tell(Notice::Capture { .. }) => &mut asked.captures,
            Request::Tell(Notice::Void { .. }) => &mut asked.voids,
            Request::Tell(Notice::Refund { .. }) => &mut asked.refunds,
        };
        *count = count.saturating_add(1);
        self.asked.put(payment, asked);
    }

    /// Every payment that was ever asked about, the oldest first.
    pub(super) fn accounts(&self) -> Vec<Account> {
        let account = |payment: &OrderId| {
            let (status, amount, refunded) = match self.fates.get(payment) {
                None => (None, None, None),
                Some(Fate::Authorized(held)) => (Some("authorized"), Some(*held), None),
                Some(Fate::Declined) => (Some("declined"), None, None),
                Some(Fate::Voided) => (Some("voided"), None, None),
                Some(Fate::Captured { taken, back }) => (Some("captured"), Some(*taken), Some(*back)),
            };
            Account {
                payment: *payment,
                status,
                amount,
                refunded,
                asked: self.asked.get(payment).copied().unwrap_or_default(),
            }
        };
        self.asked.order.iter().map(account).collect()
    }

    fn authorize(&mut self, ask: &Authorize) -> Answer {
        let no = match (self.fates.get(&ask.payment), ask.method.as_str()) {
            (Some(Fate::Voided), _) => return Answer::Declined("voided"),
            (Some(Fate::Authorized(amount)), _) if *amount == ask.amount => return Answer::Authorized,
            (Some(_), _) => return Answer::Refused("the payment has another fate already"),
            (None, "tok_ok" | "tok_flaky") => None,
            (None, "tok_declined") => Some("insufficient_funds"),
            (None, _) => Some("unknown_method"),
        };
        let fate = no.map_or(Fate::Authorized(ask.amount), |_| Fate::Declined);
        self.fates.put(ask.payment, fate);
        no.map_or(Answer::Authorized, Answer::Declined)
    }

    /// A payment that is not known here was forgotten: it is the record that says what became of it.
    fn tell(&mut self, notice: &Notice) -> Answer {
        match *notice {
            Notice::Void { payment } => match self.fates.get(&payment) {
                Some(Fate::Captured { .. }) => Answer::Refused("the money was taken"),
                Some(_) | None => self.note(payment, Fate::Voided),
            },
            Notice::Capture { payment, amount } => {
                let captured = Fate::Captured {
                    taken: amount,
                    back: zero(),
                };
                match self.fates.get(&payment) {
                    Some(Fate::Authorized(held)) if held.checked_sub(amount).is_some() => {
                        self.note(payment, captured)
                    }
                    Some(Fate::Captured { taken, .. }) if *taken == amount => Answer::Done,
                    None => self.note(payment, captured),
                    Some(_) => Answer::Refused("no such money is held"),
                }
            }
            Notice::Refund { payment, amount } => match self.fates.get(&payment) {
                Some(Fate::Captured { taken, back }) => {
                    let all = back.get().checked_add(amount.amount.get());
                    let all =
                        all.filter(|all| *all <= taken.amount.get() && taken.currency == amount.currency);
                    match all.and_then(|all| Amount::new(all).ok()) {
                        Some(back) => {
                            let taken = *taken;
                            self.note(payment, Fate::Captured { taken, back })
                        }
                        None => Answer::Refused("more than was taken"),
                    }
                }
                Some(Fate::Authorized(_)) => Answer::NotYet("the money is not taken yet"),
                Some(Fate::Declined | Fate::Voided) => Answer::Refused("no money was taken"),
                None => Answer::Done,
            },
        }
    }

    fn note(&mut self, payment: OrderId, fate: Fate) -> Answer {
        self.fates.put(payment, fate);
        Answer::Done
    }

    /// The next number of the sequence. **Source:** splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom
    /// number generators, 2014).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn zero() -> Amount {
    Amount::new(0).expect("zero is the lower limit")
}

/// A map that forgets what came first when it is full.
#[derive(Debug)]
struct Memory<K, V> {
    limit: usize,
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, V> Memory<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            map: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.map.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{order, usd_money};

    fn authorize(payment: u128, method: &str) -> Request {
        Request::Authorize(Authorize {
            payment: order(payment),
            amount: usd_money(500),
            method: method.parse().unwrap(),
        })
    }

    fn capture(payment: u128, amount: i64) -> Request {
        let (payment, amount) = (order(payment), usd_money(amount));
        Request::Tell(Notice::Capture { payment, amount })
    }

    fn refund(payment: u128, amount: i64) -> Request {
        let (payment, amount) = (order(payment), usd_money(amount));
        Request::Tell(Notice::Refund { payment, amount })
    }

    fn void(payment: u128) -> Request {
        Request::Tell(Notice::Void {
            payment: order(payment),
        })
    }

    fn books() -> Books {
        Books::new(1, 10)
    }

    #[test]
    fn a_refund_waits_for_its_capture_and_never_exceeds_it() {
        let mut books = books();
        let done = Reply::Answer(Answer::Done);
        assert_eq!(
            books.ask("a", &authorize(1, "tok_ok")),
            Reply::Answer(Answer::Authorized)
        );
        assert!(matches!(
            books.ask("r", &refund(1, 200)),
            Reply::Answer(Answer::NotYet(_))
        ));
        assert_eq!(books.ask("c", &capture(1, 500)), done);
        // The key of a "not yet" is not spent, and a first answer takes no second refund.
        assert_eq!(books.ask("r", &refund(1, 200)), done);
        assert_eq!(books.ask("r", &refund(1, 200)), done);
        assert!(matches!(
            books.ask("s", &refund(1, 301)),
            Reply::Answer(Answer::Refused(_))
        ));
        assert_eq!(books.ask("t", &refund(1, 300)), done);
    }

    #[test]
    fn capture_takes_what_is_held() {
        let mut books = books();
        books.ask("a", &authorize(1, "tok_ok"));
        assert!(matches!(
            books.ask("c", &capture(1, 501)),
            Reply::Answer(Answer::Refused(_))
        ));
        books.ask("b", &authorize(2, "tok_declined"));
        assert!(matches!(
            books.ask("d", &capture(2, 500)),
            Reply::Answer(Answer::Refused(_))
        ));
    }

    #[test]
    fn accounts_say_what_became_of_each_payment_and_count_keys_and_not_requests() {
        let mut books = books();
        books.ask("a", &authorize(1, "tok_ok"));
        books.ask("a", &authorize(1, "tok_ok"));
        books.ask("r", &refund(1, 200));
        books.ask("c", &capture(1, 500));
        books.ask("r", &refund(1, 200));
        books.ask("b", &authorize(2, "tok_ok"));
        books.ask("c2", &authorize(2, "tok_ok"));
        books.ask("v", &void(3));
        let accounts = books.accounts();
        let asked = |authorizations, captures, voids, refunds| Asked {
            authorizations,
            captures,
            voids,
            refunds,
        };
        assert_eq!(accounts.len(), 3);
        assert_eq!(
            (accounts[0].status, accounts[0].asked),
            (Some("captured"), asked(1, 1, 0, 1))
        );
        assert_eq!(accounts[0].refunded.map(Amount::get), Some(200));
        assert_eq!(
            (accounts[1].status, accounts[1].asked),
            (Some("authorized"), asked(2, 0, 0, 0))
        );
        assert_eq!(
            (accounts[2].status, accounts[2].asked),
            (Some("voided"), asked(0, 0, 1, 0))
        );
    }

    #[test]
    fn a_key_is_for_one_request() {
        let mut books = books();
        books.ask("a", &authorize(1, "tok_ok"));
        assert!(matches!(
            books.ask("a", &authorize(2, "tok_ok")),
            Reply::Answer(Answer::Refused(_))
        ));
    }

    #[test]
    fn a_void_is_final_even_for_a_payment_that_comes_later() {
        let mut books = books();
        assert_eq!(books.ask("v", &void(1)), Reply::Answer(Answer::Done));
        let late = books.ask("a", &authorize(1, "tok_ok"));
        assert_eq!(late, Reply::Answer(Answer::Declined("voided")));
        assert!(matches!(
            books.ask("c", &capture(1, 500)),
            Reply::Answer(Answer::Refused(_))
        ));
    }

    #[test]
    fn the_oldest_is_forgotten_and_then_the_record_is_believed() {
        let mut books = Books::new(1, 2);
        for payment in 1..=3 {
            books.ask(&format!("a{payment}"), &authorize(payment, "tok_ok"));
        }
        assert_eq!((books.fates.map.len(), books.answers.map.len()), (2, 2));
        assert_eq!(books.fates.get(&order(1)), None);
        assert_eq!(books.ask("c1", &capture(1, 500)), Reply::Answer(Answer::Done));
        assert_eq!((books.fates.map.len(), books.fates.order.len()), (2, 2));
    }

    #[test]
    fn the_same_seed_fails_at_the_same_requests() {
        let run = |seed| {
            let mut books = Books::new(seed, 1_000);
            let ask = |n: u128| books.ask(&n.to_string(), &authorize(n, "tok_flaky"));
            (0..200).map(ask).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        let replies = run(7);
        for kind in [Reply::Fail, Reply::Drop, Reply::Answer(Answer::Authorized)] {
            let count = replies.iter().filter(|reply| **reply == kind).count();
            assert!(count > 20, "{kind:?}: {count} of 200");
        }
    }
}
