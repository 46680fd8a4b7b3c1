//! People who interfere: customers, clerks, warehouse and finance, at any moment.

use annals_domain::kit::Dice;
use serde_json::{Value, json};

use super::super::*;
use super::world::World;
use crate::fixture::{command, usd};

impl World {
    /// Somebody does something, allowed by the rules or not.
    pub(super) fn interfere(&mut self, dice: &mut Dice) {
        let n = if dice.one_in(2) { 0 } else { 1 };
        let why = json!({ "reason": "by hand" });
        match dice.number(0..=19) {
            0 if dice.one_in(2) => self.ask_order(n, "cancel", why),
            0..=7 => self.ask_order(n, "ship", json!({ "carrier": "DHL", "tracking": "1" })),
            8 | 9 => self.ask_order(n, "deliver", json!({})),
            10 => self.ask_order(
                n,
                "return",
                json!({ "reason": "r", "lines": [{ "line": 1, "quantity": 1 }] }),
            ),
            11 => self.ask_payment(n, "capture", json!({})),
            12 => self.ask_payment(n, "void", json!({})),
            13 => self.ask_payment(
                n,
                "refund",
                json!({ "amount": usd(*dice.pick(&[500, 1500, 2500])) }),
            ),
            14 if dice.one_in(4) => self.ask_product(dice, "reprice", json!({ "price": usd(501) })),
            15 => self.ask_product(dice, "adjust", json!({ "delta": -2, "reason": "lost" })),
            16 => self.ask_product(dice, "receive", json!({ "quantity": 2, "reference": "D-2" })),
            17 if dice.one_in(4) => self.ask_product(dice, "discontinue", why),
            18 if dice.one_in(4) => self.ask_customer("block", why),
            _ => self.ask_customer("unblock", why),
        }
    }

    fn ask_order(&mut self, n: usize, name: &str, data: Value) {
        self.orders[n].ask(&command::<Order>(name, data), None);
    }

    fn ask_payment(&mut self, n: usize, name: &str, data: Value) {
        let moved = self.payments[n].ask(&command::<Payment>(name, data), None);
        self.by_hand |= moved;
    }

    fn ask_product(&mut self, dice: &mut Dice, name: &str, data: Value) {
        let n = usize::try_from(dice.number(0..=2)).unwrap();
        self.products[n].ask(&command::<Product>(name, data), None);
    }

    fn ask_customer(&mut self, name: &str, data: Value) {
        self.customer.ask(&command::<Customer>(name, data), None);
    }
}
