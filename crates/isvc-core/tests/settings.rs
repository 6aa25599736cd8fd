//! Platform settings: every recorded configuration, defaults, errors, host names and paths.

use std::collections::BTreeMap;
use std::path::Path;

use isvc_core::settings::{
    DISALLOWED_ANNOTATIONS, DISALLOWED_LABELS, DeploymentMode, GatewayRef, OciModelMode, Settings, SettingsError,
};
use proptest::prelude::*;
use serde_json::Value;

type Data = BTreeMap<String, String>;

/// The data of `inferenceservice-config` in one file of `golden/config`.
fn data(file: &str) -> Data {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/config")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("the file holds YAML");
    let map = documents
        .iter()
        .find(|document| document["metadata"]["name"] == "inferenceservice-config");
    let data = &map.expect("the file holds the ConfigMap")["data"];
    serde_json::from_value(data.clone()).expect("data is a map of strings")
}

fn settings(file: &str) -> Settings {
    Settings::parse(&data(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The base configuration with one data key replaced.
fn with(key: &str, json: &str) -> Result<Settings, SettingsError> {
    let mut data = data("base.yaml");
    data.insert(key.to_owned(), json.to_owned());
    Settings::parse(&data)
}

fn only(key: &str, json: &str) -> Result<Settings, SettingsError> {
    Settings::parse(&Data::from([(key.to_owned(), json.to_owned())]))
}

#[test]
fn every_recorded_configuration_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/config");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let name = entry
            .expect("the folder can be listed")
            .file_name()
            .into_string()
            .expect("names are text");
        let result = Settings::parse(&data(&name));
        // The one configuration that the recording was made to refuse.
        if name == "gateway-bad-name.yaml" {
            let error = result.expect_err("the Gateway has no namespace");
            assert_eq!(
                error.problem(),
                "invalid ingress config - kserveIngressGateway should be in the format <namespace>/<name>"
            );
        } else {
            assert!(result.is_ok(), "{name}: {result:?}");
        }
        read += 1;
    }
    assert!(read >= 30, "only {read} configurations");
}

#[test]
fn the_base_configuration_is_read_field_by_field() {
    let settings = settings("base.yaml");
    assert_eq!(settings.deploy.default_deployment_mode, DeploymentMode::Standard);
    assert_eq!(settings.deploy.default_rollout, None);
    assert!(!settings.ingress.enable_gateway_api);
    assert_eq!(settings.ingress.gateway, None);
    assert_eq!(settings.ingress.ingress_domain, "models.test");
    assert_eq!(settings.ingress.ingress_class_name.as_deref(), Some("edge-proxy"));
    assert_eq!(settings.storage_initializer.image, "reg.test/kserve/fetcher:7");
    assert_eq!(settings.storage_initializer.resources.memory_request, "120Mi");
    assert_eq!(settings.storage_initializer.resources.memory_limit, "900Mi");
    assert_eq!(settings.storage_initializer.resources.cpu_request, "110m");
    assert_eq!(settings.storage_initializer.resources.cpu_limit, "1");
    assert_eq!(settings.storage_initializer.ca_bundle_config_map_name, None);
    assert_eq!(
        settings.storage_initializer.effective_oci_model_mode(),
        Some(OciModelMode::Modelcar)
    );
    assert_eq!(settings.storage_initializer.cpu_modelcar, "12m");
    assert_eq!(settings.storage_initializer.uid_modelcar, Some(1010));
    assert_eq!(settings.credentials.s3.access_key_id_name, "AWS_ACCESS_KEY_ID");
    assert_eq!(settings.credentials.s3.endpoint, None);
    let resource = settings.inference_service.resource.expect("resources are set");
    assert_eq!(resource.cpu_request.as_deref(), Some("500m"));
    assert_eq!(
        settings.inference_service.annotation_disallowed_list,
        DISALLOWED_ANNOTATIONS
    );
    assert_eq!(settings.inference_service.label_disallowed_list, DISALLOWED_LABELS);
    assert!(settings.security.auto_mount_service_account_token);
    assert!(!settings.service.service_cluster_ip_none);
    assert_eq!(settings.autoscaler.scale_up_stabilization_window_seconds, 0);
    assert_eq!(settings.autoscaler.scale_down_stabilization_window_seconds, 300);
    assert_eq!(settings.logger.default_url, "http://sink.default.svc.cluster.local");
    assert_eq!(settings.batcher.max_batch_size.as_deref(), Some("24"));
    assert_eq!(settings.agent.resources.cpu_limit, "700m");
    assert_eq!(settings.metrics_aggregator.enable_metric_aggregation, "false");
    assert_eq!(settings.art_explainer.image, "reg.test/kserve/art");
    assert_eq!(settings.open_telemetry.metric_receiver_endpoint, "otel.test:4317");
}

#[test]
fn variants_differ_where_they_say() {
    assert_eq!(
        settings("serverless-default.yaml").deploy.default_deployment_mode,
        DeploymentMode::Knative
    );
    let rollout = settings("rollout-percent.yaml")
        .deploy
        .default_rollout
        .expect("a rollout is set");
    assert_eq!(
        (rollout.max_surge.as_deref(), rollout.max_unavailable.as_deref()),
        (Some("40%"), Some("10%"))
    );
    let rollout = settings("rollout-partial.yaml")
        .deploy
        .default_rollout
        .expect("a rollout is set");
    assert_eq!(
        (rollout.max_surge, rollout.max_unavailable.as_deref()),
        (None, Some("0%"))
    );
    let rollout = settings("rollout-int.yaml")
        .deploy
        .default_rollout
        .expect("a rollout is set");
    assert_eq!(
        (rollout.max_surge.as_deref(), rollout.max_unavailable.as_deref()),
        (Some("1"), Some("0"))
    );

    let gateway = settings("gateway-domains.yaml").ingress;
    assert_eq!(
        gateway.gateway,
        Some(GatewayRef {
            namespace: "edge".into(),
            name: "front-door".into()
        })
    );
    assert_eq!(gateway.additional_ingress_domains.len(), 4);
    assert!(settings("gateway-no-timeout.yaml").ingress.disable_http_route_timeout);
    assert!(settings("ingress-disabled.yaml").ingress.disable_ingress_creation);
    assert!(settings("domain-internal.yaml").ingress.is_internal_domain());
    assert!(!settings("base.yaml").ingress.is_internal_domain());
    assert!(settings("headless.yaml").service.service_cluster_ip_none);
    assert!(
        !settings("security-default.yaml")
            .security
            .auto_mount_service_account_token
    );

    let blocked = settings("blocklist.yaml").inference_service;
    assert_eq!(
        blocked.annotation_disallowed_list.last().map(String::as_str),
        Some("team.test/secret-note")
    );
    assert_eq!(
        blocked.annotation_disallowed_list.len(),
        DISALLOWED_ANNOTATIONS.len() + 1
    );
    assert_eq!(
        blocked.label_disallowed_list.last().map(String::as_str),
        Some("team.test/cost-center")
    );

    let oci = |file: &str| settings(file).storage_initializer.effective_oci_model_mode();
    assert_eq!(oci("oci-native.yaml"), Some(OciModelMode::Native));
    assert_eq!(oci("oci-fetch.yaml"), Some(OciModelMode::Fetch));
    assert_eq!(oci("oci-modelcar-no-uid.yaml"), Some(OciModelMode::Modelcar));
    assert_eq!(oci("oci-disabled.yaml"), None);
    let fetch = settings("oci-fetch.yaml").storage_initializer;
    assert!(fetch.oci_insecure_registry);
    assert_eq!(fetch.ca_bundle_config_map_name.as_deref(), Some("corp-ca"));
    let ca = settings("cabundle.yaml").storage_initializer;
    assert_eq!(ca.ca_bundle_volume_mount_path, "/opt/ca");

    let custom = settings("creds-custom.yaml").credentials;
    assert_eq!(custom.storage_spec_secret_name, "my-storages");
    assert_eq!(
        custom.storage_secret_name_annotation.as_deref(),
        Some("golden.test/secret")
    );
    assert_eq!(custom.gcs_credential_file_name, "sa-key.json");
    assert_eq!(custom.s3.verify_ssl.as_deref(), Some("0"));
    let absent = settings("no-credentials-key.yaml").credentials;
    assert_eq!(absent.s3.access_key_id_name, "awsAccessKeyID");
    assert_eq!(absent.storage_secret_name_annotation, None);

    let logger = settings("logger-rich.yaml").logger;
    assert_eq!(logger.ca_bundle.as_deref(), Some("logger-ca"));
    assert!(logger.tls_skip_verify);
    assert_eq!(logger.batch_size, Some(5));
    assert_eq!(logger.batch_interval.as_deref(), Some("3s"));
}

#[test]
fn a_sparse_configuration_falls_back_to_defaults() {
    let settings = settings("sparse.yaml");
    assert_eq!(settings.deploy.default_deployment_mode, DeploymentMode::Standard);
    assert_eq!(settings.ingress.ingress_domain, "example.com");
    assert_eq!(settings.ingress.url_scheme, "http");
    assert_eq!(settings.ingress.ingress_class_name, None);
    assert_eq!(settings.storage_initializer.image, "kserve/storage-initializer:latest");
    assert_eq!(settings.storage_initializer.effective_oci_model_mode(), None);
    assert_eq!(settings.storage_initializer.cpu_modelcar, "10m");
    assert_eq!(settings.storage_initializer.memory_modelcar, "15Mi");
    assert_eq!(
        settings.storage_initializer.ca_bundle_volume_mount_path,
        "/etc/ssl/custom-certs"
    );
    assert_eq!(settings.inference_service.resource, None);
    assert!(settings.inference_service.annotation_disallowed_list.is_empty());
    assert!(settings.inference_service.label_disallowed_list.is_empty());
    assert_eq!(settings.metrics_aggregator.enable_metric_aggregation, "");
    assert_eq!(settings.batcher.max_latency, None);
}

#[test]
fn without_a_config_map_the_shipped_values_hold() {
    let settings = Settings::built_in();
    assert_eq!(settings.deploy.default_deployment_mode, DeploymentMode::Standard);
    assert!(!settings.ingress.disable_ingress_creation);
    assert_eq!(
        settings.ingress.domain_template,
        "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}"
    );
    assert_eq!(settings.storage_initializer.resources.memory_limit, "1Gi");
    assert!(settings.storage_initializer.enable_modelcar);
    assert_eq!(settings.storage_initializer.uid_modelcar, Some(1010));
    assert_eq!(
        settings.credentials.storage_secret_name_annotation.as_deref(),
        Some("serving.kserve.io/storageSecretName")
    );
    let resource = settings.inference_service.resource.as_ref().expect("resources are set");
    assert_eq!(resource.memory_limit.as_deref(), Some("2Gi"));
    assert_eq!(
        settings.inference_service.annotation_disallowed_list,
        DISALLOWED_ANNOTATIONS
    );
    assert!(settings.security.auto_mount_service_account_token);
    assert_eq!(settings.agent.image, "kserve/agent:latest");
}

#[test]
fn an_empty_config_map_is_usable() {
    let settings = Settings::parse(&Data::new()).expect("nothing is required");
    assert_eq!(settings.deploy.default_deployment_mode, DeploymentMode::Standard);
    assert!(!settings.security.auto_mount_service_account_token);
    assert_eq!(settings.storage_initializer.resources.cpu_request, "100m");
}

#[test]
fn field_names_match_without_case_and_the_exact_spelling_wins() {
    let ingress = with(
        "ingress",
        r#"{"EnableGatewayAPI": true, "KSERVEINGRESSGATEWAY": "edge/door"}"#,
    );
    let ingress = ingress.expect("spelling does not matter").ingress;
    assert!(ingress.enable_gateway_api);
    assert_eq!(ingress.gateway.map(|gateway| gateway.name).as_deref(), Some("door"));
    let ingress = with("ingress", r#"{"INGRESSDOMAIN": "a.test", "ingressDomain": "b.test"}"#);
    assert_eq!(ingress.expect("both are text").ingress.ingress_domain, "b.test");
}

#[test]
fn unknown_keys_fields_and_the_example_are_ignored() {
    let mut data = data("base.yaml");
    data.insert("_example".to_owned(), "not JSON at all".to_owned());
    data.insert("somethingNew".to_owned(), "neither is this".to_owned());
    data.insert(
        "security".to_owned(),
        r#"{"autoMountServiceAccountToken": true, "new": [1]}"#.to_owned(),
    );
    assert_eq!(Settings::parse(&data), Ok(settings("base.yaml")));
}

#[test]
fn quantities_are_stored_in_canonical_form() {
    let agent = with(
        "agent",
        r#"{"cpuRequest": "1000m", "cpuLimit": "0.5", "memoryRequest": "1024Mi", "memoryLimit": "1.5Gi"}"#,
    );
    let resources = agent.expect("the quantities are valid").agent.resources;
    assert_eq!(
        (resources.cpu_request.as_str(), resources.cpu_limit.as_str()),
        ("1", "500m")
    );
    assert_eq!(
        (resources.memory_request.as_str(), resources.memory_limit.as_str()),
        ("1Gi", "1536Mi")
    );
}

/// Checks that a document is refused with an error that names key, field, problem and remedy.
fn refused(key: &str, json: &str, field: Option<&str>, problem: &str) {
    let error = with(key, json).expect_err(json);
    assert_eq!((error.key(), error.field()), (key, field), "{error}");
    assert!(error.problem().contains(problem), "{json}: {error}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("ConfigMap inferenceservice-config, key {key}")),
        "{text}"
    );
    assert!(text.contains(problem) && text.contains("; "), "{text}");
    if let Some(field) = field {
        assert!(text.contains(&format!("field {field}")), "{text}");
    }
}

#[test]
fn errors_name_key_field_problem_and_remedy() {
    refused("ingress", "{", None, "not valid JSON");
    refused("ingress", "[]", None, "not a JSON object");
    refused(
        "ingress",
        r#"{"enableGatewayApi": "yes"}"#,
        Some("enableGatewayApi"),
        "expected true or false",
    );
    refused(
        "ingress",
        r#"{"ingressDomain": 3}"#,
        Some("ingressDomain"),
        "expected a string, found a number",
    );
    refused(
        "ingress",
        r#"{"additionalIngressDomains": ["a", 1]}"#,
        Some("additionalIngressDomains"),
        "expected a list of strings",
    );
    refused(
        "credentials",
        r#"{"s3": {"s3Region": 1}}"#,
        Some("s3.s3Region"),
        "expected a string",
    );
    refused("credentials", r#"{"gcs": "x"}"#, Some("gcs"), "expected an object");
    refused(
        "deploy",
        "{}",
        Some("defaultDeploymentMode"),
        "invalid deployment mode. Supported modes are",
    );
    refused(
        "deploy",
        r#"{"defaultDeploymentMode": "Other"}"#,
        Some("defaultDeploymentMode"),
        "invalid deployment mode. Supported modes are Knative, Standard and ModelMesh",
    );
    refused(
        "deploy",
        r#"{"defaultDeploymentMode": "Standard", "deploymentRolloutStrategy": {"defaultRollout": {"maxSurge": "some"}}}"#,
        Some("deploymentRolloutStrategy.defaultRollout.maxSurge"),
        "neither a number of Pods nor a percentage",
    );
    refused(
        "storageInitializer",
        r#"{"cpuRequest": "1"}"#,
        Some("cpuLimit"),
        "required",
    );
    refused(
        "storageInitializer",
        r#"{"cpuRequest": ""}"#,
        Some("cpuRequest"),
        "required",
    );
    refused(
        "storageInitializer",
        r#"{"cpuRequest": "1x"}"#,
        Some("cpuRequest"),
        "invalid quantity \"1x\"",
    );
    refused(
        "storageInitializer",
        r#"{"cpuRequest":"1","cpuLimit":"1","memoryRequest":"1","memoryLimit":"1","ociModelMode":"zip"}"#,
        Some("ociModelMode"),
        "unknown mode \"zip\"",
    );
    refused(
        "inferenceService",
        r#"{"resource": {"cpuLimit": "a"}}"#,
        Some("resource.cpuLimit"),
        "invalid quantity",
    );
    refused(
        "autoscaler",
        r#"{"scaleUpStabilizationWindowSeconds": "1h"}"#,
        Some("scaleUpStabilizationWindowSeconds"),
        "not a number of seconds",
    );
    refused(
        "ingress",
        r#"{"domainTemplate": "{{ .Name"}"#,
        Some("domainTemplate"),
        "unable to parse domainTemplate",
    );
    refused(
        "ingress",
        r#"{"pathTemplate": "{{range .X}}", "ingressDomain": "a.test"}"#,
        Some("pathTemplate"),
        "range is not supported",
    );
    refused(
        "ingress",
        r#"{"pathTemplate": "/x"}"#,
        Some("ingressDomain"),
        "invalid ingress config - ingressDomain is required if pathTemplate is given",
    );
}

#[test]
fn the_gateway_is_checked_only_where_it_is_used() {
    let check = |gateway: &str, problem: &str| {
        let json = format!(r#"{{"enableGatewayApi": true, "kserveIngressGateway": "{gateway}"}}"#);
        let problem = format!("invalid ingress config - kserveIngressGateway {problem}");
        refused("ingress", &json, Some("kserveIngressGateway"), &problem);
        let json = format!(r#"{{"kserveIngressGateway": "{gateway}"}}"#);
        assert!(with("ingress", &json).is_ok(), "{json}");
    };
    check("", "is required");
    check("door", "should be in the format <namespace>/<name>");
    check("a/b/c", "should be in the format <namespace>/<name>");
    check("edge/Door", "gateway name is invalid");
    check("Edge/door", "gateway namespace is invalid");
    // KServe insists on ingressGateway, which Standard mode never uses; here it is not needed.
    assert!(only("ingress", "{}").is_ok());
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn hosts_follow_the_domain_template() {
    let none = BTreeMap::new();
    let base = settings("base.yaml").ingress;
    assert_eq!(base.host("m", "g1", &none, &none).as_deref(), Ok("m-g1.models.test"));
    assert_eq!(
        settings("sparse.yaml")
            .ingress
            .host("m", "g309", &none, &none)
            .as_deref(),
        Ok("m-g309.example.com")
    );
    let template = settings("domain-template.yaml").ingress;
    let host = template.host(
        "m-predictor",
        "g1",
        &map(&[("team", "blue")]),
        &map(&[("zone", "north")]),
    );
    assert_eq!(host.as_deref(), Ok("m-predictor.blue.north.ai.corp.test"));
}

#[test]
fn an_invalid_host_is_reported_in_kserve_s_words() {
    let none = BTreeMap::new();
    let text = |result: Result<String, isvc_core::settings::HostError>| result.expect_err("not a host").to_string();
    // Texts recorded from a running KServe, behind its own prefix.
    let name = "a-rather-long-inference-service-name-of-50-characters-predictor";
    assert_eq!(
        text(settings("base.yaml").ingress.host(name, "g346", &none, &none)),
        "invalid domain name \"a-rather-long-inference-service-name-of-50-characters-predictor-g346.models.test\": \
         url: Invalid value: \"a-rather-long-inference-service-name-of-50-characters-predictor-g346\": \
         must be no more than 63 characters"
    );
    assert_eq!(
        text(
            settings("domain-template.yaml")
                .ingress
                .host("m-predictor", "g432", &none, &map(&[("zone", "north")]))
        ),
        "invalid domain name \"m-predictor.<no value>.north.ai.corp.test\": url: Invalid value: \
         \"m-predictor.<no value>.north.ai.corp.test\": a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    );

    let of_template = |template: &str| {
        let ingress = with("ingress", &serde_json::json!({"domainTemplate": template}).to_string());
        ingress
            .expect("the template parses")
            .ingress
            .host("m", "ns", &none, &none)
    };
    assert_eq!(of_template("{{ .Name }}.test.").as_deref(), Ok("m.test."));
    let error = text(of_template("{{ .Labels.x | printf \"\" }}"));
    assert!(
        error.starts_with("error rendering the domain template: template line 1: more arguments"),
        "{error}"
    );
    assert_eq!(
        text(of_template("{{ if .Labels.x }}x{{ end }}")),
        "invalid domain name \"\": url: Required value"
    );
    assert!(
        text(of_template("{{ .Name }}"))
            .ends_with("url: Invalid value: \"m\": should be a domain with at least two segments separated by dots")
    );
    let long = format!("{{{{ .Name }}}}.{}test", "a.".repeat(130));
    assert!(text(of_template(&long)).ends_with(": must be no more than 253 characters"));
    assert!(text(of_template("{{ .Nope }}")).contains("there is no field Nope"));
}

#[test]
fn paths_follow_the_path_template() {
    assert_eq!(settings("base.yaml").ingress.path("m", "ns"), Ok(None));
    let recorded = settings("gateway-path.yaml").ingress.path("a", "g467");
    assert_eq!(recorded.expect("a path").as_deref(), Some("/serving/g467/a"));
    let path = |template: &str| {
        let json = serde_json::json!({"pathTemplate": template, "ingressDomain": "a.test"}).to_string();
        let ingress = with("ingress", &json).expect("the template parses").ingress;
        ingress
            .path("m", "ns")
            .map(Option::unwrap_or_default)
            .map_err(|error| error.to_string())
    };
    assert_eq!(path("/x/{{ .Name }}/").as_deref(), Ok("/x/m"));
    assert_eq!(path("/x//").as_deref(), Ok("/x/"));
    assert_eq!(path("/a%20b?c=d").as_deref(), Ok("/a b"));
    let problem = |template: &str, problem: &str| {
        let error = path(template).expect_err(template);
        assert!(
            error.starts_with("invalid url path ") && error.ends_with(problem),
            "{error}"
        );
    };
    problem("http://host/{{ .Name }}", "contains a scheme");
    problem("{{ .Name }}", "must start with /");
    problem("/%zz", "two hexadecimal digits");
    problem("/a\nb", "control character");
    problem("/%ff", "not UTF-8 once decoded");
    problem("{{ if false }}x{{ end }}", "is empty");
    assert!(
        path("/{{ .IngressDomain }}")
            .expect_err("no such field")
            .contains("no field IngressDomain")
    );
}

#[test]
fn modes_have_present_and_former_names() {
    let check = |text: &str, mode: Option<DeploymentMode>| assert_eq!(DeploymentMode::parse(text), mode, "{text}");
    check("Standard", Some(DeploymentMode::Standard));
    check("RawDeployment", Some(DeploymentMode::Standard));
    check("Knative", Some(DeploymentMode::Knative));
    check("Serverless", Some(DeploymentMode::Knative));
    check("ModelMesh", Some(DeploymentMode::ModelMesh));
    check("standard", None);
    check("", None);
    assert_eq!(DeploymentMode::Standard.as_str(), "Standard");
}

proptest! {
    #[test]
    fn any_document_is_read_or_refused_with_its_key(key in 0..14_usize, json in "[{}\\[\\]\":,a-zA-Z0-9 ]{0,40}") {
        let keys: Vec<String> = data("base.yaml").into_keys().collect();
        let key = &keys[key % keys.len()];
        if let Err(error) = with(key, &json) {
            prop_assert_eq!(error.key(), key.as_str());
        }
    }

    #[test]
    fn valid_names_make_valid_hosts(name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", namespace in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?") {
        let none = BTreeMap::new();
        let host = Settings::built_in().ingress.host(&name, &namespace, &none, &none);
        prop_assert_eq!(host, Ok(format!("{name}-{namespace}.example.com")));
    }
}
