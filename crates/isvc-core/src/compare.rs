//! Is a live child what it should be? Compared as the API server defaulted it, so that a steady pass writes nothing.
//!
//! Two questions decide. Does the live object hold everything we mean ([`covers`])? And do we own a field there that
//! we no longer mean ([`owns_more`])? The second is answered by the ownership the API server records for our field
//! manager, so a label or an environment variable that disappeared from the specification is found, while fields of
//! others are left alone.

use std::hash::BuildHasher;

use serde_json::{Value, json};

use crate::{
    desired::{Desired, Wanted},
    observed::LiveObject,
};

/// What to do with the children of one kind.
#[derive(Debug, Default, PartialEq)]
pub struct Changes<'a> {
    /// Objects to apply, in order.
    pub apply: Vec<&'a Desired>,
    /// Live objects of ours nobody wants any more, as (name, uid).
    pub delete: Vec<(&'a str, &'a str)>,
    /// Live objects that were compared and are as they should be, with the digest of the desired object: it is enough to
    /// remember that, see [`LiveObject::confirmed`].
    pub proved: Vec<Proof<'a>>,
}

/// A live object is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    /// The object's name.
    pub name: &'a str,
    /// Digest of what was compared, see [`LiveObject::facts`].
    pub facts: u64,
    /// Digest of the desired object.
    pub desired: u64,
}

/// Compares what is wanted with what is live. Only objects controlled by `owner_uid` are ever deleted. `keys` are those of
/// all digests of the process.
#[must_use]
pub fn changes<'a>(
    wanted: &'a Wanted,
    live: &[&'a LiveObject],
    owner_uid: &str,
    keys: &impl BuildHasher,
) -> Changes<'a> {
    let ours = || {
        let objects = live.iter().copied();
        objects.filter(|object| object.controller.as_ref().is_some_and(|owner| owner.uid == owner_uid))
    };
    let mut changes = Changes::default();
    for desired in &wanted.objects {
        let digest = desired.digest(keys);
        match ours().find(|object| object.name == desired.name) {
            Some(live) if live.confirmed == Some(digest) => {}
            Some(live) if live.confirmed.is_none() && is_as(desired, live) => changes.proved.push(Proof {
                name: &live.name,
                facts: live.facts,
                desired: digest,
            }),
            _ => changes.apply.push(desired),
        }
    }
    let is_wanted = |object: &&LiveObject| {
        wanted.objects.iter().any(|desired| desired.name == object.name) || wanted.kept.contains(&object.name)
    };
    changes.delete = ours()
        .filter(|object| !is_wanted(object))
        .map(|object| (object.name.as_str(), object.uid.as_str()))
        .collect();
    changes
}

/// Whether a live object of ours needs no write.
fn is_as(desired: &Desired, live: &LiveObject) -> bool {
    let Some(owned) = &live.owned else { return false };
    let meant = json!({
        "metadata": {
            "labels": desired.labels,
            "annotations": desired.annotations,
            "ownerReferences": [desired.owner],
        },
        "spec": desired.spec,
    });
    live.controller.as_ref() == Some(&desired.owner)
        && desired
            .labels
            .iter()
            .all(|(key, value)| live.labels.get(key) == Some(value))
        && desired
            .annotations
            .iter()
            .all(|(key, value)| live.annotations.get(key) == Some(value))
        && covers("spec", &live.spec, &desired.spec)
        && !owns_more(owned, &meant)
}

/// Whether `live` holds everything `desired` means. What only the server set may be there besides.
#[must_use]
pub fn covers(field: &str, live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(name, wanted)| match live.get(name) {
            Some(found) => covers(name, found, wanted),
            // Go's JSON leaves zero values out.
            None => is_zero(wanted),
        }),
        (Value::Array(live), Value::Array(desired)) => match list_keys(field) {
            Some(keys) => covers_keyed(keys, live, desired),
            None => live.len() == desired.len() && live.iter().zip(desired).all(|(l, d)| covers("", l, d)),
        },
        (Value::Number(live), Value::Number(desired)) => live.as_f64() == desired.as_f64(),
        (live, desired) => live == desired || (is_zero(live) && is_zero(desired)),
    }
}

