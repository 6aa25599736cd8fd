//! Is an object of ours what it should be? Compared as the API server defaulted it, so that a steady pass writes nothing.

use serde_json::Value;

/// Whether `live` is as `meant`: our labels, annotations and owner are there, and its specification is ours and nothing else.
pub(super) fn is_as_meant(meant: &Value, live: &Value) -> bool {
    let of = |object: &Value, pointer| object.pointer(pointer).cloned().unwrap_or_default();
    let holds = |pointer| {
        let (meant, live) = (of(meant, pointer), of(live, pointer));
        meant
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| live.get(key) == Some(value))
    };
    let owners = of(live, "/metadata/ownerReferences");
    let owned = of(meant, "/metadata/ownerReferences")
        .as_array()
        .into_iter()
        .flatten()
        .all(|meant| {
            let mut owners = owners.as_array().into_iter().flatten();
            owners.any(|owner| is_same(meant, owner))
        });
    holds("/metadata/labels")
        && holds("/metadata/annotations")
        && owned
        && is_same(&of(meant, "/spec"), &of(live, "/spec"))
}

/// Whether two values mean the same, where the live one may have more defaults written out.
fn is_same(meant: &Value, live: &Value) -> bool {
    match (meant, live) {
        (Value::Object(meant), Value::Object(live)) => {
            meant.iter().all(|(key, meant)| {
                live.get(key)
                    .map_or_else(|| is_default(meant), |live| is_same(meant, live))
            }) && live
                .iter()
                .all(|(key, live)| meant.contains_key(key) || is_default(live))
        }
        (Value::Array(meant), Value::Array(live)) => {
            meant.len() == live.len() && meant.iter().zip(live).all(|(meant, live)| is_same(meant, live))
        }
        (meant, live) => meant == live,
    }
}

/// Whether a value says no more than that nothing was said. Source: defaults of admissionregistration.k8s.io/v1.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => matches!(text.as_str(), "" | "*" | "Equivalent"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meant() -> Value {
        json!({
            "metadata": {
                "name": "a",
                "labels": {"ours": "1"},
                "ownerReferences": [{"kind": "InferencePolicy", "name": "a", "uid": "u", "blockOwnerDeletion": false}],
            },
            "spec": {"policyName": "p", "validationActions": ["Deny"], "matchResources": {"objectSelector": {}}},
        })
    }

    fn live(pointer: &str, value: Value) -> Value {
        let mut live = meant();
        live["metadata"]["labels"]["theirs"] = json!("2");
        live["metadata"]["uid"] = json!("x");
        live["spec"]["matchResources"]["matchPolicy"] = json!("Equivalent");
        if let Some(at) = live.pointer_mut(pointer) {
            *at = value;
        }
        live
    }

    #[test]
    fn defaults_and_labels_of_others_are_no_difference() {
        assert!(is_as_meant(&meant(), &live("/nothing", Value::Null)));
    }

    #[test]
    fn anything_that_weakens_a_binding_is_one() {
        for (pointer, value) in [
            ("/spec/validationActions", json!(["Audit"])),
            ("/spec/validationActions", json!(["Deny", "Audit"])),
            ("/spec/policyName", json!("q")),
            (
                "/spec/matchResources",
                json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}),
            ),
            ("/spec/matchResources", json!({"excludeResourceRules": [{}]})),
            ("/metadata/labels", json!({})),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/uid", json!("v")),
        ] {
            assert!(
                !is_as_meant(&meant(), &live(pointer, value.clone())),
                "{pointer} {value}"
            );
        }
    }
}
