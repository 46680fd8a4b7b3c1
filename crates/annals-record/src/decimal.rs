//! Integers as headers and positions write them: ASCII digits, no sign, no leading zero.

/// The largest integer of the grammar: what a Postgres `bigint` and a Kafka offset can hold, so
/// that no accepted record has a number that the journal has to refuse.
pub(crate) const MAX: u64 = i64::MAX.unsigned_abs();

/// Digits of the longest `u64`.
pub(crate) const DIGITS: usize = 20;

/// Whether `text` is an integer of the grammar, of any length.
pub(crate) fn is_integer(text: &[u8]) -> bool {
    match text {
        [] => false,
        [b'0', rest @ ..] => rest.is_empty(),
        _ => text.iter().all(u8::is_ascii_digit),
    }
}

/// Reads an integer of `0..=MAX`; `None` for anything else.
pub(crate) fn parse(text: &[u8]) -> Option<u64> {
    if !is_integer(text) {
        return None;
    }
    let number = text.iter().try_fold(0u64, |n, digit| {
        n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    (number <= MAX).then_some(number)
}

/// As [`parse`], for `0..=u32::MAX`.
pub(crate) fn parse_u32(text: &[u8]) -> Option<u32> {
    parse(text).and_then(|n| u32::try_from(n).ok())
}

/// How many digits [`write`] takes for it.
pub(crate) fn length(number: u64) -> usize {
    let digits = number.checked_ilog10().unwrap_or(0) + 1;
    usize::try_from(digits).expect("a u64 has at most 20 digits")
}

/// Writes `number` at the end of `buffer` and returns the part that holds it.
pub(crate) fn write(mut number: u64, buffer: &mut [u8; DIGITS]) -> &[u8] {
    let mut start = DIGITS;
    loop {
        start -= 1;
        // A digit is below 10, so its lowest byte is all of it.
        buffer[start] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_same_integers() {
        for number in [0, 1, 9, 10, 99, 1_042, u64::from(u32::MAX), MAX] {
            let mut buffer = [0; DIGITS];
            assert_eq!(parse(write(number, &mut buffer)), Some(number));
            assert_eq!(write(number, &mut buffer).len(), length(number));
        }
        assert_eq!(write(u64::MAX, &mut [0; DIGITS]), b"18446744073709551615");
    }

    #[test]
    fn refuses_every_other_spelling() {
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "١", "1.0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"9223372036854775808"), None);
        assert_eq!(parse(b"99999999999999999999999999"), None);
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(parse_u32(b"4294967296"), None);
    }
}
