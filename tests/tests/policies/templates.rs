//! The ready-made templates of `deploy/policies` do what they say: every example that passes is admitted, and every other
//! one is refused with the template's words.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::future::join_all;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use leanserve_tests::{Installation, compiled, services};
use serde_json::{Value, json};
use testkit::{ControlPlane, eventually};

use crate::DEADLINE;

/// The annotation of an example with what its refusal has to say.
const REFUSAL: &str = "leanserve.dev/example-refusal";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies")
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = text.split("\n---\n").map(|document| {
        let parsed = serde_saphyr::from_str::<Value>(document);
        parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    documents.collect()
}

/// The names of all templates.
fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("deploy/policies is there");
    let files = entries.map(|entry| entry.expect("readable").path());
    let templates = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let stems = templates.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned());
    stems.filter(|name| name != "kustomization").collect()
}

/// What the API server answers, when nothing is kept of it.
async fn answer(services: &Api<DynamicObject>, service: &Value) -> Result<(), String> {
    let service: DynamicObject = serde_json::from_value(service.clone()).expect("an example is an object");
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = services.create(&parameters, &service).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

/// A client that may make services in the namespace and read one of its Secrets.
async fn author(plane: &ControlPlane, namespace: &str) -> Client {
    let author = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "author", "namespace": namespace}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "author", "namespace": namespace},
            "rules": [
                {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["readable"], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "author", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "author"},
            "subjects": [{"kind": "ServiceAccount", "name": "author", "namespace": namespace}],
        }),
    ];
    plane
        .apply_yaml(&services::list(&author))
        .await
        .expect("the author's rights");
    plane
        .service_account_client(namespace, "author")
        .await
        .expect("a client")
}

/// Everything that is wrong with a template and its examples.
async fn problems(plane: &ControlPlane, name: &str) -> Vec<String> {
    let namespace = plane.namespace("templates").await.expect("a namespace");
    let client = plane.client().await.expect("a client");
    let services = services::api(author(plane, &namespace.name).await, &namespace.name);
    let template = documents(&folder().join(format!("{name}.yaml"))).remove(0);
    let examples = folder().join("examples").join(name);
    let mut policy = documents(&examples.join("policy.yaml")).remove(0);
    policy["spec"]["match"] =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}});
    let compiled = compiled::enforce(&client, &template, &policy).await;
    let compiled = compiled.unwrap_or_else(|failure| panic!("{name}: {failure}"));

    let mut problems = Vec::new();
    let failing = documents(&examples.join("fails.yaml"));
    eventually(&format!("{name} is in force"), DEADLINE, async || {
        answer(&services, &failing[0]).await.err().ok_or("admitted")
    })
    .await;
    let binding = compiled.binding["metadata"]["name"].as_str().expect("a name");
    for (index, example) in failing.iter().enumerate() {
        let refusal = example["metadata"]["annotations"][REFUSAL]
            .as_str()
            .expect("what it says");
        match answer(&services, example).await {
            Ok(()) => problems.push(format!("{name}: failing example {} is admitted", index + 1)),
            Err(text) if text.contains(refusal) && text.contains(binding) => {}
            Err(text) => problems.push(format!("{name}: failing example {}: {text}", index + 1)),
        }
    }
    for (index, example) in documents(&examples.join("passes.yaml")).iter().enumerate() {
        if let Err(text) = answer(&services, example).await {
            problems.push(format!("{name}: passing example {}: {text}", index + 1));
        }
    }
    let policies = compiled::admission_policies(&client);
    let admission_policy = compiled.admission_policy["metadata"]["name"].as_str().expect("a name");
    let warnings = eventually(&format!("the types of {name} are checked"), DEADLINE, async || {
        let policy = policies
            .get(admission_policy)
            .await
            .map_err(|error| error.to_string())?;
        let status = &policy.data["status"];
        if status["typeChecking"].is_null() {
            return Err(status.to_string());
        }
        Ok(status["typeChecking"]["expressionWarnings"].clone())
    })
    .await;
    if !warnings.is_null() {
        problems.push(format!("{name}: types: {warnings:#}"));
    }
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_pass_and_fail_as_they_say() {
    let plane = Installation::shared().await.plane;
    let names = names();
    assert!(names.len() >= 9, "{names:?}");
    let problems = join_all(names.iter().map(|name| problems(plane, name))).await;
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
