//! Templates, policies and services, and which service breaks which policy: found by one question for each pair.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use isvc_core::policy::{self, names};
use kube::{
    Client,
    api::{DeleteParams, DynamicObject, PostParams},
};
use leanserve_tests::{compiled, services};
use serde_json::{Value, json};
use testkit::eventually;

use super::cluster::Cluster;
use crate::DEADLINE;

/// The label that selects one policy.
const ALONE: &str = "alone";

pub(super) fn templates() -> Vec<Value> {
    let template = |name: &str, spec: Value| {
        json!({
            "apiVersion": names::API_VERSION, "kind": names::TEMPLATE_KIND, "metadata": {"name": name}, "spec": spec,
        })
    };
    vec![
        template(
            "replicas",
            json!({
                "parameters": [{"name": "max", "type": "integer", "required": true}],
                "validations": [
                    {
                        "expression": "object.spec.predictor.?maxReplicas.orValue(1) <=\n\tvariables.params.max // a comment",
                        "message": "too many",
                        "messageExpression": "'has ' + object.metadata.?annotations[?'odd'].orValue('') + ' too many \"replicas\"'",
                    },
                    {"expression": "object.spec.predictor.?minReplicas.orValue(1) <= variables.params.max", "message": "and too few"},
                ],
            }),
        ),
        // It cannot be evaluated where there is no such label, which counts as a violation.
        template(
            "tier",
            json!({
                "parameters": [{"name": "tiers", "type": "stringList", "required": true}],
                "validations": [{
                    "expression": "object.metadata.labels['tier']\n  in variables.params.tiers",
                    "message": "another tier",
                }],
            }),
        ),
    ]
}

/// A policy and what it is called.
pub(super) fn policy(name: &str, template: &str, parameters: &Value, more: &Value) -> Value {
    let mut spec = json!({"templateRef": {"name": template}, "parameters": parameters});
    for (field, value) in more.as_object().expect("fields") {
        spec[field] = value.clone();
    }
    json!({"apiVersion": names::API_VERSION, "kind": names::POLICY_KIND, "metadata": {"name": name}, "spec": spec})
}

