//! One recorded case: its description, its steps, and the comparison at each of its expectations.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    difference::{self, Difference},
    normalize,
    world::{Outcome, World},
};

#[derive(Deserialize)]
struct Description {
    id: String,
    area: String,
    config: String,
    namespace: String,
    steps: Vec<Value>,
}

pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) area: String,
    pub(crate) directory: String,
    description: Description,
    path: std::path::PathBuf,
}

pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // `n` is a name in these files, not a boolean.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Case {
    pub(crate) fn all(directory: &Path) -> Vec<Case> {
        let mut cases: Vec<Case> = std::fs::read_dir(directory)
            .expect("golden/cases is part of the crate")
            .map(|entry| {
                let path = entry.expect("a readable directory").path();
                let text = std::fs::read_to_string(path.join("case.yaml")).expect("every case has a case.yaml");
                let description: Description =
                    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                Case {
                    id: description.id.clone(),
                    area: description.area.clone(),
                    directory: path.file_name().expect("a named folder").to_string_lossy().into_owned(),
                    description,
                    path,
                }
            })
            .collect();
        cases.sort_by(|a, b| a.directory.cmp(&b.directory));
        assert!(!cases.is_empty(), "no cases");
        cases
    }

    /// Runs all steps and returns every difference found.
    pub(crate) fn run(&self, root: &Path) -> Vec<Difference> {
        let config = documents(&root.join("config").join(&self.description.config)).remove(0);
        let mut world = World::new(&self.description.namespace, &config);
        for document in documents(&root.join("cluster.yaml")) {
            world.apply(document);
        }
        let mut differences = Vec::new();
        for step in &self.description.steps {
            for key in step.as_object().expect("a step is a map").keys() {
                assert!(
                    ["apply", "patch", "ready", "podStatus", "wait", "expect"].contains(&key.as_str()),
                    "{}: step {key} is not known here",
                    self.directory
                );
            }
            if let Some(file) = step["apply"].as_str() {
                world.tick();
                for document in documents(&self.path.join(file)) {
                    world.apply(document);
                }
            }
            if step["patch"].is_object() {
                world.patch(&step["patch"]);
            }
            let expected: Option<BTreeMap<String, Value>> = step["expect"].as_str().map(|directory| {
                let file = self.path.join(format!("{directory}.yaml"));
                serde_json::from_value(documents(&file).remove(0)).expect("a map by object")
            });
            // Children and Pods exist from here on, as far as the recording has them.
            world.settle(expected.as_ref());
            for name in step["ready"].as_array().into_iter().flatten() {
                world.ready(name.as_str().expect("a Deployment's name"));
            }
            if step["podStatus"].is_object() {
                world.pod_status(&step["podStatus"]);
            }
            if let Some(expected) = expected {
                let outcome = world.settle(Some(&expected));
                let prefix = step["expect"].as_str().unwrap_or_default();
                compare(prefix, &expected, &outcome, &mut differences);
            }
        }
        differences
    }
}

fn compare(prefix: &str, expected: &BTreeMap<String, Value>, outcome: &Outcome, out: &mut Vec<Difference>) {
    let mut names: std::collections::BTreeSet<&String> = expected.keys().collect();
    names.extend(outcome.objects.keys());
    for name in names {
        if name.starts_with("pod") || name == "events" {
            continue;
        }
        let path = format!("{prefix}/{name}");
        let (Some(recorded), Some(found)) = (expected.get(name), outcome.objects.get(name)) else {
            let present = |value: Option<&Value>| value.map(|_| json!("an object"));
            out.push(Difference {
                path,
                expected: present(expected.get(name)),
                found: present(outcome.objects.get(name)),
            });
            continue;
        };
        let (mut recorded, mut found) = (recorded.clone(), found.clone());
        let kind = name.split('.').next().unwrap_or_default();
        match kind {
            "deployment" => {
                let deployment = name.strip_prefix("deployment.").unwrap_or_default();
                let pod = expected
                    .get("pod")
                    .or_else(|| expected.get(&format!("pod.{deployment}")));
                compare_template(&path, pod, &found["spec"]["template"], out);
                for side in [&mut recorded, &mut found] {
                    normalize::deployment_spec(&mut side["spec"]);
                }
            }
            "service" => [&mut recorded, &mut found]
                .into_iter()
                .for_each(|s| normalize::service_spec(&mut s["spec"])),
            "hpa" => [&mut recorded, &mut found]
                .into_iter()
                .for_each(|s| normalize::horizontal_pod_autoscaler_spec(&mut s["spec"])),
            "inferenceservice" => {
                for side in [&mut recorded, &mut found] {
                    normalize::status(&mut side["status"]);
                }
                difference::between(
                    &format!("{path}.status"),
                    recorded.get("status"),
                    found.get("status"),
                    out,
                );
                continue;
            }
            _ => {}
        }
        for part in ["labels", "annotations", "ownerReferences"] {
            let pointer = format!("/metadata/{part}");
            let (recorded, found) = (recorded.pointer(&pointer), found.pointer(&pointer));
            difference::between(&format!("{path}.{part}"), recorded, found, out);
        }
        difference::between(&format!("{path}.spec"), recorded.get("spec"), found.get("spec"), out);
    }
    let recorded = expected.get("events").cloned().unwrap_or(json!([]));
    difference::between(&format!("{prefix}/events"), Some(&recorded), Some(&outcome.events), out);
}

fn compare_template(path: &str, pod: Option<&Value>, template: &Value, out: &mut Vec<Difference>) {
    // Without a recorded Pod (refused, or no replicas) there is nothing to hold the template against.
    let Some(pod) = pod else { return };
    let path = format!("{path}.template");
    for part in ["labels", "annotations"] {
        let pointer = format!("/metadata/{part}");
        difference::between(
            &format!("{path}.{part}"),
            pod.pointer(&pointer),
            template.pointer(&pointer),
            out,
        );
    }
    let (mut recorded, mut found) = (pod["spec"].clone(), template["spec"].clone());
    for side in [&mut recorded, &mut found] {
        normalize::pod_spec(side);
    }
    difference::between(&format!("{path}.spec"), Some(&recorded), Some(&found), out);
}
