//! What brings models in, where the recordings do not show it or where `KServe`'s way is not followed.

mod certificates;
mod entries;
mod images;
mod lists;
mod properties;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{super::fixture, Needs, annotations, bring, ca_bundle_copy, check_uri, needs, specified_uri};
use crate::{
    api::{Meta, Object, StorageContainer},
    credential::{CredentialFacts, StorageEntry},
    names,
    observed::{ByName, CaBundleSource, Lookup, Observed, ServiceAccountFacts, StorageInjection},
    rejection::Rejection,
    settings::Settings,
};

/// A service `n/m` with these fields in its predictor, where everything it names is there.
fn observed(predictor: &Value) -> Observed {
    fixture::observed(predictor, Settings::built_in())
}

fn model(uri: &str) -> Observed {
    observed(&json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}}))
}

fn settings(observed: &mut Observed) -> &mut Settings {
    Arc::make_mut(&mut observed.settings)
}

fn storage_container(name: &str, spec: Value) -> Arc<StorageContainer> {
    let meta = Meta {
        name: name.to_owned(),
        ..Meta::default()
    };
    Arc::new(StorageContainer::parse(meta, spec, None).expect("a readable object"))
}

/// The Pod with its models, made of `server` alone.
fn brought_to(server: &Value, observed: &Observed) -> Result<Value, Rejection> {
    let component = &observed.service.spec.predictor;
    let uri = specified_uri(component);
    check_uri(component, uri, observed)?;
    let mut annotated = observed.service.meta.annotations.clone();
    annotated.extend(annotations(component, uri));
    let mut pod: Object = component.pod.clone();
    pod.insert("containers".to_owned(), json!([server]));
    bring(&mut pod, component, uri, &annotated, observed)?;
    Ok(Value::Object(pod))
}

fn brought(observed: &Observed) -> Value {
    brought_to(&json!({"name": "kserve-container"}), observed).expect("nothing is missing")
}

fn refused(observed: &Observed) -> Rejection {
    brought_to(&json!({"name": "kserve-container"}), observed).expect_err("something is wrong")
}

#[test]
fn what_is_in_a_pod_already_stays() {
    let server = json!({
        "name": "kserve-container",
        "volumeMounts": [{"name": "kserve-provision-location", "mountPath": "/elsewhere"}],
    });
    let pod = brought_to(&server, &model("s3://b/a")).expect("nothing is missing");
    assert_eq!(pod["containers"][0]["volumeMounts"], server["volumeMounts"]);

    let initializer = json!({"name": "storage-initializer", "image": "own"});
    for uri in ["s3://b/a", "pvc://claim", "oci+fetch://r/i:1"] {
        let mut present = model(uri);
        let pod = &mut present.service.spec.predictor.pod;
        pod.insert("initContainers".to_owned(), json!([initializer]));
        let pod = brought(&present);
        assert_eq!(pod["initContainers"], json!([initializer]), "{uri}");
        assert!(pod.get("volumes").is_none(), "{uri}");
    }
}

#[test]
fn a_pod_without_a_server_is_refused() {
    let rejection = brought_to(&json!({"name": "other"}), &model("s3://b/a")).expect_err("no server");
    assert_eq!(
        rejection.event,
        "Invalid configuration: cannot find container kserve-container"
    );
    assert!(brought_to(&json!({"name": "worker-container"}), &model("s3://b/a")).is_ok());
}

#[test]
fn the_servers_of_multi_model_days_load_for_themselves() {
    let env = json!([{"name": "STORAGE_URI", "value": "s3://b/a"}, {"name": "MULTI_MODEL_SERVER", "value": "true"}]);
    let custom = observed(&json!({"containers": [{"name": "kserve-container", "image": "i", "env": env}]}));
    assert!(brought(&custom).get("initContainers").is_none());

    let mut annotated = model("s3://b/a");
    let agent = names::ANNOTATION_PULLING_AGENT.to_owned();
    annotated.service.meta.annotations.insert(agent, "true".to_owned());
    assert!(brought(&annotated).get("initContainers").is_none());
}

#[test]
fn a_custom_server_learns_where_its_model_was_put() {
    let server = json!({"name": "kserve-container", "env": [{"name": "STORAGE_URI", "value": "s3://b/a"}]});
    let custom = observed(&json!({"containers": [server]}));
    let pod = brought_to(&server, &custom).expect("nothing is missing");
    assert_eq!(pod["containers"][0]["env"][0]["value"], "/mnt/models");
    assert_eq!(pod["initContainers"][0]["args"], json!(["s3://b/a", "/mnt/models"]));
}

#[test]
fn a_single_uri_is_left_to_the_webhook_where_it_injects() {
    let mut single = model("s3://b/a");
    single.storage_injection = StorageInjection::Annotations;
    single.by_name = ByName::default();
    assert_eq!(brought(&single), json!({"containers": [{"name": "kserve-container"}]}));

    let mut list = observed(&json!({"model": {}, "storageUris": [{"uri": "s3://b/a"}]}));
    list.storage_injection = StorageInjection::Annotations;
    assert_eq!(
        brought(&list)["initContainers"][0]["args"],
        json!(["s3://b/a", "/mnt/models"])
    );
}

