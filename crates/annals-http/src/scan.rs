//! One look at a body's bytes before anything parses it: is it JSON, and of the kind that is taken here.
//!
//! Refused are: what is not JSON (RFC 8259) in UTF-8, a name twice in an object (compared after unescaping),
//! U+0000 in any spelling, nesting beyond a limit, and numbers beyond ±(2^53−1), also with a fraction or an
//! exponent. So no two readers of a body can disagree about it, and Postgres can hold it.
//!
//! One pass, no recursion, and no allocation unless objects that are open at once have more than 64 names.
//!
//! **Source:** RFC 8259; RFC 7493 (I-JSON), sections 2.2 and 2.3, for numbers and names.

mod names;

#[cfg(test)]
mod tests;

use names::Names;

/// The deepest nesting that [`scan`] can be asked for.
pub const MAX_DEPTH: usize = 128;

/// What is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (byte {offset})")]
pub struct ScanError {
    /// What is wrong.
    pub fault: Fault,
    /// The byte where it shows, from 0; the body's length if the body ends too early.
    pub offset: usize,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON.
    #[error("The body is not JSON")]
    Syntax,
    /// It ends in the middle.
    #[error("The body ends too early")]
    End,
    /// Not UTF-8, or half of a surrogate pair.
    #[error("The body is not UTF-8")]
    Encoding,
    /// The second of two equal names of an object.
    #[error("A name occurs twice in an object")]
    NameTwice,
    /// U+0000.
    #[error("U+0000 is not taken")]
    Nul,
    /// Nested too deep.
    #[error("The body is nested too deep")]
    Depth,
    /// Beyond ±(2^53−1).
    #[error("A number is beyond ±(2^53−1)")]
    Number,
}

/// Where a string's text lies between its quotes.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

/// An open array, or an open object with the place where its names begin.
#[derive(Clone, Copy)]
enum Open {
    Array,
    Object(usize),
}

/// Looks at `json` once; `depth` levels of arrays and objects may be open at once (at most [`MAX_DEPTH`]).
///
/// # Errors
/// The first [`ScanError`]; that a name occurs twice shows at the end of its object.
pub fn scan(json: &[u8], depth: usize) -> Result<(), ScanError> {
    Scanner {
        json,
        at: 0,
        names: Names::new(),
    }
    .document(depth.min(MAX_DEPTH))
}

struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
    names: Names,
}

