//! What holds for every Pod that models were brought into.

use std::{collections::BTreeSet, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::validate::validate;

const URIS: [&str; 8] = [
    "s3://b/a",
    "hf://org/m",
    "pvc://claim/dir",
    "pvc://other",
    "oci://r/i:1",
    "oci+modelcar://r/i:2",
    "oci+native://r/i:3",
    "oci+fetch://r/i:4",
];

const PATHS: [&str; 9] = [
    "/mnt/models",
    "/mnt/models/",
    "/mnt/models/a",
    "/mnt/models/a/b",
    "/mnt/models/a-b",
    "/mnt/b",
    "/mnt//b",
    "/mnt/Upper_Case",
    "/opt/c",
];

fn names<'a>(holder: &'a Value, list: &str) -> Vec<&'a str> {
    let items = holder[list].as_array().into_iter().flatten();
    items.filter_map(|item| item["name"].as_str()).collect()
}

#[track_caller]
fn check_unique(what: &str, names: &[&str]) {
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{what}: {names:?}");
}

/// The API server takes it, as far as lists by key, mounts and volumes go.
#[track_caller]
fn check_pod(pod: &Value) {
    let volumes = names(pod, "volumes");
    check_unique("volumes", &volumes);
    let containers = names(pod, "containers");
    check_unique("containers", &[containers, names(pod, "initContainers")].concat());
    for list in ["containers", "initContainers"] {
        for container in pod[list].as_array().into_iter().flatten() {
            check_unique("env", &names(container, "env"));
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            let mounts: Vec<_> = mounts.collect();
            let paths: Vec<_> = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
            // The same directory may be written in several ways.
            let directories: BTreeSet<_> = paths.iter().map(Path::new).collect();
            assert_eq!(directories.len(), paths.len(), "mount paths: {paths:?}");
            for mount in mounts {
                let volume = mount["name"].as_str().unwrap_or_default();
                assert!(volumes.contains(&volume), "{volume} is not among {volumes:?}");
            }
        }
    }
}

/// The directory of the server that holds the model of an entry is mounted.
#[track_caller]
fn check_served(pod: &Value, path: &str) {
    let mounts = pod["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
    let path = Path::new(path);
    let mut mounted = mounts.filter_map(|mount| mount["mountPath"].as_str());
    assert!(
        mounted.any(|mount| path.starts_with(mount)),
        "{}: {pod}",
        path.display()
    );
}

proptest! {
    #[test]
    fn a_list_makes_a_pod_the_api_server_takes(entries in vec((select(&URIS[..]), select(&PATHS[..])), 1..6)) {
        let list: Vec<_> = entries.iter().map(|(uri, path)| json!({"uri": uri, "mountPath": path})).collect();
        let mut service = observed(&json!({"model": {"modelFormat": {"name": "sklearn"}}, "storageUris": list}));
        let initializer = &mut settings(&mut service).storage_initializer;
        initializer.ca_bundle_config_map_name = Some("corp-ca".to_owned());
        let server = json!({"name": "kserve-container"});
        let Ok(pod) = validate(&service.service).and_then(|()| brought_to(&server, &service)) else {
            // Then it is told why; what is refused is in the tests of validation and of lists.
            return Ok(());
        };
        check_pod(&pod);
        for (_, path) in entries {
            check_served(&pod, path);
        }
    }

    #[test]
    fn bringing_a_model_in_again_changes_nothing(
        uri in select(&URIS[..]), server in select(&["kserve-container", "worker-container"][..])
    ) {
        // As KServe's Pod webhook does after us.
        let service = model(uri);
        let component = &service.service.spec.predictor;
        let mut pod = Object::new();
        pod.insert("containers".to_owned(), json!([{"name": server}, {"name": "transformer-container"}]));
        bring(&mut pod, component, Some(uri), &BTreeMap::new(), &service).expect("nothing is missing");
        let once = pod.clone();
        check_pod(&Value::Object(once.clone()));
        bring(&mut pod, component, Some(uri), &BTreeMap::new(), &service).expect("nothing is missing");
        prop_assert_eq!(pod, once);
    }
}
