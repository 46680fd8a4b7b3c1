//! The RFC 8785 form (JCS) of what a command says, without a serializer of its own for the usual case.
//!
//! What `serde_json` writes differs from that form in the order of members, in numbers that are not small integers, and
//! in rare escapes. So it is written once, and one pass over the bytes puts members in order where they stand; wherever
//! the pass meets anything whose form could differ, the whole is written again by a canonicalizer.
//!
//! *Invariant:* the bytes are those that the canonicalizer gives.
//!
//! **Source:** RFC 8785, section 3.2.

use serde::Serialize;

/// Deeper than that, and with more members in one object, the canonicalizer writes.
const DEPTH: usize = 32;
const MEMBERS: usize = 24;
/// Integers of so many digits are the same in both forms.
const DIGITS: usize = 15;

/// Writes a value in RFC 8785 form.
///
/// # Errors
/// What the serializer says; a number that is none.
pub(super) fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    let mut pass = Pass {
        json: &mut bytes,
        at: 0,
    };
    match pass.value(DEPTH) {
        Some(()) => Ok(bytes),
        None => serde_json_canonicalizer::to_vec(value),
    }
}

/// A look at compact JSON that is known to be JSON. `None`: its form could differ.
struct Pass<'a> {
    json: &'a mut [u8],
    at: usize,
}

/// A member of an object, `"name":value`: where it begins, where its name ends, where it ends.
#[derive(Clone, Copy, Default)]
struct Member {
    start: usize,
    name: usize,
    end: usize,
}