impl<'a> Scanner<'a> {
    fn document(&mut self, limit: usize) -> Result<(), ScanError> {
        let mut stack = [Open::Array; MAX_DEPTH];
        let mut open = 0;
        loop {
            // A value begins here.
            self.space();
            let container = match self.peek()? {
                b'{' => Some(Open::Object(self.names.len())),
                b'[' => Some(Open::Array),
                b'"' => {
                    self.string()?;
                    None
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                    None
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return self.fail(Fault::Syntax),
            };
            if let Some(container) = container {
                if open == limit {
                    return self.fail(Fault::Depth);
                }
                self.at += 1;
                stack[open] = container;
                open += 1;
                self.space();
                match (container, self.peek()?) {
                    (Open::Array, b']') | (Open::Object(_), b'}') => {
                        self.at += 1;
                        open -= 1;
                    }
                    (Open::Array, _) => continue,
                    (Open::Object(_), _) => {
                        self.name()?;
                        continue;
                    }
                }
            }
            // A value has ended: close what ends with it, and go on to the next.
            if !self.after_value(&stack, &mut open)? {
                return Ok(());
            }
        }
    }

    /// `false` at the end of the document.
    fn after_value(&mut self, stack: &[Open], open: &mut usize) -> Result<bool, ScanError> {
        loop {
            self.space();
            let Some(innermost) = open.checked_sub(1) else {
                return match self.json.get(self.at) {
                    None => Ok(false),
                    Some(_) => self.fail(Fault::Syntax),
                };
            };
            match (stack[innermost], self.peek()?) {
                (Open::Array, b',') => {
                    self.at += 1;
                    return Ok(true);
                }
                (Open::Object(_), b',') => {
                    self.at += 1;
                    self.space();
                    self.name()?;
                    return Ok(true);
                }
                (Open::Array, b']') => {}
                (Open::Object(first), b'}') => {
                    if let Some(offset) = self.names.close(first, self.json) {
                        return Err(ScanError {
                            fault: Fault::NameTwice,
                            offset,
                        });
                    }
                }
                _ => return self.fail(Fault::Syntax),
            }
            self.at += 1;
            *open = innermost;
        }
    }

    fn name(&mut self) -> Result<(), ScanError> {
        if self.peek()? != b'"' {
            return self.fail(Fault::Syntax);
        }
        let span = self.string()?;
        self.names.push(span);
        self.space();
        if self.peek()? != b':' {
            return self.fail(Fault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Span, ScanError> {
        self.at += 1;
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0 => return self.fail(Fault::Nul),
                1..=0x1f => return self.fail(Fault::Syntax),
                byte => {
                    ascii &= byte < 0x80;
                    self.at += 1;
                }
            }
        }
        let end = self.at;
        if !ascii && let Err(error) = std::str::from_utf8(&self.json[start..end]) {
            return Err(ScanError {
                fault: Fault::Encoding,
                offset: start + error.valid_up_to(),
            });
        }
        self.at += 1;
        Ok(Span { start, end, escaped })
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => match self.unit()? {
                0 => {
                    self.at -= 6;
                    return self.fail(Fault::Nul);
                }
                0xd800..=0xdbff => {
                    let low = self.json.get(self.at..self.at + 2) == Some(b"\\u");
                    self.at += usize::from(low);
                    if !low || !(0xdc00..=0xdfff).contains(&self.unit()?) {
                        return self.fail(Fault::Encoding);
                    }
                }
                0xdc00..=0xdfff => return self.fail(Fault::Encoding),
                _ => {}
            },
            _ => return self.fail(Fault::Syntax),
        }
        Ok(())
    }

    /// Reads `uXXXX`.
    fn unit(&mut self) -> Result<u32, ScanError> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            match char::from(self.peek()?).to_digit(16) {
                Some(digit) => unit = unit * 16 + digit,
                None => return self.fail(Fault::Syntax),
            }
        }
        self.at += 1;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        self.at += usize::from(self.peek()? == b'-');
        let whole = match self.peek()? {
            b'0' => {
                self.at += 1;
                &self.json[self.at - 1..self.at]
            }
            b'1'..=b'9' => self.digits()?,
            _ => return self.fail(Fault::Syntax),
        };
        let mut fraction: &[u8] = &[];
        if self.json.get(self.at) == Some(&b'.') {
            self.at += 1;
            fraction = self.digits()?;
        }
        let mut exponent = 0;
        if matches!(self.json.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            let sign = self.peek()?;
            self.at += usize::from(matches!(sign, b'+' | b'-'));
            let digits = self.digits()?;
            exponent = digits.iter().fold(0_i64, |n, digit| {
                n.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
            });
            if sign == b'-' {
                exponent = -exponent;
            }
        }
        if is_beyond(whole, fraction, exponent) {
            return Err(ScanError {
                fault: Fault::Number,
                offset: start,
            });
        }
        Ok(())
    }

    /// One or more digits.
    fn digits(&mut self) -> Result<&'a [u8], ScanError> {
        let start = self.at;
        while matches!(self.json.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            self.peek()?;
            return self.fail(Fault::Syntax);
        }
        Ok(&self.json[start..self.at])
    }

    fn literal(&mut self, word: &[u8]) -> Result<Option<Open>, ScanError> {
        for expected in word {
            if self.peek()? != *expected {
                return self.fail(Fault::Syntax);
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn space(&mut self) {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, ScanError> {
        self.json.get(self.at).copied().ok_or(ScanError {
            fault: Fault::End,
            offset: self.json.len(),
        })
    }

    fn fail<T>(&self, fault: Fault) -> Result<T, ScanError> {
        Err(ScanError {
            fault,
            offset: self.at,
        })
    }
}

/// 2^53−1: every integer up to it is exact in every reader of JSON.
const MAX: u64 = 9_007_199_254_740_991;
/// Its digits.
const MAX_DIGITS: i64 = 16;

/// Whether `whole.fraction × 10^exponent` is beyond [`MAX`], exactly: on digits, not through a float.
fn is_beyond(whole: &[u8], fraction: &[u8], exponent: i64) -> bool {
    if fraction.is_empty() && exponent == 0 && whole.len() < 16 {
        return false;
    }
    let digits = || whole.iter().chain(fraction).map(|digit| u64::from(digit - b'0'));
    let Some(zeros) = digits().position(|digit| digit != 0) else {
        return false;
    };
    let length = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let whole_digits = length(whole.len())
        .saturating_add(exponent)
        .saturating_sub(length(zeros));
    if whole_digits != MAX_DIGITS {
        return whole_digits > MAX_DIGITS;
    }
    let mut significant = digits().skip(zeros);
    let value = (0..MAX_DIGITS).fold(0, |value, _| value * 10 + significant.next().unwrap_or(0));
    value > MAX || value == MAX && significant.any(|digit| digit != 0)
}