pub(super) fn policies() -> Vec<Value> {
    let mut all = Vec::new();
    for max in 0..36 {
        let action = ["deny", "dryrun"][max % 2];
        // The longest name there can be, for some.
        let name = if max % 12 == 0 {
            format!("replicas-{max}-{}", "x".repeat(230))
        } else {
            format!("replicas-{max}")
        };
        all.push(policy(
            &name,
            "replicas",
            &json!({"max": max}),
            &json!({"enforcementAction": action}),
        ));
    }
    let in_team =
        json!({"match": {"namespaceSelector": {"matchLabels": {"team": "audit-b"}}}, "enforcementAction": "warn"});
    all.push(policy("warns", "replicas", &json!({"max": 3}), &in_team));
    let of_label = json!({"match": {"objectSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}});
    all.push(policy("tiers", "tier", &json!({"tiers": ["gold"]}), &of_label));
    all.push(policy(
        "every-tier",
        "tier",
        &json!({"tiers": ["gold", "silver"]}),
        &json!({"enforcementAction": "dryrun"}),
    ));
    all
}

pub(super) fn services_of_the_test() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for number in 0..30_usize {
        let namespace = ["audit-a", "audit-b", "audit-c"][number % 3].to_owned();
        let mut service = services::sklearn(&format!("service-{number}"), &namespace, None);
        service["spec"]["predictor"]["maxReplicas"] = json!(number + 1);
        if number % 2 == 0 {
            let tier = ["gold", "silver", "bronze"][number % 5 % 3];
            service["metadata"]["labels"] = json!({"tier": tier});
        }
        if number % 7 == 0 {
            service["metadata"]["annotations"] = json!({"odd": "a\ttab, a \"quote\"\nand a \\ line\u{feff}"});
        }
        all.push((namespace, service));
    }
    // It breaks more policies than fit into one answer, and their messages are long.
    let mut worst = services::sklearn("worst", "audit-a", None);
    worst["spec"]["predictor"]["maxReplicas"] = json!(100);
    worst["spec"]["predictor"]["minReplicas"] = json!(100);
    worst["metadata"]["annotations"] = json!({"odd": "long ".repeat(60)});
    all.push(("audit-a".to_owned(), worst));
    all
}

pub(super) type Violations = BTreeMap<String, BTreeSet<String>>;

/// Each policy bound alone as Deny, and every service created against it in a dry run.
pub(super) async fn by_brute_force(cluster: &Cluster) -> Violations {
    let client = &cluster.client;
    let templates: BTreeMap<String, Value> = templates()
        .into_iter()
        .map(|template| {
            (
                template["metadata"]["name"].as_str().expect("a name").to_owned(),
                template,
            )
        })
        .collect();
    let policies = policies();
    let mut bound = Vec::new();
    for (index, object) in policies.iter().enumerate() {
        let template = &templates[object["spec"]["templateRef"]["name"].as_str().expect("a name")];
        let template = policy::Template::parse(template).expect("a template");
        let parsed = policy::Policy::parse(object).expect("a policy");
        let parameters = policy::check_parameters(&template, &parsed).expect("parameters");
        let built = policy::build(&template, &parsed, &parameters);
        let name = format!("alone-{index}");
        let mut binding = built.binding;
        binding["metadata"] = json!({"name": name});
        binding["spec"]["policyName"] = json!(name);
        binding["spec"]["validationActions"] = json!(["Deny"]);
        // As it is, and only where it is asked for.
        let mut expressions = binding["spec"]["matchResources"]["objectSelector"]["matchExpressions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        expressions.push(json!({"key": ALONE, "operator": "In", "values": [index.to_string()]}));
        binding["spec"]["matchResources"]["objectSelector"]["matchExpressions"] = json!(expressions);
        let mut rules = built.admission_policy;
        rules["metadata"] = json!({"name": name});
        compiled::apply(&compiled::admission_policies(client), &rules)
            .await
            .expect("a policy alone");
        compiled::apply(&compiled::bindings(client), &binding)
            .await
            .expect("a binding alone");
        bound.push((name, parsed.name));
    }
    // The API server takes policies and bindings over in their order, so the last one in force says it of all.
    in_force(cluster, "last").await;

    let mut violations = Violations::new();
    for (index, (binding, policy)) in bound.iter().enumerate() {
        let refusals = services_of_the_test()
            .into_iter()
            .map(async |(namespace, mut service)| {
                let name = service["metadata"]["name"].as_str().expect("a name").to_owned();
                service["metadata"]["name"] = json!(format!("copy-of-{name}"));
                service["metadata"]["labels"][ALONE] = json!(index.to_string());
                let refusal = refusal(client, &namespace, &service).await?;
                assert!(refusal.contains(binding.as_str()), "{refusal}");
                Some(format!("{namespace}/{name}"))
            });
        let broken = join_all(refusals).await.into_iter().flatten().collect();
        violations.insert(policy.clone(), broken);
    }
    for (name, _) in bound {
        for api in [compiled::bindings(client), compiled::admission_policies(client)] {
            api.delete(&name, &DeleteParams::default()).await.expect("deleted");
        }
    }
    violations
}

/// Why a service cannot be created, if so.
pub(super) async fn refusal(client: &Client, namespace: &str, service: &Value) -> Option<String> {
    let service: DynamicObject = serde_json::from_value(service.clone()).expect("an object");
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = services::api(client.clone(), namespace)
        .create(&dry_run, &service)
        .await;
    answer.err().map(|error| error.to_string())
}

/// Applies a policy that refuses what has its label, and waits until it does.
pub(super) async fn in_force(cluster: &Cluster, name: &str) {
    let rules = json!({
        "apiVersion": names::ADMISSION_API_VERSION, "kind": names::ADMISSION_POLICY_KIND, "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["serving.kserve.io"], "apiVersions": ["v1beta1"], "operations": ["CREATE"],
                "resources": ["inferenceservices"],
            }]},
            "validations": [{"expression": "false", "message": "it is in force"}],
        },
    });
    let binding = json!({
        "apiVersion": names::ADMISSION_API_VERSION, "kind": names::BINDING_KIND, "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"objectSelector": {"matchLabels": {(ALONE): name}}},
        },
    });
    let client = &cluster.client;
    compiled::apply(&compiled::admission_policies(client), &rules)
        .await
        .expect("the last policy");
    compiled::apply(&compiled::bindings(client), &binding)
        .await
        .expect("the last binding");
    let mut service = services::sklearn("last", "audit-a", None);
    service["metadata"]["labels"] = json!({(ALONE): name});
    eventually("the last policy is in force", DEADLINE, async || {
        refusal(client, "audit-a", &service).await.ok_or("admitted")
    })
    .await;
}
