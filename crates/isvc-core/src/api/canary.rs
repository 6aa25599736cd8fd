//! `spec.canary`: variants of the predictor that take a share of the requests.

use serde_json::Value;

use super::{Component, ComponentKind, InvalidField, Object, fields::Fields};

/// What a variant does not take over from the predictor: its number of replicas follows its share.
const SCALING: [&str; 7] = [
    "minReplicas",
    "maxReplicas",
    "scaleTarget",
    "scaleMetric",
    "scaleMetricType",
    "autoScaling",
    "canaryTrafficPercent",
];

/// One variant.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Share of the requests, in percent.
    pub traffic_percent: i32,
    /// What is written in the entry.
    pub given: Component,
    /// Fields of the entry that a variant must not have.
    pub forbidden: Vec<&'static str>,
    /// The predictor with what is written in the entry laid over it.
    pub predictor: Component,
}

impl Canary {
    /// Name of the variant.
    #[must_use]
    pub fn name(&self) -> &str {
        self.predictor.variant.as_deref().unwrap_or_default()
    }

    /// Reads an entry; `predictor` is the stable one as it is written.
    pub(super) fn parse(
        index: usize,
        mut entry: Fields,
        predictor: &Object,
        unsupported: &mut Vec<String>,
    ) -> Result<Self, InvalidField> {
        let path = entry.path("predictor");
        let traffic_percent = entry.take("trafficPercent")?.unwrap_or_default();
        let given = entry.take_object("predictor")?.map(Fields::rest).unwrap_or_default();
        let forbidden = ["workerSpec", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"];
        let forbidden = forbidden
            .into_iter()
            .filter(|field| given.get(*field).is_some_and(|value| !is_empty(value)));
        let parse = |object: Object, unsupported: &mut Vec<String>| {
            let fields = Fields::new(path.as_str(), Value::Object(object))?;
            let mut component = Component::parse(ComponentKind::Predictor, fields, unsupported)?;
            component.canary = Some(index);
            Ok::<_, InvalidField>(component)
        };
        Ok(Self {
            traffic_percent,
            forbidden: forbidden.collect(),
            predictor: parse(overlaid(predictor, &given), unsupported)?,
            given: parse(given, &mut Vec::new())?,
        })
    }
}

/// Whether a field says nothing. Zero and false say something: in Kubernetes' types such fields are optional.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

/// The stable predictor with the fields of the variant in the place of its own. A variant's implementation replaces the
/// stable one's, whatever kind it is of.
fn overlaid(stable: &Object, variant: &Object) -> Object {
    let implementations = || super::component::LEGACY_FRAMEWORKS.into_iter().chain(["model"]);
    let implements = implementations().any(|field| variant.get(field).is_some_and(|value| !value.is_null()));
    let mut object = stable.clone();
    object.remove("name");
    for field in SCALING {
        object.remove(field);
    }
    if implements {
        for field in implementations() {
            object.remove(field);
        }
    }
    for (field, value) in variant {
        if !is_empty(value) {
            object.insert(field.clone(), value.clone());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(stable: Value, variant: Value, expected: Value) {
        let object = |value: Value| value.as_object().cloned().expect("an object");
        assert_eq!(overlaid(&object(stable), &object(variant)), object(expected));
    }

    #[test]
    fn a_variant_is_the_predictor_with_its_own_fields() {
        check(
            json!({"model": {"storageUri": "a"}, "serviceAccountName": "s", "minReplicas": 4, "maxReplicas": 9, "name": "x"}),
            json!({"model": {"storageUri": "b"}, "name": "green", "nodeSelector": {}, "automountServiceAccountToken": false}),
            json!({"model": {"storageUri": "b"}, "serviceAccountName": "s", "name": "green",
                "automountServiceAccountToken": false}),
        );
    }

    #[test]
    fn an_implementation_replaces_one_of_another_kind() {
        check(
            json!({"sklearn": {"storageUri": "a"}}),
            json!({"model": {"storageUri": "b"}}),
            json!({"model": {"storageUri": "b"}}),
        );
    }
}
