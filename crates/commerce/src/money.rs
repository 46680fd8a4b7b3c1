//! Money: an amount in minor units of one currency; sums and products that say when they leave the range.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{Amount, LineQuantity, UnitPrice};

/// A currency by its code: three letters A to Z.
///
/// **Source:** ISO 4217, the form of its alphabetic codes. Whether a code is in use is not asked: the list changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// A text that is not three letters A to Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCurrency;

impl fmt::Display for InvalidCurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a currency is three letters A to Z")
    }
}

impl std::error::Error for InvalidCurrency {}

impl Currency {
    /// Reads a code.
    ///
    /// # Errors
    /// [`InvalidCurrency`] if it is not three letters A to Z.
    pub fn new(code: &str) -> Result<Self, InvalidCurrency> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            Ok(_) | Err(_) => Err(InvalidCurrency),
        }
    }
    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&Cow::<'de, str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$" })
    }
}

/// A sum of money: 0 to 2^53−1 minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Minor units: cents of a dollar.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
}

/// What one piece costs: 0 to 10^11 minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Minor units: cents of a dollar.
    pub amount: UnitPrice,
    /// The currency.
    pub currency: Currency,
}

/// What `quantity` pieces at `unit_price` cost; `None` beyond the limit of [`Amount`].
pub fn checked_product(quantity: LineQuantity, unit_price: UnitPrice) -> Option<Amount> {
    let product = quantity.get().checked_mul(unit_price.get())?;
    Amount::new(product).ok()
}

/// The sum of all; `None` beyond the limit of [`Amount`].
pub fn checked_sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
    let sum = amounts
        .into_iter()
        .try_fold(0_i64, |sum, amount| sum.checked_add(amount.get()))?;
    Amount::new(sum).ok()
}

impl Money {
    /// `self` less `other`; `None` if they differ in currency or `other` is more.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        let left = self.amount.get().checked_sub(other.amount.get())?;
        (self.currency == other.currency).then_some(())?;
        Some(Self {
            amount: Amount::new(left).ok()?,
            currency: self.currency,
        })
    }
    /// `self` and `other`; `None` if they differ in currency or are too much together.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        (self.currency == other.currency).then_some(())?;
        Some(Self {
            amount: checked_sum([self.amount, other.amount])?,
            currency: self.currency,
        })
    }
    /// Nothing, in this currency.
    pub fn zero(currency: Currency) -> Self {
        Self {
            amount: Amount::new(0).expect("zero is the lower limit"),
            currency,
        }
    }
}

#[cfg(test)]
mod tests;
