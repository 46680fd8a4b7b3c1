//! The scan against tables of cases and against a parser that knows nothing of it.

use proptest::prelude::*;
use serde_json::Value;

use super::{Fault, MAX_DEPTH, scan};

fn fault(json: &str) -> Option<Fault> {
    scan(json.as_bytes(), 32).err().map(|error| error.fault)
}

#[test]
fn takes_json() {
    for json in [
        "{}",
        "[]",
        " null ",
        "true",
        "false",
        "\"\"",
        "0",
        "-0",
        "-0.0e-5",
        "1e15",
        "[1,2.5,\"x\"]",
        r#"{"a":{"a":1},"b":[{"a":2},{"a":3}]}"#,
        r#""é \u00e9 \ud83d\ude00 \\ \/""#,
        "\t{\r\n\"a\" : 1 }\n",
        "9007199254740991",
        "-9007199254740991",
        "9007199254740991.000",
        "9.007199254740991e15",
        "90071992547409910e-1",
        "0e99999999999999999999",
        "1e-99999999999999999999",
        "0.00000000000000000001e25",
    ] {
        assert_eq!(fault(json), None, "{json}");
    }
}

#[test]
fn refuses_what_is_not_json() {
    for json in [
        "{,}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "{a:1}",
        "nul1",
        "truex",
        "01",
        "+1",
        "1.x",
        ".5",
        "1ex",
        "--1",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "{}{}",
        "[1 2]",
        "}",
        "[}",
        "{]",
        "\u{feff}{}",
        "NaN",
    ] {
        assert_eq!(fault(json), Some(Fault::Syntax), "{json}");
    }
    for json in [
        "", " ", "{", "[", "{\"a\":", "\"abc", "\"\\", "\"\\u12", "tru", "1.", "1e", "-", "[1", "{\"a\":1",
    ] {
        assert_eq!(fault(json), Some(Fault::End), "{json}");
    }
}

#[test]
fn finds_a_name_that_occurs_twice_also_behind_escapes() {
    for json in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"/":1,"b":2,"\/":3}"#,
        r#"[{"x":{"é":1,"b":0,"\u00e9":2}}]"#,
    ] {
        assert_eq!(fault(json), Some(Fault::NameTwice), "{json}");
    }
    let error = scan(br#"{"a":1,"b":2,"a":3}"#, 32).unwrap_err();
    assert_eq!(error.offset, 14, "the later one");
    let many: Vec<_> = (0..500).map(|n| format!("\"n{n}\":{n}")).collect();
    assert_eq!(fault(&format!("{{{}}}", many.join(","))), None);
    assert_eq!(
        fault(&format!(
            "{{\"o\":{{{}}},\"n250\":0,{}}}",
            many.join(","),
            many.join(",")
        )),
        Some(Fault::NameTwice)
    );
}

#[test]
fn finds_nul_bad_encodings_depth_and_numbers() {
    let cases: [(&[u8], Fault); 14] = [
        (b"\"a\\u0000\"", Fault::Nul),
        (b"\"a\0\"", Fault::Nul),
        (b"{\"\\u0000\":1}", Fault::Nul),
        (b"\"\xff\"", Fault::Encoding),
        (b"\"\xc3\"", Fault::Encoding),
        (b"\"\\ud800\"", Fault::Encoding),
        (b"\"\\ud800\\u0041\"", Fault::Encoding),
        (b"\"\\udc00\"", Fault::Encoding),
        (b"9007199254740992", Fault::Number),
        (b"[-9007199254740992]", Fault::Number),
        (b"9007199254740991.4", Fault::Number),
        (b"1e16", Fault::Number),
        (b"0.1E+400", Fault::Number),
        (b"123456789012345678901234567890e-10", Fault::Number),
    ];
    for (json, expected) in cases {
        let found = scan(json, 32).err().map(|error| error.fault);
        assert_eq!(found, Some(expected), "{}", String::from_utf8_lossy(json));
    }
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(fault(&nested(32)), None);
    assert_eq!(fault(&nested(33)), Some(Fault::Depth));
    assert!(scan(nested(MAX_DEPTH).as_bytes(), 1_000).is_ok());
    assert!(scan(nested(MAX_DEPTH + 1).as_bytes(), 1_000).is_err());
}

/// Any JSON whose numbers are in range and whose names are unique.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        (-1e15_f64..1e15).prop_map(Value::from),
    ];
    let text = "[^\u{0}]{0,8}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(text, inner, 0..20)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every character beyond ASCII as `\u` escapes, which no meaning hangs on.
fn escaped(json: &str) -> String {
    let mut units = [0; 2];
    json.chars()
        .map(|char| match char.is_ascii() {
            true => char.to_string(),
            false => char
                .encode_utf16(&mut units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect(),
        })
        .collect()
}

proptest! {
    #[test]
    fn takes_all_that_a_writer_writes(value in value()) {
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), escaped(&value.to_string())] {
            prop_assert_eq!(scan(json.as_bytes(), MAX_DEPTH), Ok(()), "{}", json);
        }
    }

    #[test]
    fn what_it_takes_parses_and_what_is_no_json_it_refuses(value in value(), at in any::<usize>(), byte in any::<u8>()) {
        let mut json = value.to_string().into_bytes();
        let at = at % json.len();
        json[at] = byte;
        let parsed = serde_json::from_slice::<Value>(&json);
        match scan(&json, MAX_DEPTH).map_err(|error| error.fault) {
            Ok(()) => prop_assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(&json)),
            Err(Fault::Syntax | Fault::End | Fault::Encoding) => {
                prop_assert!(parsed.is_err(), "{}", String::from_utf8_lossy(&json));
            }
            Err(Fault::NameTwice | Fault::Nul | Fault::Number | Fault::Depth) => {}
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = scan(&bytes, 4);
    }

    #[test]
    fn a_repeated_name_is_always_found(value in value(), name in "[^\u{0}]{0,4}", again in value()) {
        let name = Value::from(name).to_string();
        let json = format!("{{{name}:{value},{}:{again}}}", escaped(&name));
        prop_assert_eq!(scan(json.as_bytes(), MAX_DEPTH).map_err(|error| error.fault), Err(Fault::NameTwice));
    }
}
