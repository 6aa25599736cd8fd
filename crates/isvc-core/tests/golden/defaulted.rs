//! Specifications with the defaults of admission.

use isvc_core::{
    api::{InferenceService, InferenceServiceStatus, Meta},
    defaults,
    settings::Settings,
};
use serde_json::{Value, json};

/// The specification with the defaults of admission, to be held against the recorded one: the recorded one itself where
/// both mean the same. The core does not write specifications, so both are read and compared as it understands them.
pub(crate) fn spec(written: &Value, settings: &Settings, recorded: &Value) -> Value {
    // A specification that cannot be read is refused, which shows in the status.
    let (Some(expected), Some(mut found)) = (read(recorded), read(written)) else {
        return recorded["spec"].clone();
    };
    if defaults::apply(&mut found, settings).is_err() {
        return recorded["spec"].clone();
    }
    let (expected, found) = (format!("{:#?}", expected.spec), format!("{:#?}", found.spec));
    if expected == found {
        return recorded["spec"].clone();
    }
    let lines = expected.lines().zip(found.lines());
    let differing: Vec<String> = lines
        .filter(|(expected, found)| expected != found)
        .take(3)
        .map(|(expected, found)| format!("{} / {}", expected.trim(), found.trim()))
        .collect();
    json!(differing)
}

fn read(object: &Value) -> Option<InferenceService> {
    let meta: Meta = serde_json::from_value(object["metadata"].clone()).ok()?;
    let mut spec = object["spec"].clone();
    without_empty(&mut spec);
    InferenceService::parse(meta, spec, InferenceServiceStatus::default()).ok()
}

/// `KServe`'s webhook writes the object anew: it leaves empty values where there were none, and says where a model goes
/// that goes where models go.
fn without_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_empty);
            for (key, nothing) in [
                ("resources", json!({})),
                ("name", json!("")),
                ("mountPath", json!("/mnt/models")),
            ] {
                if map.get(key) == Some(&nothing) {
                    map.remove(key);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(without_empty),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
