//! Differences between two JSON documents, by path.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

/// A place where what was found is not what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: `EXPECTATION/OBJECT.FIELD.FIELD[INDEX]`.
    pub path: String,
    /// What the recording has there, if anything.
    pub recorded: Option<Value>,
    /// What was found there, if anything.
    pub found: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or("(absent)".to_owned(), ToString::to_string);
        write!(
            formatter,
            "{}\n    recorded {}\n    found    {}",
            self.path,
            show(&self.recorded),
            show(&self.found)
        )
    }
}

/// Adds the differences of `found` against `recorded`. Objects are descended into, lists of one length compared element by
/// element, other lists told as a whole.
pub(crate) fn between(path: &str, recorded: Option<&Value>, found: Option<&Value>, out: &mut Vec<Difference>) {
    match (recorded, found) {
        (Some(Value::Object(recorded)), Some(Value::Object(found))) => {
            let keys: BTreeSet<&String> = recorded.keys().chain(found.keys()).collect();
            for key in keys {
                between(&format!("{path}.{key}"), recorded.get(key), found.get(key), out);
            }
        }
        (Some(Value::Array(recorded)), Some(Value::Array(found))) if recorded.len() == found.len() => {
            for (index, (recorded, found)) in recorded.iter().zip(found).enumerate() {
                between(&format!("{path}[{index}]"), Some(recorded), Some(found), out);
            }
        }
        (recorded, found) if recorded == found => {}
        (recorded, found) => {
            out.push(Difference {
                path: path.to_owned(),
                recorded: recorded.cloned(),
                found: found.cloned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::between;

    fn paths(recorded: &Value, found: &Value) -> Vec<String> {
        let mut out = Vec::new();
        between("x", Some(recorded), Some(found), &mut out);
        out.into_iter().map(|difference| difference.path).collect()
    }

    #[test]
    fn a_difference_is_found_where_it_is() {
        let recorded = json!({"a": 1, "b": {"c": [1, {"d": "x"}]}, "e": []});
        assert!(paths(&recorded, &recorded).is_empty());
        let found = json!({"a": 1, "b": {"c": [1, {"d": "y"}]}, "f": null});
        assert_eq!(paths(&recorded, &found), ["x.b.c[1].d", "x.e", "x.f"]);
        assert_eq!(paths(&json!({"c": [1, 2]}), &json!({"c": [2]})), ["x.c"]);
        assert_eq!(paths(&json!(1), &json!("1")), ["x"]);
    }
}