#[test]
fn credentials_are_read_for_what_is_downloaded() {
    let account = Needs {
        service_account: true,
        storage_secret: false,
    };
    let secret = Needs {
        service_account: false,
        storage_secret: true,
    };
    let none = Needs::default();
    let check = |predictor: Value, expected: Needs, with_webhook: Needs| {
        let observed = observed(&predictor);
        let component = &observed.service.spec.predictor;
        for (injection, expected) in [
            (StorageInjection::Deployment, expected),
            (StorageInjection::Annotations, with_webhook),
        ] {
            let found = needs(component, specified_uri(component), &observed.settings, injection);
            assert_eq!(found, expected, "{injection:?} {predictor}");
        }
    };
    check(json!({"model": {"storageUri": "s3://b/a"}}), account, none);
    check(json!({"model": {"storageUri": "pvc://c/a"}}), none, none);
    check(json!({"model": {"storageUri": "oci+fetch://r/i"}}), none, none);
    check(json!({"model": {}}), none, none);
    check(json!({"model": {"storage": {"key": "k"}}}), none, none);
    check(json!({"model": {"storage": {"path": "a"}}}), secret, none);
    check(
        json!({"model": {"storageUri": "s3://b/a", "storage": {"key": "k"}}}),
        secret,
        none,
    );
    check(
        json!({"model": {"storageUri": "pvc://c", "storage": {"key": "k"}}}),
        none,
        none,
    );
    let uris = json!([{"uri": "pvc://c"}, {"uri": "s3://b/a", "mountPath": "/mnt/a"}]);
    check(json!({"model": {}, "storageUris": uris}), account, account);
    check(
        json!({"model": {"storage": {"key": "k"}}, "storageUris": uris}),
        account,
        account,
    );
    check(
        json!({"model": {"storage": {"key": "k", "parameters": {}}}, "storageUris": uris}),
        secret,
        secret,
    );
    let custom = |name: &str| json!({"name": name, "env": [{"name": "STORAGE_URI", "value": "s3://b/a"}]});
    check(json!({"containers": [custom("kserve-container")]}), account, none);
    check(
        json!({"containers": [custom("side"), {"name": "kserve-container"}]}),
        none,
        none,
    );
}

#[test]
fn an_encrypted_model_is_annotated_and_decrypted() {
    let confidential = json!({"enabled": true, "resourceId": "kbs:///a/b/c"});
    let mut service = observed(&json!({"model": {"storageUri": "s3://b/a", "confidential": confidential}}));
    let pod = brought(&service);
    let env = pod["initContainers"][0]["env"].as_array().expect("a list");
    let last = &env[env.len() - 2..];
    let resource = json!({"name": "CONFIDENTIAL_RESOURCE_ID", "value": "kbs:///a/b/c"});
    assert_eq!(
        last,
        [json!({"name": "CONFIDENTIAL_ENABLED", "value": "true"}), resource]
    );

    let model = service.service.spec.predictor.model.as_mut().expect("a model");
    model.confidential.as_mut().expect("it is given").enabled = false;
    assert!(!brought(&service).to_string().contains("CONFIDENTIAL"));
}

#[test]
fn an_annotation_gives_the_user_of_the_initializer() {
    let uid = |value: &str| {
        let mut service = model("s3://b/a");
        let annotations = &mut service.service.meta.annotations;
        annotations.insert(names::ANNOTATION_INITIALIZER_UID.to_owned(), value.to_owned());
        brought_to(&json!({"name": "kserve-container"}), &service)
    };
    let pod = uid("1337").expect("a user");
    assert_eq!(pod["initContainers"][0]["securityContext"]["runAsUser"], 1337);
    for wrong in ["", "root", "-1", "1.5"] {
        assert_eq!(uid(wrong).expect_err("no user").reason, "InvalidAnnotation");
    }
}

#[test]
fn a_named_container_must_fit() {
    let spec = json!({"container": {"image": "own"}, "supportedUriFormats": [{"prefix": "s3://"}]});
    let named = |uri: &str, containers: Vec<Arc<StorageContainer>>| {
        let mut service = model(uri);
        service.service.spec.predictor.storage_container_name = Some("own".to_owned());
        service.storage_containers = containers;
        service
    };
    let fits = storage_container("own", spec.clone());
    let pod = brought(&named("s3://b/a", vec![Arc::clone(&fits)]));
    assert_eq!(pod["initContainers"][0]["image"], "own");

    let mut job = spec.clone();
    job["workloadType"] = json!("localModelDownloadJob");
    let mut disabled = StorageContainer::clone(&fits);
    disabled.disabled = true;
    for (uri, containers, event) in [
        ("s3://b/a", vec![], "ClusterStorageContainer \"own\" not found"),
        (
            "s3://b/a",
            vec![Arc::new(disabled)],
            "ClusterStorageContainer \"own\" is disabled",
        ),
        (
            "s3://b/a",
            vec![storage_container("own", job)],
            "ClusterStorageContainer \"own\" has workloadType \"localModelDownloadJob\"; explicit selection requires \
             \"initContainer\"",
        ),
        (
            "gs://b/a",
            vec![fits],
            "ClusterStorageContainer \"own\" does not support storageUri \"gs://b/a\"",
        ),
    ] {
        let rejection = refused(&named(uri, containers));
        assert_eq!(rejection.event, event);
        assert_eq!(rejection.reason, "StorageContainerNotUsable");
        assert!(rejection.message.starts_with("spec.predictor.storageContainerName: "));
    }
}
