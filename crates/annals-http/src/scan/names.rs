//! The names of all objects that are open at once, to find one that occurs twice.

use std::cmp::Ordering;

use super::Span;

/// So many names need no allocation.
const INLINE: usize = 64;
/// Up to so many names of one object are compared pair by pair; more are sorted.
const PAIRWISE: usize = 12;

/// A stack of names; the innermost object's lie on top.
pub(super) struct Names {
    inline: [Span; INLINE],
    len: usize,
    /// Holds all of them once there were more than [`INLINE`].
    spilled: Vec<Span>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            inline: [Span::default(); INLINE],
            len: 0,
            spilled: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, name: Span) {
        if self.len < INLINE && self.spilled.is_empty() {
            self.inline[self.len] = name;
        } else {
            if self.spilled.is_empty() {
                self.spilled.extend_from_slice(&self.inline);
            }
            self.spilled.push(name);
        }
        self.len += 1;
    }

    /// Takes away the names from `first` on; where the later of two equal ones begins, if there are such.
    pub(super) fn close(&mut self, first: usize, json: &[u8]) -> Option<usize> {
        let all = if self.spilled.is_empty() {
            &mut self.inline[..self.len]
        } else {
            &mut self.spilled[..]
        };
        let twice = twice(&mut all[first..], json);
        self.len = first;
        self.spilled.truncate(first);
        twice
    }
}

fn twice(names: &mut [Span], json: &[u8]) -> Option<usize> {
    if names.len() > PAIRWISE {
        names.sort_unstable_by(|a, b| compare(*a, *b, json).then(a.start.cmp(&b.start)));
        let pair = names
            .windows(2)
            .find(|pair| compare(pair[0], pair[1], json).is_eq())?;
        return Some(pair[1].start);
    }
    let repeats = |(n, name): (usize, &Span)| {
        names[..n]
            .iter()
            .any(|former| compare(*former, *name, json).is_eq())
            .then_some(name.start)
    };
    names.iter().enumerate().find_map(repeats)
}

/// By code points, which for UTF-8 is by bytes.
fn compare(a: Span, b: Span, json: &[u8]) -> Ordering {
    if !a.escaped && !b.escaped {
        return json[a.start..a.end].cmp(&json[b.start..b.end]);
    }
    unescaped(a, json).cmp(unescaped(b, json))
}

/// The characters of a name that was scanned: its UTF-8 and its escapes are right.
fn unescaped(name: Span, json: &[u8]) -> impl Iterator<Item = char> + '_ {
    let text = std::str::from_utf8(&json[name.start..name.end]).unwrap_or_default();
    let mut chars = text.chars();
    std::iter::from_fn(move || {
        let char = chars.next()?;
        if char != '\\' {
            return Some(char);
        }
        Some(match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = unit(&mut chars);
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                // The scanner has seen that the low half follows: `\uXXXX`.
                chars.nth(1);
                let low = unit(&mut chars);
                return char::from_u32(0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff));
            }
            plain => plain,
        })
    })
}

fn unit(chars: &mut std::str::Chars<'_>) -> u32 {
    chars
        .take(4)
        .fold(0, |unit, digit| unit * 16 + digit.to_digit(16).unwrap_or(0))
}
