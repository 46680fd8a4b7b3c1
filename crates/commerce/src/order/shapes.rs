//! The data of an order's commands and events.

use std::collections::BTreeMap;

use annals_domain::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{amount, sum_of, units_of};
use crate::limits::{
    Amount, Carrier, CustomerId, Day, LineNumber, LineQuantity, Lines, PaymentMethod, Reason, Sku, Tracking,
    UnitPrice, Units, clamped,
};
use crate::money::{Currency, checked_product, checked_sum};

/// An order to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Who orders.
    pub customer: CustomerId,
    /// What all prices are in.
    pub currency: Currency,
    /// The business day, at most today in UTC; without it, today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_on: Option<Day>,
    /// The gateway's token of how it is paid.
    pub payment_method: PaymentMethod,
    /// What is ordered. Two lines may name the same product, at the same price.
    pub lines: Lines<PlaceLine>,
}

/// A line of an order to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceLine {
    /// Which product.
    pub sku: Sku,
    /// How many.
    pub quantity: LineQuantity,
    /// What one piece costs, in minor units of the order's currency.
    pub unit_price: UnitPrice,
}

impl Place {
    /// What the body alone shows to be wrong and no schema can say.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut prices = BTreeMap::new();
        let differing = self
            .lines
            .iter()
            .enumerate()
            .filter(|(_, line)| *prices.entry(&line.sku).or_insert(line.unit_price) != line.unit_price);
        let mut violations: Vec<_> = differing
            .map(|(index, _)| {
                let pointer = format!("/lines/{index}/unit_price");
                Violation::at(pointer, "must be the same in all lines of one product")
            })
            .collect();
        let amounts = self
            .lines
            .iter()
            .map(|line| checked_product(line.quantity, line.unit_price));
        let amounts = amounts.collect::<Option<Vec<_>>>();
        if amounts.and_then(checked_sum).is_none() {
            violations.push(Violation::at(
                "/lines",
                "must not cost more than 9007199254740991 together",
            ));
        }
        violations
    }
}

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Who ordered.
    pub customer: CustomerId,
    /// What all amounts are in.
    pub currency: Currency,
    /// The business day.
    pub ordered_on: Day,
    /// The gateway's token of how it is paid.
    pub payment_method: PaymentMethod,
    /// What all lines cost together, in minor units.
    pub total: Amount,
    /// Pieces of all lines together.
    pub units: Units,
    /// What was ordered.
    pub lines: Vec<PlacedLine>,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacedLine {
    /// Its number, from 1.
    pub line: LineNumber,
    /// Which product.
    pub sku: Sku,
    /// How many.
    pub quantity: LineQuantity,
    /// What one piece costs, in minor units.
    pub unit_price: UnitPrice,
    /// What the line costs, in minor units.
    pub amount: Amount,
}

impl Placed {
    pub(super) fn of(c: &Place, ordered_on: Day) -> Self {
        let lines: Vec<_> = (1..)
            .zip(c.lines.iter())
            .map(|(number, line): (i128, _)| PlacedLine {
                line: clamped(number),
                sku: line.sku.clone(),
                quantity: line.quantity,
                unit_price: line.unit_price,
                amount: amount(line.quantity, line.unit_price),
            })
            .collect();
        Self {
            customer: c.customer,
            currency: c.currency,
            ordered_on,
            payment_method: c.payment_method.clone(),
            total: sum_of(lines.iter().map(|line| line.amount)),
            units: units_of(lines.iter().map(|line| line.quantity)),
            lines,
        }
    }
}

/// An order that was promised; from here on it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// Who ordered.
    pub customer: CustomerId,
    /// What the total is in.
    pub currency: Currency,
    /// The business day.
    pub ordered_on: Day,
    /// What the order costs, in minor units.
    pub total: Amount,
    /// Pieces of all lines together.
    pub units: Units,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why.
    pub reason: Reason,
}

/// An order that was called off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancelled {
    /// Why.
    pub reason: Reason,
    /// Who ordered.
    pub customer: CustomerId,
    /// What the total is in.
    pub currency: Currency,
    /// The business day.
    pub ordered_on: Day,
    /// What no longer counts, in minor units: 0 if the order was never confirmed.
    pub total: Amount,
    /// Pieces that no longer count: 0 if the order was never confirmed.
    pub units: Units,
}

/// A parcel on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shipment {
    /// Who carries it.
    pub carrier: Carrier,
    /// The carrier's number.
    pub tracking: Tracking,
}

/// What is to come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// Why.
    pub reason: Reason,
    /// Of which lines. A line named twice gives back both quantities.
    pub lines: Lines<ReturnLine>,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReturnLine {
    /// The line's number, from 1.
    pub line: LineNumber,
    /// How many.
    pub quantity: LineQuantity,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// Why.
    pub reason: Reason,
    /// Who ordered.
    pub customer: CustomerId,
    /// What the amounts are in.
    pub currency: Currency,
    /// The order's business day.
    pub ordered_on: Day,
    /// What it had cost, in minor units.
    pub amount: Amount,
    /// Pieces that came back.
    pub units: Units,
    /// Whether all of the order has come back by now.
    pub complete: bool,
    /// Of which lines, each once.
    pub lines: Vec<ReturnedLine>,
}

/// A part of a line that came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReturnedLine {
    /// The line's number, from 1.
    pub line: LineNumber,
    /// Which product.
    pub sku: Sku,
    /// How many.
    pub quantity: LineQuantity,
    /// What they had cost, in minor units.
    pub amount: Amount,
}