impl Pass<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.array(depth.checked_sub(1)?),
            b'"' => self.string(true),
            b'-' | b'0'..=b'9' => self.integer(),
            b't' => self.skip(4),
            b'f' => self.skip(5),
            // `null` may stand for a number that is none, which JCS refuses; anything else is not compact.
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let mut members = [Member::default(); MEMBERS];
        let (mut count, mut ordered) = (0, true);
        self.at += 1;
        let begin = self.at;
        if self.peek()? == b'}' {
            return self.skip(1);
        }
        loop {
            let start = self.at;
            self.string(false)?;
            let name = self.at;
            self.skip(1)?;
            self.value(depth)?;
            let member = members.get_mut(count)?;
            *member = Member {
                start,
                name,
                end: self.at,
            };
            if count > 0 {
                match self.name(&members[count - 1]).cmp(self.name(&members[count])) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Greater => ordered = false,
                    std::cmp::Ordering::Equal => return None,
                }
            }
            count += 1;
            match self.peek()? {
                b',' => self.at += 1,
                _ => break,
            }
        }
        if !ordered {
            self.order(&mut members[..count], begin)?;
        }
        self.skip(1)
    }

    /// Puts the members between `begin` and here in order, where they stand.
    fn order(&mut self, members: &mut [Member], begin: usize) -> Option<()> {
        members.sort_unstable_by(|a, b| self.name(a).cmp(self.name(b)));
        if members
            .windows(2)
            .any(|two| self.name(&two[0]) == self.name(&two[1]))
        {
            return None;
        }
        let mut sorted = Vec::with_capacity(self.at - begin);
        for (n, member) in members.iter().enumerate() {
            if n > 0 {
                sorted.push(b',');
            }
            sorted.extend_from_slice(&self.json[member.start..member.end]);
        }
        self.json[begin..self.at].copy_from_slice(&sorted);
        Some(())
    }

    /// A name without its quotes. ASCII without escapes, so that its bytes are in the order of UTF-16.
    fn name(&self, member: &Member) -> &[u8] {
        &self.json[member.start + 1..member.name - 1]
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        if self.peek()? == b']' {
            return self.skip(1);
        }
        loop {
            self.value(depth)?;
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.skip(1),
            }
        }
    }

    /// `free`: also with what is not ASCII, and with the escapes that both forms write alike.
    fn string(&mut self, free: bool) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => return self.skip(1),
                b'\\' if free => {
                    self.at += 1;
                    match self.peek()? {
                        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        _ => return None,
                    }
                }
                b'\\' | 0x80.. if !free => return None,
                _ => self.at += 1,
            }
        }
    }

    fn integer(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
            if self.peek()? == b'0' {
                return None;
            }
        }
        let digits = self.json[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        self.at += digits.count();
        let fraction = matches!(self.json.get(self.at), Some(b'.' | b'e' | b'E'));
        (!fraction && self.at - start <= DIGITS).then_some(())
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at += bytes;
        Some(())
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use indexmap::IndexMap;
    use proptest::prelude::*;

    use super::*;

    /// JSON whose members stand in the order in which they were put; numbers and nulls of every kind.
    #[derive(Debug, Clone, Serialize)]
    #[serde(untagged)]
    enum Json {
        Null,
        Bool(bool),
        Int(i64),
        Small(i16),
        Big(u64),
        Float(f64),
        Text(String),
        List(Vec<Json>),
        Map(IndexMap<String, Json>),
    }

    fn json() -> impl Strategy<Value = Json> {
        let text = prop_oneof!["[a-c]{0,2}", "[\\PC\u{0}-\u{7f}]{0,6}"];
        let leaf = prop_oneof![
            1 => Just(Json::Null),
            2 => any::<bool>().prop_map(Json::Bool),
            1 => any::<i64>().prop_map(Json::Int),
            4 => any::<i16>().prop_map(Json::Small),
            1 => any::<u64>().prop_map(Json::Big),
            1 => (-1e30..1e30_f64).prop_map(Json::Float),
            4 => text.prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            let name = prop_oneof![8 => "[a-cA-C0-9_]{0,2}", 1 => "[\\PC\u{0}-\u{7f}]{0,3}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::List),
                proptest::collection::vec((name, inner), 0..6)
                    .prop_map(|members| Json::Map(members.into_iter().collect())),
            ]
        })
    }

    fn is_same(value: &impl Serialize) {
        let expected = serde_json_canonicalizer::to_vec(value).unwrap();
        let written = to_vec(value).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            String::from_utf8(expected).unwrap()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn the_form_is_the_canonicalizers(value in json()) {
            is_same(&value);
        }
    }

    #[test]
    fn members_are_put_in_order_without_the_canonicalizer() {
        let mut json =
            br#"{"b":{"z":[1,{"y":"\"}","x":-5}],"a":true},"B":999999999999999,"aa":"\u00e9","a":{}}"#
                .to_vec();
        let mut pass = Pass {
            json: &mut json,
            at: 0,
        };
        assert_eq!(pass.value(DEPTH), None, "an escape that is not the canonical one");
        let mut json = r#"{"b":{"z":[1,{"y":"\"}","x":-5}],"a":true},"B":999999999999999,"aa":"é","a":{}}"#
            .as_bytes()
            .to_vec();
        let mut pass = Pass {
            json: &mut json,
            at: 0,
        };
        assert_eq!(pass.value(DEPTH), Some(()));
        let expected = r#"{"B":999999999999999,"a":{},"aa":"é","b":{"a":true,"z":[1,{"x":-5,"y":"\"}"}]}}"#;
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn what_is_rare_is_left_to_the_canonicalizer() {
        let pass = |text: &str| {
            let mut json = text.as_bytes().to_vec();
            Pass {
                json: &mut json,
                at: 0,
            }
            .value(DEPTH)
        };
        for text in [
            "-0",
            "1.50",
            "1e3",
            "9007199254740993",
            "null",
            r#""\u0041\/""#,
            "{ \"b\": 1,\n\"a\" : 2 }",
            r#"{"\u0061":1}"#,
            r#"{"é":1,"e":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":2,"a":3}"#,
        ] {
            assert_eq!(pass(text), None, "{text}");
        }
        let many: IndexMap<String, u32> = (0..100).map(|n| (format!("k{}", 100 - n), n)).collect();
        is_same(&many);
        let deep = (0..60).fold(Json::Bool(true), |inner, _| Json::List(vec![inner]));
        is_same(&deep);
        assert!(to_vec(&f64::NAN).is_err());
    }
}
