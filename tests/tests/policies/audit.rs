//! `leanserve audit` finds exactly what the API server refuses, and stores nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use isvc_core::policy::{self, names};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use leanserve_tests::{Installation, Running, compiled, installation::kustomization, services};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options, assets::Component, audit::Mark, eventually};

use crate::DEADLINE;

const NAMESPACE: &str = "leanserve-system";
const ACCOUNT: &str = "leanserve-audit";
/// The label that selects one policy of the check by brute force.
const ALONE: &str = "alone";

/// A cluster of its own, because an audit is about a whole cluster.
struct Cluster {
    plane: ControlPlane,
    client: Client,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let plane = ControlPlane::start(Options::bare()).await.expect("a control plane");
        Installation::on(&plane).await.expect("an installation");
        for file in ["access.yaml", "guard.yaml"] {
            let path = kustomization("components/audit").join(file);
            plane.apply_file(&path).await.expect("the auditor's rights");
        }
        let client = plane.client().await.expect("a client");
        let directory = tempfile::tempdir().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        plane
            .write_service_account_kubeconfig(NAMESPACE, ACCOUNT, &kubeconfig)
            .await
            .expect("the auditor's kubeconfig");
        Self {
            plane,
            client,
            directory,
        }
    }

    /// The controller, as admin.
    async fn controller(&self) -> Running {
        let arguments = ["--policies", "--namespace", NAMESPACE];
        let mut running =
            Running::spawn_role("run", self.plane.kubeconfig_path(), &arguments).expect("the controller starts");
        running.ready().await;
        running
    }

    fn auditor(&self, arguments: &[&str]) -> Running {
        let kubeconfig = self.directory.path().join("kubeconfig");
        Running::spawn_role("audit", &kubeconfig, arguments).expect("the auditor starts")
    }

    /// Whether a run was complete.
    async fn audit_once(&self, arguments: &[&str]) -> bool {
        let mut all = vec!["--once", "--qps", "1000"];
        all.extend(arguments);
        let mut running = self.auditor(&all);
        ended(&mut running).await
    }

    async fn make_namespace(&self, name: &str) {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}});
        self.plane
            .apply_yaml(&services::list(&[object]))
            .await
            .expect("a namespace");
    }

    async fn create(&self, namespace: &str, service: &Value) {
        let service: DynamicObject = serde_json::from_value(service.clone()).expect("an object");
        let created = services::api(self.client.clone(), namespace)
            .create(&PostParams::default(), &service)
            .await;
        created.expect("a service");
    }

    /// Waits until every policy says that it is in force.
    async fn all_in_force(&self) {
        let policies = compiled::policies(&self.client);
        eventually("all policies are in force", DEADLINE, async || {
            let list = policies.list(&kube::api::ListParams::default()).await;
            for policy in list.map_err(|error| error.to_string())? {
                let status = &policy.data["status"];
                let ready = status["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
                if !ready || status["observedGeneration"] != json!(policy.metadata.generation) {
                    return Err(format!("{:?}: {status}", policy.metadata.name));
                }
            }
            Ok(())
        })
        .await;
    }

    /// What a policy's status says of the last audit.
    async fn audited(&self, policy: &str) -> Value {
        let policy = compiled::policies(&self.client).get(policy).await.expect("the policy");
        policy.data["status"]["audit"].clone()
    }
}

/// Waits for the auditor's end: whether its run was complete.
async fn ended(running: &mut Running) -> bool {
    let status = eventually("the auditor has ended", DEADLINE, async || {
        running.process.exited().ok_or_else(|| running.process.log())
    })
    .await;
    match status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("{other:?}: {}", running.process.log()),
    }
}

