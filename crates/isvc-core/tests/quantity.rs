//! Quantities against a table recorded from apimachinery, and their properties.

use std::cmp::Ordering;

use isvc_core::quantity::{Quantity, QuantityError, canonical, canonicalize_value};
use proptest::prelude::*;
use serde_json::json;

const TABLE: &str = include_str!("oracle/quantity.tsv");

/// The table's form of a result.
fn outcome(input: &str) -> String {
    match canonical(input) {
        Ok(text) => text,
        Err(QuantityError::Malformed { .. }) => "!format".to_owned(),
        Err(QuantityError::Number { .. }) => "!number".to_owned(),
        Err(QuantityError::Suffix { .. }) => "!suffix".to_owned(),
        Err(other) => format!("!{other}"),
    }
}

#[test]
fn agrees_with_the_recorded_table() {
    let mut lines = 0;
    let mut wrong = Vec::new();
    for line in TABLE.lines() {
        let (input, expected) = line.split_once('\t').expect("input and result are separated by a tab");
        lines += 1;
        if outcome(input) != expected {
            wrong.push(format!("{input:?}: expected {expected}, got {}", outcome(input)));
        }
    }
    assert!(lines > 4000, "only {lines} lines in the table");
    assert!(
        wrong.is_empty(),
        "{} of {lines} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn values_round_away_from_zero() {
    let check = |text: &str, value: i128, milli: i128, float: f64| {
        let quantity = Quantity::parse(text).expect("the text is a quantity");
        assert_eq!(quantity.value(), Some(value), "{text}");
        assert_eq!(quantity.milli_value(), Some(milli), "{text}");
        assert!(
            (quantity.as_f64() - float).abs() <= float.abs() * f64::EPSILON,
            "{text}: {}",
            quantity.as_f64()
        );
    };
    check("0", 0, 0, 0.0);
    check("-0", 0, 0, 0.0);
    check("100m", 1, 100, 0.1);
    check("-1500m", -2, -1500, -1.5);
    check("1.5Gi", 1_610_612_736, 1_610_612_736_000, 1_610_612_736.0);
    check("1n", 1, 1, 1e-9);
    check("2e3", 2000, 2_000_000, 2000.0);
    check(
        "9Ei",
        i128::from(i64::MAX),
        i128::from(i64::MAX) * 1000,
        9_223_372_036_854_775_807.0,
    );
}

#[test]
fn a_value_beyond_the_range_is_none_and_infinite() {
    let huge = Quantity::parse("1e400").expect("the text is a quantity");
    assert_eq!(huge.value(), None);
    assert!(huge.as_f64().is_infinite());
    assert!(
        Quantity::parse("-1e400")
            .expect("the text is a quantity")
            .as_f64()
            .is_sign_negative()
    );
}

#[test]
fn an_error_names_the_text() {
    for text in ["", "abc", "1 Gi", "1Gib", "1K", "1e5m"] {
        let error = canonical(text).expect_err("the text is no quantity").to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn json_values_become_canonical_strings() {
    let check = |mut value: serde_json::Value, expected: Option<&str>| {
        let before = value.clone();
        match (canonicalize_value(&mut value), expected) {
            (Ok(()), Some(expected)) => assert_eq!(value, json!(expected)),
            (Err(_), None) => assert_eq!(value, before, "left alone on error"),
            (result, expected) => panic!("{before}: {result:?}, expected {expected:?}"),
        }
    };
    check(json!("1000m"), Some("1"));
    check(json!(" 2Gi "), Some("2Gi"));
    check(json!(2), Some("2"));
    check(json!(0.5), Some("500m"));
    check(json!(-3), Some("-3"));
    check(json!("two"), None);
    check(json!(null), None);
    check(json!(true), None);
    check(json!(["1"]), None);
    check(json!({"cpu": "1"}), None);
}

prop_compose! {
    fn texts()(
        sign in "[-+]?",
        number in "[0-9]{1,22}(\\.[0-9]{0,12})?",
        suffix in prop::sample::select(vec![
            "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-4", "e7",
        ]),
    ) -> String {
        format!("{sign}{number}{suffix}")
    }
}

proptest! {
    #[test]
    fn canonical_is_idempotent(text in texts()) {
        let once = canonical(&text).expect("the text is a quantity");
        // Decimal values beyond E print without their suffix and are other quantities when read back; the canonical
        // text of that is a fixed point all the same.
        let twice = canonical(&once).expect("canonical text is a quantity");
        prop_assert_eq!(canonical(&twice).expect("canonical text is a quantity"), twice);
    }

    #[test]
    fn canonical_keeps_the_value(text in texts()) {
        let quantity = Quantity::parse(&text).expect("the text is a quantity");
        prop_assume!(quantity.as_f64().abs() < 1e20);
        let again = Quantity::parse(&quantity.to_string()).expect("canonical text is a quantity");
        prop_assert_eq!(quantity, again);
    }

    #[test]
    fn order_is_the_order_of_the_numbers(left in texts(), right in texts()) {
        let (left, right) = (
            Quantity::parse(&left).expect("the text is a quantity"),
            Quantity::parse(&right).expect("the text is a quantity"),
        );
        prop_assert_eq!(left.cmp(&right), right.cmp(&left).reverse());
        match left.cmp(&right) {
            Ordering::Less => prop_assert!(left.as_f64() <= right.as_f64()),
            Ordering::Equal => prop_assert!((left.as_f64() - right.as_f64()).abs() == 0.0),
            Ordering::Greater => prop_assert!(left.as_f64() >= right.as_f64()),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        // No panic, and what is accepted prints as something that is accepted.
        if let Ok(text) = canonical(&text) {
            prop_assert!(canonical(&text).is_ok());
        }
    }
}
