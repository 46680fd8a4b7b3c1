//! The limits of the domain's values, each as a type that parses and describes itself.
//!
//! **Source:** the "Limits" paragraph of the commerce domain's contract. JSON integers are exact up to 2^53−1, so
//! no sum goes beyond that.

use std::borrow::Cow;
use std::fmt;

use annals_domain::{Bounded, OutOfBounds, Text, text_key, uuid_key};
use chrono::{Datelike, NaiveDate};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

uuid_key!(
    /// The id of an order, and of its payment and of its checkout.
    pub struct OrderId;
);
uuid_key!(
    /// The id of a customer.
    pub struct CustomerId;
);
text_key!(
    /// A stock keeping unit: the key of a product.
    pub struct Sku(max = 64);
);

/// 2^53−1, the largest integer that every JSON reader keeps exactly.
pub const MAX_AMOUNT: i64 = 9_007_199_254_740_991;
/// The most lines that an order, or a return, may have.
pub const MAX_LINES: usize = 100;

/// How many of a product one line of an order asks for, or gives back.
pub type LineQuantity = Bounded<1, 1_000_000>;
/// How many of a product one order reserves: all of its lines together.
pub type ReserveQuantity = Bounded<1, 100_000_000>;
/// How many of a product one receipt brings.
pub type ReceiptQuantity = Bounded<1, 1_000_000_000>;
/// By how much a count of the stock was off, either way.
pub type Delta = Bounded<-1_000_000_000, 1_000_000_000>;
/// How many pieces an order has, or gives back: none to all of 100 full lines.
pub type Units = Bounded<0, 100_000_000>;
/// What one piece costs, in minor units.
pub type UnitPrice = Bounded<0, 100_000_000_000>;
/// A sum of money in minor units.
pub type Amount = Bounded<0, MAX_AMOUNT>;
/// The number of a line, from 1.
pub type LineNumber = Bounded<1, MAX_AMOUNT>;

/// What a product, or a customer, is called.
pub type Name = Text<200>;
/// An address of electronic mail.
pub type Email = Text<254>;
/// A postal address.
pub type Address = Text<500>;
/// Why somebody did something.
pub type Reason = Text<500>;
/// A number in somebody else's books.
pub type Reference = Text<100>;
/// Who carries a parcel.
pub type Carrier = Text<100>;
/// The carrier's number of a parcel.
pub type Tracking = Text<100>;
/// The gateway's token of how a customer pays.
pub type PaymentMethod = Text<64>;

/// The nearest value within the limits. For sums that were checked on the way in.
pub(crate) fn clamped<const MIN: i64, const MAX: i64>(value: i128) -> Bounded<MIN, MAX> {
    let nearest = value.clamp(i128::from(MIN), i128::from(MAX));
    let nearest = i64::try_from(nearest).expect("it lies between two i64");
    Bounded::new(nearest).expect("it was clamped to these limits")
}

/// A reason that the program gives: the text cut to the limit, or `unspecified`.
pub(crate) fn reason(text: &str) -> Reason {
    let cut: String = text.chars().take(500).collect();
    Reason::new(cut).unwrap_or_else(|_| Reason::new("unspecified").expect("eleven characters"))
}

/// A list of 1 to [`MAX_LINES`] items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Lines<T>(Vec<T>);

impl<T> Lines<T> {
    /// Checks the length.
    ///
    /// # Errors
    /// [`OutOfLines`] if `items` is empty or has more than [`MAX_LINES`].
    pub fn new(items: Vec<T>) -> Result<Self, OutOfLines> {
        if (1..=MAX_LINES).contains(&items.len()) {
            Ok(Self(items))
        } else {
            Err(OutOfLines)
        }
    }
    /// The items.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
    /// The items in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

/// A list with no items, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfLines;

impl fmt::Display for OutOfLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must have 1 to {MAX_LINES} items")
    }
}

impl std::error::Error for OutOfLines {}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lines<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<T: JsonSchema> JsonSchema for Lines<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Lines_of_{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "items": items, "minItems": 1, "maxItems": MAX_LINES })
    }
}

/// A calendar day from 0001-01-01 to 9999-12-31, as `YYYY-MM-DD`.
///
/// **Source:** RFC 3339, `full-date`, without the year 0, which Postgres does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(NaiveDate);

impl Day {
    /// The day.
    ///
    /// # Errors
    /// [`OutOfBounds`] if its year has other than four digits.
    pub fn new(day: NaiveDate) -> Result<Self, OutOfBounds> {
        // `OutOfBounds` is made by its owner only: borrow the check of a bounded number.
        Bounded::<1, 9999>::new(day.year().into()).map(|_| Self(day))
    }
    /// The nearest day within the limits.
    pub fn nearest(day: NaiveDate) -> Self {
        let limit = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).expect("the first or last day of a year");
        Self(day.clamp(limit(1, 1, 1), limit(9999, 12, 31)))
    }
    /// The day.
    pub fn get(self) -> NaiveDate {
        self.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        // Chrono takes `1996-1-2` and blanks too; a day has one form.
        let shaped = text.len() == 10
            && text.bytes().enumerate().all(|(i, b)| {
                if matches!(i, 4 | 7) {
                    b == b'-'
                } else {
                    b.is_ascii_digit()
                }
            });
        let day = shaped.then(|| text.parse().ok()).flatten();
        day.and_then(|day| Self::new(day).ok())
            .ok_or_else(|| D::Error::custom("a day as YYYY-MM-DD is expected"))
    }
}

impl JsonSchema for Day {
    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date", "pattern": "^(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
    }
}

#[cfg(test)]
mod tests;