/// Lists merged by key may hold elements of others; ours must be there, in our order.
fn covers_keyed(keys: &[&str], live: &[Value], desired: &[Value]) -> bool {
    let mut rest = live.iter();
    desired.iter().all(|wanted| {
        rest.by_ref()
            .find(|found| keys.iter().all(|key| key_value(found, key) == key_value(wanted, key)))
            .is_some_and(|found| covers("", found, wanted))
    })
}

fn key_value<'a>(element: &'a Value, key: &str) -> Option<&'a Value> {
    // The one key the API server defaults; both sides are read alike, so an absent protocol on both is equal too.
    static TCP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from("TCP"));
    element.get(key).or_else(|| (key == "protocol").then_some(&*TCP))
}

/// The keys of lists that server-side apply merges element by element, by field name, in the specs we write.
fn list_keys(field: &str) -> Option<&'static [&'static str]> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims" => &["name"],
        // A container's ports have containerPort, a Service's have port.
        "ports" => &["containerPort", "port", "protocol"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "hostAliases" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        _ => return None,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.values().all(is_zero),
    }
}

/// Whether `owned` (`fieldsV1` of our manager) names a field that `meant` no longer has.
#[must_use]
pub fn owns_more(owned: &Value, meant: &Value) -> bool {
    let Value::Object(owned) = owned else { return false };
    owned.iter().any(|(path, below)| match select(path, meant) {
        Selected::Itself => false,
        Selected::Child(child) => owns_more(below, child),
        Selected::Nothing => true,
    })
}

enum Selected<'a> {
    Itself,
    Child(&'a Value),
    Nothing,
}

