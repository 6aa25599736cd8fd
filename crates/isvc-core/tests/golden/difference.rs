//! Differences between two JSON documents, by path.

use std::fmt;

use serde_json::Value;

pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) expected: Option<Value>,
    pub(crate) found: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or("(absent)".to_owned(), ToString::to_string);
        write!(
            formatter,
            "{}\n    recorded {}\n    found    {}",
            self.path,
            show(&self.expected),
            show(&self.found)
        )
    }
}

/// Differences of `found` against `expected`. Objects are descended into, lists compared element by element.
pub(crate) fn between(path: &str, expected: Option<&Value>, found: Option<&Value>, out: &mut Vec<Difference>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                between(&format!("{path}.{key}"), expected.get(key), found.get(key), out);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                between(&format!("{path}[{index}]"), Some(expected), Some(found), out);
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => {
            out.push(Difference {
                path: path.to_owned(),
                expected: expected.cloned(),
                found: found.cloned(),
            });
        }
    }
}
