//! Compares with `KServe`'s full definitions, node by node, where a copy of them is at hand.
//!
//! They are not part of this repository. `LEANSERVE_SHARED` names the directory that has them under
//! `crds/kserve-full`; without it, a directory `shared` beside the checkout is tried.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::all;

fn kserve_definitions() -> Option<PathBuf> {
    let shared = std::env::var_os("LEANSERVE_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let directory = shared.join("crds/kserve-full");
    directory.is_dir().then_some(directory)
}

/// Keywords that decide what is accepted, what is stored and how it is merged.
const KEYWORDS: [&str; 14] = [
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Whether a required field is waived on purpose. `KServe` has an admission webhook fill these in before the schema is
/// looked at; here nothing stands before the schema, and the operator fills them in when it reads the object.
fn waived(path: &str, name: &str) -> bool {
    let component = |component: &str| path == format!(".spec.{component}.containers[]");
    match name {
        "name" => {
            ["predictor", "transformer", "explainer"].into_iter().any(component)
                || path
                    .strip_prefix(".spec.canary[].predictor.")
                    .is_some_and(|block| !block.contains(['.', '[']))
        }
        "modelFormat" => path == ".spec.canary[].predictor.model",
        "port" => path.starts_with(".spec.canary[].predictor.model."),
        _ => false,
    }
}

fn required(node: &Value) -> Vec<&str> {
    let names = node["required"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).collect()
}

fn compare(path: &str, theirs: &Value, ours: &Value, differences: &mut Vec<String>) {
    for keyword in KEYWORDS {
        if theirs[keyword] != ours[keyword] {
            differences.push(format!(
                "{path}: {keyword}: {} and here {}",
                theirs[keyword], ours[keyword]
            ));
        }
    }
    let (demanded, demanded_here) = (required(theirs), required(ours));
    for name in &demanded_here {
        if !demanded.contains(name) {
            differences.push(format!("{path}: {name} is required only here"));
        }
    }
    for name in &demanded {
        if !demanded_here.contains(name) && !waived(path, name) {
            differences.push(format!("{path}: {name} is not required here"));
        }
    }
    let keeps_all = ours["x-kubernetes-preserve-unknown-fields"] == json!(true);
    for (name, child) in theirs["properties"].as_object().into_iter().flatten() {
        match ours["properties"].get(name) {
            Some(here) => compare(&format!("{path}.{name}"), child, here, differences),
            None if keeps_all => {}
            None => differences.push(format!("{path}.{name}: pruned here")),
        }
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        match (theirs.get(keyword), ours.get(keyword)) {
            (Some(child), Some(here)) => {
                compare(&format!("{path}{mark}"), child, here, differences);
            }
            (None, None) => {}
            _ => differences.push(format!("{path}: only one side has {keyword}")),
        }
    }
}

#[test]
fn what_kserve_accepts_is_accepted_and_stored_the_same() {
    let Some(directory) = kserve_definitions() else {
        eprintln!("NOT RUN: KServe's definitions are not at hand; set LEANSERVE_SHARED");
        return;
    };
    let mut compared = 0;
    for definition in all() {
        let spec = &definition["spec"];
        if spec["group"] != "serving.kserve.io" {
            continue; // ours alone, as the kinds of policies are
        }
        compared += 1;
        let plural = spec["names"]["plural"].as_str().expect("a plural");
        let file = directory.join(format!("serving.kserve.io_{plural}.yaml"));
        let text = std::fs::read_to_string(&file).expect("a readable definition");
        let theirs: Value = serde_saphyr::from_str(&text).expect("valid YAML");
        let theirs = &theirs["spec"];

        for field in ["group", "names", "scope"] {
            assert_eq!(spec[field], theirs[field], "{plural}: {field}");
        }
        let (version, their_version) = (&spec["versions"][0], &theirs["versions"][0]);
        for field in ["name", "served", "storage", "additionalPrinterColumns"] {
            assert_eq!(version[field], their_version[field], "{plural}: {field}");
        }
        assert_eq!(
            version["subresources"]["status"], their_version["subresources"]["status"],
            "{plural}: status subresource"
        );

        let mut differences = Vec::new();
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        compare("", &schema(their_version), &schema(version), &mut differences);
        assert!(differences.is_empty(), "{plural}:\n{}", differences.join("\n"));
    }
    assert_eq!(compared, 4, "a kind of KServe's was not compared");
}
