//! Holding what was found against what was recorded.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{Difference, Objects, difference::between, normalize};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Whether what was found never met an API server, so that its defaults are taken out of both sides.
    pub ignore_defaults: bool,
    /// Where the containers are compared.
    pub containers: Containers,
}

/// Where containers, volumes and the rest of a Pod are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// In Pods: a Deployment's template is left out. For whoever injects storage into the Deployment, where `KServe` does
    /// that to Pods.
    Pods,
    /// In the templates of Deployments: Pods are left out. For whoever leaves injection to `KServe`'s webhook.
    Deployments,
}

impl Comparison {
    /// Adds every difference between two sets of objects; paths begin with `prefix`.
    pub fn between(self, prefix: &str, recorded: &Objects, found: &Objects, out: &mut Vec<Difference>) {
        let names: BTreeSet<&String> = recorded.keys().chain(found.keys()).collect();
        for name in names {
            let path = format!("{prefix}/{name}");
            if name == "events" {
                events(&path, recorded.get(name), found.get(name), out);
                continue;
            }
            let is_pod = name.starts_with("pod");
            if is_pod && self.containers == Containers::Deployments {
                continue;
            }
            match (recorded.get(name), found.get(name)) {
                (Some(recorded), Some(found)) => self.object(&path, name, recorded.clone(), found.clone(), out),
                (recorded, found) => {
                    let present = |object: Option<&Value>| object.map(|_| json!("an object"));
                    out.push(Difference {
                        path,
                        recorded: present(recorded),
                        found: present(found),
                    });
                }
            }
        }
    }

    fn object(self, path: &str, name: &str, mut recorded: Value, mut found: Value, out: &mut Vec<Difference>) {
        let is_service = name.starts_with("inferenceservice.");
        for side in [&mut recorded, &mut found] {
            if self.ignore_defaults {
                normalize::without_defaults(name, side);
            }
            if name.starts_with("deployment.")
                && self.containers == Containers::Pods
                && let Some(spec) = side["spec"].as_object_mut()
            {
                spec.remove("template");
            }
            if let Some(object) = side.as_object_mut() {
                // Written by the harness or by Kubernetes' controllers.
                object.retain(|field, value| {
                    is_service && field == "status" || (field != "status" && field != "apiVersion" && !value.is_null())
                });
            }
        }
        if is_service {
            // Its metadata are the user's. Only who applies the defaults of admission in memory has a spec to show.
            for part in ["spec", "status"] {
                if part == "status" || found.get(part).is_some() {
                    between(&format!("{path}.{part}"), recorded.get(part), found.get(part), out);
                }
            }
            return;
        }
        for part in ["labels", "annotations", "ownerReferences"] {
            if part == "ownerReferences" && name.starts_with("pod") {
                continue;
            }
            let pointer = format!("/metadata/{part}");
            between(
                &format!("{path}.{part}"),
                recorded.pointer(&pointer),
                found.pointer(&pointer),
                out,
            );
        }
        for side in [&mut recorded, &mut found] {
            if let Some(object) = side.as_object_mut() {
                object.remove("metadata");
                object.remove("kind");
            }
        }
        between(path, Some(&recorded), Some(&found), out);
    }
}