/// Follows one step of `fieldsV1`: `f:` a field, `k:` an element by its keys, `v:` an element by its value, `i:` an
/// element by its index, `.` the value itself.
fn select<'a>(step: &str, value: &'a Value) -> Selected<'a> {
    if step == "." {
        return Selected::Itself;
    }
    let found = match step.split_once(':') {
        Some(("f", name)) => value.get(name),
        Some(("k", keys)) => serde_json::from_str::<Value>(keys).ok().and_then(|keys| {
            let keys = keys.as_object()?.clone();
            value.as_array()?.iter().find(|element| {
                keys.iter()
                    .all(|(key, wanted)| element.get(key).is_none_or(|found| found == wanted))
            })
        }),
        Some(("v", text)) => serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|wanted| value.as_array()?.iter().find(|element| **element == wanted)),
        Some(("i", index)) => index.parse::<usize>().ok().and_then(|index| value.get(index)),
        // A kind of step this version does not know: assume it is still meant.
        _ => return Selected::Itself,
    };
    found.map_or(Selected::Nothing, Selected::Child)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    fn keys() -> BuildHasherDefault<DefaultHasher> {
        BuildHasherDefault::default()
    }

    #[test]
    fn defaults_of_the_server_do_not_count() {
        let desired = json!({"ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}], "selector": {"app": "a"}});
        let live = json!({"ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP", "name": ""}],
            "selector": {"app": "a"}, "type": "ClusterIP", "clusterIP": "10.0.0.7"});
        assert!(covers("spec", &live, &desired));
    }

    #[test]
    fn a_changed_or_missing_value_counts() {
        let live = json!({"a": {"b": 1}, "list": ["x"]});
        for desired in [
            json!({"a": {"b": 2}}),
            json!({"a": {"c": "x"}}),
            json!({"list": ["x", "y"]}),
            json!({"list": []}),
        ] {
            assert!(!covers("spec", &live, &desired), "{desired}");
        }
        for desired in [
            json!({"a": {"b": 1}}),
            json!({"a": {"c": ""}}),
            json!({"gone": false}),
            json!({"a": {"d": {}}}),
        ] {
            assert!(covers("spec", &live, &desired), "{desired}");
        }
    }

    #[test]
    fn foreign_elements_of_keyed_lists_are_left_alone_but_order_is_ours() {
        let live = json!({"env": [{"name": "A", "value": "1"}, {"name": "FOREIGN"}, {"name": "B", "value": "2"}]});
        assert!(covers(
            "",
            &live,
            &json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})
        ));
        assert!(!covers(
            "",
            &live,
            &json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]})
        ));
        assert!(!covers("", &live, &json!({"env": [{"name": "C", "value": "1"}]})));
    }

    #[test]
    fn a_field_we_own_and_no_longer_mean_is_found() {
        let meant = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"env": [{"name": "A", "value": "1"}],
            "ports": [{"containerPort": 80}]}});
        let owned = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {
            "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}});
        assert!(!owns_more(&owned, &meant));
        for more in [
            json!({"f:metadata": {"f:labels": {"f:b": {}}}}),
            json!({"f:spec": {"f:env": {"k:{\"name\":\"B\"}": {}}}}),
            json!({"f:spec": {"f:env": {"k:{\"name\":\"A\"}": {"f:valueFrom": {}}}}}),
            json!({"f:spec": {"f:replicas": {}}}),
        ] {
            assert!(owns_more(&more, &meant), "{more}");
        }
    }

    fn owner(uid: &str) -> crate::api::OwnerReference {
        crate::api::OwnerReference {
            uid: uid.into(),
            controller: true,
            ..Default::default()
        }
    }

    #[test]
    fn only_our_own_leftovers_are_deleted() {
        let live = |name: &str, uid: Option<&str>| LiveObject {
            name: name.into(),
            uid: format!("uid-{name}"),
            controller: uid.map(owner),
            ..LiveObject::default()
        };
        let live = [
            live("left", Some("u")),
            live("kept", Some("u")),
            live("foreign", Some("v")),
            live("loose", None),
        ];
        let wanted = Wanted {
            objects: Vec::new(),
            kept: vec!["kept".into()],
        };
        let live: Vec<_> = live.iter().collect();
        assert_eq!(changes(&wanted, &live, "u", &keys()).delete, [("left", "uid-left")]);
    }

    #[test]
    fn an_object_we_never_applied_is_applied_once() {
        let desired = Desired {
            name: "m".into(),
            namespace: "d".into(),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            annotations: [].into(),
            owner: owner("u"),
            spec: json!({"x": 1}),
        };
        let wanted = Wanted {
            objects: vec![desired.clone()],
            kept: Vec::new(),
        };
        let mut live = LiveObject {
            name: "m".into(),
            uid: "1".into(),
            controller: Some(owner("u")),
            labels: desired.labels.clone(),
            spec: json!({"x": 1, "y": 2}),
            ..LiveObject::default()
        };
        assert_eq!(changes(&wanted, &[&live], "u", &keys()).apply.len(), 1);
        live.owned = Some(json!({"f:spec": {"f:x": {}}}));
        assert_eq!(changes(&wanted, &[&live], "u", &keys()).apply.len(), 0);
    }

    #[test]
    fn what_was_confirmed_is_written_when_something_else_is_wanted() {
        let mut desired = Desired {
            name: "m".into(),
            namespace: "d".into(),
            labels: [].into(),
            annotations: [].into(),
            owner: owner("u"),
            spec: json!({"x": 1}),
        };
        let whole = LiveObject {
            name: "m".into(),
            controller: Some(owner("u")),
            spec: json!({"x": 1, "y": 2}),
            owned: Some(json!({"f:spec": {"f:x": {}}})),
            facts: 7,
            ..LiveObject::default()
        };
        let wanted = |desired: &Desired| Wanted {
            objects: vec![desired.clone()],
            kept: Vec::new(),
        };
        let first = wanted(&desired);
        let proof = changes(&first, &[&whole], "u", &keys()).proved[0];
        assert_eq!(
            (proof.name, proof.facts, proof.desired),
            ("m", 7, desired.digest(&keys()))
        );
        let live = LiveObject {
            name: "m".into(),
            controller: Some(owner("u")),
            facts: proof.facts,
            confirmed: Some(proof.desired),
            ..LiveObject::default()
        };
        assert_eq!(changes(&first, &[&live], "u", &keys()), Changes::default());
        desired.spec["x"] = json!(3);
        assert_eq!(changes(&wanted(&desired), &[&live], "u", &keys()).apply.len(), 1);
    }
}
