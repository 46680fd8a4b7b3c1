//! What a demo tells in the end: both sides of every sum, how long it took, how many commands a second.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::sums::Comparison;

/// What came of a demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// TPC-H's scale factor.
    pub scale: f64,
    /// Commands that were sent and answered. What was there already was not sent again.
    pub commands: u64,
    /// From the first request to the last checkout's end, in seconds.
    pub duration_s: f64,
    /// Commands a second of that time. (The checkouts' own commands are not counted.)
    pub commands_per_s: f64,
    /// How long it took to read and compare, in seconds.
    pub sums_s: f64,
    /// Whether every order ended as TPC-H says and every sum is equal.
    pub equal: bool,
    /// Both sides of every sum.
    #[serde(flatten)]
    pub comparison: Comparison,
}

impl DemoReport {
    pub(super) fn new(
        scale: f64,
        commands: u64,
        took: Duration,
        sums: Duration,
        comparison: Comparison,
    ) -> Self {
        let duration_s = took.as_secs_f64();
        let number = u32::try_from(commands).map_or(f64::from(u32::MAX), f64::from);
        Self {
            scale,
            commands,
            duration_s,
            commands_per_s: if duration_s > 0.0 {
                number / duration_s
            } else {
                0.0
            },
            sums_s: sums.as_secs_f64(),
            equal: comparison.is_equal(),
            comparison,
        }
    }

    /// Whether the demo's answer is yes: exit status 0, else 1.
    pub fn is_equal(&self) -> bool {
        self.equal
    }
}

/// A table for people, without a line's end behind it.
impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<30} {:>20} {:>20}", "", "TPC-H", "read")?;
        for sum in &self.comparison.sums {
            let show = |value| {
                if sum.is_money {
                    dollars(value)
                } else {
                    grouped(value)
                }
            };
            let sign = if sum.tpch == sum.read { "" } else { "  ≠" };
            writeln!(
                f,
                "{:<30} {:>20} {:>20}{sign}",
                sum.of,
                show(sum.tpch),
                show(sum.read)
            )?;
        }
        for note in &self.comparison.notes {
            writeln!(f, "note: {note}")?;
        }
        for difference in &self.comparison.differences {
            writeln!(f, "difference: {difference}")?;
        }
        let (all, told) = (
            self.comparison.difference_count,
            self.comparison.differences.len(),
        );
        if all > told {
            writeln!(f, "and {} differences more", all - told)?;
        }
        writeln!(
            f,
            "scale {}: {} commands in {:.1} s, {:.0} a second; compared in {:.1} s",
            self.scale, self.commands, self.duration_s, self.commands_per_s, self.sums_s
        )?;
        match self.equal {
            true => f.write_str("all sums are equal"),
            false => write!(f, "{all} differences"),
        }
    }
}

/// Cents as dollars.
fn dollars(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let (whole, rest) = (cents.unsigned_abs() / 100, cents.unsigned_abs() % 100);
    let whole = i64::try_from(whole).map_or_else(|_| whole.to_string(), grouped);
    format!("{sign}{whole}.{rest:02}")
}

/// A number with a comma between thousands.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::sums::Sum;
    use super::*;

    #[test]
    fn numbers_are_grouped_and_cents_are_dollars() {
        let shown: Vec<_> = [0, 7, 999, 1_000, 60_175, 1_234_567, -1_000].map(grouped).into();
        assert_eq!(shown, ["0", "7", "999", "1,000", "60,175", "1,234,567", "-1,000"]);
        let shown: Vec<_> = [0, 7, 90_100, -123_456_789].map(dollars).into();
        assert_eq!(shown, ["0.00", "0.07", "901.00", "-1,234,567.89"]);
    }

    #[test]
    fn tells_both_sides_and_what_differs() {
        let mut comparison = Comparison::default();
        comparison.sums.push(Sum {
            of: "orders".to_owned(),
            tpch: 15_000,
            read: 14_999,
            is_money: false,
        });
        comparison.differs("order X is not there".to_owned());
        let report = DemoReport::new(0.01, 100, Duration::from_secs(4), Duration::ZERO, comparison);
        assert!(!report.is_equal());
        let text = report.to_string();
        for part in [
            "15,000",
            "14,999",
            "≠",
            "order X is not there",
            "25 a second",
            "1 differences",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["sums"][0]["read"], 14_999);
        assert_eq!(
            (&json["equal"], &json["commands_per_s"]),
            (&false.into(), &25.0.into())
        );
    }
}
