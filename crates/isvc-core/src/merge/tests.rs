use proptest::prelude::*;
use serde_json::json;

use super::*;

const TABLE: &str = include_str!("../../tests/oracle/merge.jsonl");

/// Merges as strategic merge alone does, without the rules of this project.
fn strategic(kind: &str, base: &Value, patch: &Value) -> Value {
    let kind = schema::Type::named(kind);
    assert!(kind.is_some(), "the table names known types");
    let patch = typed(kind, object(patch));
    Value::Object(merge_struct(kind, typed(kind, object(base)), &patch))
}

#[test]
fn agrees_with_the_recorded_table() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).expect("the table holds JSON");
        let kind = row["kind"].as_str().expect("each row has a kind");
        count += 1;
        let merged = strategic(kind, &row["base"], &row["patch"]);
        // What the Go types write although it is empty is in the recording and is absent here.
        let expected = Value::Object(typed(schema::Type::named(kind), object(&row["merged"])));
        if merged != expected {
            wrong.push(format!("{line}\n    got {merged}"));
        }
    }
    assert!(count > 400, "only {count} rows");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n")
    );
}