/// Events as sets: what was said, not how often or in which order.
fn events(path: &str, recorded: Option<&Value>, found: Option<&Value>, out: &mut Vec<Difference>) {
    let set = |list: Option<&Value>| -> BTreeSet<[String; 4]> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        let field = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        list.map(|event| ["type", "reason", "object", "message"].map(|name| field(event, name)))
            .collect()
    };
    let (recorded, found) = (set(recorded), set(found));
    let mut tell = |[type_, reason, object, message]: &[String; 4], was_recorded: bool| {
        let text = Some(json!(format!("{object}: {message}")));
        let (recorded, found) = if was_recorded { (text, None) } else { (None, text) };
        out.push(Difference {
            path: format!("{path}.{type_}.{reason}"),
            recorded,
            found,
        });
    };
    recorded.difference(&found).for_each(|event| tell(event, true));
    found.difference(&recorded).for_each(|event| tell(event, false));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Comparison, Containers};
    use crate::Objects;

    const LIVE: Comparison = Comparison {
        ignore_defaults: false,
        containers: Containers::Pods,
    };

    fn differences(comparison: Comparison, recorded: Value, found: Value) -> Vec<String> {
        let objects = |value: Value| -> Objects { serde_json::from_value(value).expect("a map") };
        let mut out = Vec::new();
        comparison.between("e", &objects(recorded), &objects(found), &mut out);
        out.into_iter().map(|difference| difference.path).collect()
    }

    #[test]
    fn objects_only_one_side_has_are_differences() {
        let paths = differences(
            LIVE,
            json!({"service.a": {}, "hpa.a": {}}),
            json!({"hpa.a": {}, "pod": {}}),
        );
        assert_eq!(paths, ["e/pod", "e/service.a"]);
    }

    #[test]
    fn every_field_counts_but_kubernetes_own() {
        let recorded = json!({"configmap.c": {"kind": "ConfigMap", "metadata": {"labels": {"a": "1"}, "name": "c"},
            "data": {"k": "v"}, "status": 1}});
        let mut found = recorded.clone();
        found["configmap.c"]["status"] = json!(2);
        assert!(differences(LIVE, recorded.clone(), found.clone()).is_empty());
        found["configmap.c"]["data"]["k"] = json!("w");
        found["configmap.c"]["metadata"]["labels"] = json!({});
        assert_eq!(
            differences(LIVE, recorded, found),
            ["e/configmap.c.labels.a", "e/configmap.c.data.k"]
        );
    }

    #[test]
    fn containers_are_compared_in_one_place() {
        let side = |template: i64, pod: i64| json!({"deployment.d": {"spec": {"replicas": 1, "template": template}}, "pod": {"spec": {"x": pod}}});
        assert_eq!(differences(LIVE, side(1, 1), side(2, 2)), ["e/pod.spec.x"]);
        let annotations = Comparison {
            containers: Containers::Deployments,
            ..LIVE
        };
        assert_eq!(
            differences(annotations, side(1, 1), side(2, 2)),
            ["e/deployment.d.spec.template"]
        );
    }

    #[test]
    fn of_a_service_the_status_counts_and_the_spec_where_there_is_one() {
        let recorded =
            json!({"inferenceservice.m": {"metadata": {"finalizers": ["x"]}, "spec": {"a": 1}, "status": {"b": 1}}});
        let found = json!({"inferenceservice.m": {"status": {"b": 2}}});
        assert_eq!(
            differences(LIVE, recorded.clone(), found),
            ["e/inferenceservice.m.status.b"]
        );
        let found = json!({"inferenceservice.m": {"spec": {"a": 2}, "status": {"b": 1}}});
        assert_eq!(differences(LIVE, recorded, found), ["e/inferenceservice.m.spec.a"]);
    }

    #[test]
    fn events_are_sets() {
        let event = |message: &str| json!({"type": "Normal", "reason": "R", "object": "m", "message": message});
        let recorded = json!({"events": [event("a"), event("b")]});
        assert!(
            differences(
                LIVE,
                recorded.clone(),
                json!({"events": [event("b"), event("a"), event("a")]})
            )
            .is_empty()
        );
        assert_eq!(
            differences(LIVE, recorded.clone(), json!({"events": [event("a"), event("c")]})),
            ["e/events.Normal.R", "e/events.Normal.R"]
        );
        assert_eq!(differences(LIVE, recorded, json!({})).len(), 2);
    }

    #[test]
    fn the_servers_defaults_can_be_left_out() {
        let recorded = json!({"service.a": {"spec": {"type": "ClusterIP", "ports": []}}});
        let found = json!({"service.a": {"spec": {"ports": []}}});
        assert_eq!(
            differences(LIVE, recorded.clone(), found.clone()),
            ["e/service.a.spec.type"]
        );
        let pure = Comparison {
            ignore_defaults: true,
            ..LIVE
        };
        assert!(differences(pure, recorded, found).is_empty());
    }
}
