//! The files agree with each other and with `docs/metrics.md`, which is made of the code.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{alerts, dashboard_queries, metrics_in, read, repository, yaml};

/// Metrics of kube-state-metrics.
const OF_OTHERS: [&str; 2] = [
    "kube_pod_container_status_last_terminated_reason",
    "kube_pod_container_status_restarts_total",
];

/// The metrics that `docs/metrics.md` describes, as queries may name them.
fn described() -> BTreeSet<String> {
    let page = read("docs/metrics.md");
    let mut names = BTreeSet::new();
    let mut name = "";
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            name = heading.trim_end_matches('`');
            names.insert(name.to_owned());
        } else if line.starts_with("Type: histogram") {
            for suffix in ["_bucket", "_count", "_sum"] {
                names.insert(format!("{name}{suffix}"));
            }
        }
    }
    assert!(names.len() > 30);
    names
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let names: BTreeSet<String> = alerts().iter().map(|alert| alert.name.clone()).collect();
    let files = fs::read_dir(repository("docs/runbooks")).expect("runbooks");
    let runbooks: BTreeSet<String> = files
        .map(|file| file.expect("readable").file_name().to_string_lossy().into_owned())
        .map(|file| file.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(names, runbooks);
    for alert in alerts() {
        let (name, annotations) = (&alert.name, &alert.rule["annotations"]);
        let page = format!("https://github.com/leanserve/leanserve/blob/main/docs/runbooks/{name}.md");
        assert_eq!(annotations["runbook_url"], page.as_str());
        for text in ["summary", "description"] {
            assert!(
                annotations[text].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {text}"
            );
        }
        let severity = alert.rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let runbook = read(&format!("docs/runbooks/{name}.md"));
        assert!(
            runbook.starts_with(&format!("# {name}\n\n**Severity: {severity}.**")),
            "{name}"
        );
    }
}

#[test]
fn every_alert_is_shown_to_fire_and_not_to() {
    let tests = yaml("deploy/observability/alerts_test.yaml");
    let cases = tests["tests"].as_array().expect("tests").iter();
    let cases: Vec<&Value> = cases
        .flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
        .collect();
    for alert in alerts() {
        let mut expected = cases
            .iter()
            .filter(|case| case["alertname"] == alert.name.as_str())
            .map(|case| case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()));
        let (fires, rests) = (expected.clone().any(|fires| fires), expected.any(|fires| !fires));
        assert!(fires && rests, "{}: fires {fires}, rests {rests}", alert.name);
    }
}

#[test]
fn the_prometheus_rule_holds_the_alerts() {
    let rule = yaml("deploy/observability/prometheus-rule.yaml");
    assert_eq!(rule["spec"], yaml("deploy/observability/alerts.yaml"));
    assert_eq!(rule["metadata"]["labels"]["app.kubernetes.io/name"], "leanserve");
}

#[test]
fn queries_name_metrics_that_exist() {
    let described = described();
    let alerts = alerts().into_iter().map(|alert| (alert.name, alert.query));
    for (what, query) in alerts.chain(dashboard_queries()) {
        let names = metrics_in(&query);
        assert!(!names.is_empty(), "{what}: {query}");
        for name in names {
            assert!(
                described.contains(&name) || OF_OTHERS.contains(&name.as_str()),
                "{what} asks for {name}, which docs/metrics.md does not have"
            );
        }
    }
}

#[test]
fn runbooks_name_metrics_that_exist() {
    let described = described();
    for alert in alerts() {
        let runbook = read(&format!("docs/runbooks/{}.md", alert.name));
        for name in metrics_in(&runbook) {
            assert!(
                described.contains(&name) || OF_OTHERS.contains(&name.as_str()),
                "the runbook of {} names {name}, which docs/metrics.md does not have",
                alert.name
            );
        }
    }
}

#[test]
fn monitors_select_what_is_deployed() {
    let pods = yaml("deploy/observability/pod-monitor.yaml");
    let deployment = yaml("deploy/kustomize/base/deployment.yaml");
    let template = &deployment["spec"]["template"];
    let selected = pods["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    for (label, value) in selected {
        assert_eq!(&template["metadata"]["labels"][label], value, "{label}");
    }
    let ports = template["spec"]["containers"][0]["ports"].as_array().expect("ports");
    let port = &pods["spec"]["podMetricsEndpoints"][0]["port"];
    assert!(ports.iter().any(|offered| &offered["name"] == port), "{port}");

    let service = yaml("deploy/kustomize/base/service.yaml");
    for role in ["audit", "webhook"] {
        let deployment = yaml(&format!("deploy/kustomize/components/{role}/deployment.yaml"));
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        for selector in [selected, service["spec"]["selector"].as_object().expect("labels")] {
            for (label, value) in selector {
                assert_eq!(&labels[label], value, "{role}: {label}");
            }
        }
    }

    let services = yaml("deploy/observability/service-monitor.yaml");
    let component = "app.kubernetes.io/component";
    assert_eq!(
        services["spec"]["selector"]["matchLabels"][component],
        service["metadata"]["labels"][component]
    );
    assert_eq!(
        services["spec"]["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
}

/// What Grafana needs to show a dashboard that was not made in it.
#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("deploy/observability/dashboard.json")).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    assert!(dashboard["uid"].is_string() && dashboard["title"].is_string());
    assert!(dashboard.get("id").is_none(), "an id belongs to one Grafana");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let source = variables.iter().find(|variable| variable["name"] == "datasource");
    assert!(source.is_some_and(|source| source["type"] == "datasource" && source["query"] == "prometheus"));
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title}: its id is there twice"
        );
        let at = |field: &str| panel["gridPos"][field].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{title} is off the page");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().expect("queries");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(
                target["expr"]
                    .as_str()
                    .is_some_and(|query| query.contains("job=~\"$job\"")),
                "{title}"
            );
        }
    }
}