fn templates() -> Vec<Value> {
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
fn policy(name: &str, template: &str, parameters: &Value, more: &Value) -> Value {
    let mut spec = json!({"templateRef": {"name": template}, "parameters": parameters});
    for (field, value) in more.as_object().expect("fields") {
        spec[field] = value.clone();
    }
    json!({"apiVersion": names::API_VERSION, "kind": names::POLICY_KIND, "metadata": {"name": name}, "spec": spec})
}

fn policies() -> Vec<Value> {
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

fn services_of_the_test() -> Vec<(String, Value)> {
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
            service["metadata"]["annotations"] = json!({"odd": "a\ttab, a \"quote\"\nand a \\ line"});
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

type Violations = BTreeMap<String, BTreeSet<String>>;

/// Each policy bound alone as Deny, and every service created against it in a dry run.
async fn by_brute_force(cluster: &Cluster) -> Violations {
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
async fn refusal(client: &Client, namespace: &str, service: &Value) -> Option<String> {
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
async fn in_force(cluster: &Cluster, name: &str) {
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

async fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for (namespace, service) in services_of_the_test() {
        let name = service["metadata"]["name"].as_str().expect("a name");
        let stored = services::api(cluster.client.clone(), &namespace)
            .get_metadata(name)
            .await;
        let version = stored.expect("a service").metadata.resource_version.expect("a version");
        versions.insert(format!("{namespace}/{name}"), version);
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_what_the_api_server_refuses_and_stores_nothing() {
    let cluster = Cluster::start().await;
    for namespace in ["audit-a", "audit-b", "audit-c"] {
        cluster.make_namespace(namespace).await;
    }
    for (namespace, service) in services_of_the_test() {
        cluster.create(&namespace, &service).await;
    }
    let expected = by_brute_force(&cluster).await;
    let worst = expected
        .values()
        .filter(|broken| broken.contains("audit-a/worst"))
        .count();
    assert!(worst > 35, "it breaks {worst}");

    for template in templates() {
        compiled::apply(&compiled::templates(&cluster.client), &template)
            .await
            .expect("a template");
    }
    for policy in policies() {
        compiled::apply(&compiled::policies(&cluster.client), &policy)
            .await
            .expect("a policy");
    }
    let _controller = cluster.controller().await;
    cluster.all_in_force().await;
    let before = versions(&cluster).await;
    let log = cluster.plane.audit().expect("its audit log");
    let mark = log.mark().await.expect("a mark");
    assert!(cluster.audit_once(&["--page-size", "7"]).await, "it is complete");

    for (policy, broken) in &expected {
        let audit = cluster.audited(policy).await;
        assert_eq!(audit["complete"], true, "{policy}: {audit}");
        assert_eq!(
            audit["violations"],
            json!(broken.len()),
            "{policy}: {audit:#} {broken:?}"
        );
        let samples = audit["samples"].as_array().cloned().unwrap_or_default();
        assert_eq!(samples.len(), broken.len().min(20), "{policy}");
        for sample in samples {
            let text = |field: &str| sample[field].as_str().expect("text").to_owned();
            assert!(
                broken.contains(&format!("{}/{}", text("namespace"), text("name"))),
                "{policy}: {sample}"
            );
            assert!(!text("message").is_empty(), "{policy}: {sample}");
        }
    }
    assert_eq!(versions(&cluster).await, before, "nothing is stored");
    let asked = log
        .since(&mark)
        .await
        .expect("its entries")
        .by_service_account(NAMESPACE, ACCOUNT);
    let writes: Vec<_> = asked.clone().writes().iter().cloned().collect();
    assert!(writes.len() > 31 + 39, "{}", writes.len());
    for write in &writes {
        let dry_run = write.resource == "inferenceservices" && write.uri.contains("dryRun=All");
        let result = write.resource == "inferencepolicies" && write.subresource == "status";
        assert!(dry_run || result, "{write}");
    }
    let used: BTreeSet<String> = asked
        .iter()
        .map(|entry| format!("{} {}/{}", entry.verb, entry.resource, entry.subresource))
        .collect();
    let needed = [
        "list inferencepolicies/",
        "list inferenceservices/",
        "patch inferencepolicies/status",
        "patch inferenceservices/",
    ];
    assert_eq!(used, needed.map(str::to_owned).into(), "what it needs rights for");
}

/// A cluster with thirty services that break three policies, and its controller.
async fn thirty_services() -> (Cluster, Running) {
    let cluster = Cluster::start().await;
    cluster.make_namespace("audit-a").await;
    for number in 0..30 {
        let mut service = services::sklearn(&format!("service-{number:02}"), "audit-a", None);
        service["spec"]["predictor"]["maxReplicas"] = json!(9);
        cluster.create("audit-a", &service).await;
    }
    let template = &templates()[0];
    compiled::apply(&compiled::templates(&cluster.client), template)
        .await
        .expect("a template");
    for name in ["changed", "deleted", "kept"] {
        let policy = policy(
            name,
            "replicas",
            &json!({"max": 3}),
            &json!({"enforcementAction": "dryrun"}),
        );
        compiled::apply(&compiled::policies(&cluster.client), &policy)
            .await
            .expect("a policy");
    }
    let controller = cluster.controller().await;
    cluster.all_in_force().await;
    (cluster, controller)
}

/// Waits until a run that was begun after the mark has asked about a service.
async fn on_its_way(cluster: &Cluster, mark: &Mark) {
    let log = cluster.plane.audit().expect("its audit log");
    eventually("the run is on its way", DEADLINE, async || {
        let entries = log.since(mark).await.map_err(|error| error.to_string())?;
        let asked = entries.by_service_account(NAMESPACE, ACCOUNT).with_verb("patch");
        if asked.on_resource("inferenceservices").is_empty() {
            return Err("nothing was asked".to_owned());
        }
        Ok(())
    })
    .await;
}

async fn mark(cluster: &Cluster) -> Mark {
    let log = cluster.plane.audit().expect("its audit log");
    log.mark().await.expect("a mark")
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_go_or_change_during_a_run_are_not_said_to_be_checked() {
    let (cluster, _controller) = thirty_services().await;
    let policies = compiled::policies(&cluster.client);
    let begin = mark(&cluster).await;
    let mut running = cluster.auditor(&["--once", "--qps", "3"]);
    on_its_way(&cluster, &begin).await;
    policies
        .delete("deleted", &DeleteParams::default())
        .await
        .expect("deleted");
    let change = json!({"spec": {"parameters": {"max": 20}}});
    let changed = policies
        .patch("changed", &PatchParams::default(), &Patch::Merge(&change))
        .await;
    changed.expect("changed");
    assert!(ended(&mut running).await, "{}", running.process.log());
    let kept = cluster.audited("kept").await;
    assert_eq!(
        (&kept["complete"], &kept["violations"]),
        (&json!(true), &json!(30)),
        "{kept}"
    );
    let changed = cluster.audited("changed").await;
    assert_eq!(changed["complete"], false, "{changed}");
    assert!(policies.get_opt("deleted").await.expect("an answer").is_none());

    // The next run is about it as it is now.
    cluster.all_in_force().await;
    assert!(cluster.audit_once(&[]).await);
    let changed = cluster.audited("changed").await;
    assert_eq!(
        (&changed["complete"], &changed["violations"]),
        (&json!(true), &json!(0)),
        "{changed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_does_not_claim_to_be_complete() {
    let (cluster, _controller) = thirty_services().await;
    assert!(cluster.audit_once(&[]).await);
    let before = cluster.audited("kept").await;
    assert_eq!(
        (&before["complete"], &before["violations"]),
        (&json!(true), &json!(30)),
        "{before}"
    );

    // The API server goes in the middle of a run, and comes back.
    let begin = mark(&cluster).await;
    let mut running = cluster.auditor(&["--once", "--qps", "3", "--request-timeout", "1s"]);
    on_its_way(&cluster, &begin).await;
    cluster
        .plane
        .pause_component(Component::KubeApiserver)
        .await
        .expect("paused");
    running.process.wait_for_log("not evaluated", DEADLINE).await;
    cluster
        .plane
        .resume_component(Component::KubeApiserver)
        .await
        .expect("resumed");
    assert!(!ended(&mut running).await, "{}", running.process.log());
    let log = running.process.log();
    assert!(log.contains("complete=false"), "{log}");
    let audit = eventually("the API server answers", DEADLINE, async || {
        let kept = compiled::policies(&cluster.client).get("kept").await;
        kept.map(|kept| kept.data["status"]["audit"].clone())
    })
    .await;
    // Its result may not have been written, and then is the one of before.
    assert!(audit["complete"] == false || audit == before, "{audit}");

    // Without the right to ask, nothing is evaluated.
    let resource = ApiResource::erase::<ClusterRole>(&());
    let roles: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let fewer = json!([
        {"op": "test", "path": "/rules/0/resources/0", "value": "inferenceservices"},
        {"op": "replace", "path": "/rules/0/verbs", "value": ["list"]},
    ]);
    let fewer = Patch::<()>::Json(serde_json::from_value(fewer).expect("a patch"));
    roles
        .patch(ACCOUNT, &PatchParams::default(), &fewer)
        .await
        .expect("fewer rights");
    eventually("the right is gone and said to be", DEADLINE, async || {
        if cluster.audit_once(&[]).await {
            return Err("complete".to_owned());
        }
        let kept = cluster.audited("kept").await;
        let message = kept["message"].as_str().unwrap_or_default();
        if kept["complete"] == false && message.contains("cannot patch") {
            return Ok(());
        }
        Err(kept.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_lets_the_auditor_ask_and_nothing_else() {
    let cluster = Cluster::start().await;
    cluster.make_namespace("audit-a").await;
    cluster
        .create("audit-a", &services::sklearn("service", "audit-a", None))
        .await;
    let template = &templates()[0];
    compiled::apply(&compiled::templates(&cluster.client), template)
        .await
        .expect("a template");
    let asked = policy("policy", "replicas", &json!({"max": 3}), &json!({}));
    compiled::apply(&compiled::policies(&cluster.client), &asked)
        .await
        .expect("a policy");
    let auditor = cluster
        .plane
        .service_account_client(NAMESPACE, ACCOUNT)
        .await
        .expect("a client");
    let services = services::api(auditor.clone(), "audit-a");
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    eventually("the guard is in force", DEADLINE, async || {
        let stored = services.patch("service", &PatchParams::default(), &label).await;
        let refused = stored.err().ok_or("stored")?;
        assert!(
            refused
                .to_string()
                .contains("may change nothing but the status of policies"),
            "{refused}"
        );
        Ok::<_, &str>(())
    })
    .await;
    let asking = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    services.patch("service", &asking, &label).await.expect("a dry run");
    let policies = compiled::policies(&auditor);
    let status = policy::status::patch(names::POLICY_KIND, "policy", &json!({"audit": {"complete": true}}));
    let parameters = PatchParams::apply(names::AUDIT_FIELD_MANAGER).force();
    policies
        .patch_status("policy", &parameters, &Patch::Apply(&status))
        .await
        .expect("the status of a policy");
}
