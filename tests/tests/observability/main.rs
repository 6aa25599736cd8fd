//! What is shipped for observing leanserve: that it fits together, and that a real Prometheus finds what it asks for.

mod files;
mod scraped;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

/// One alert.
struct Alert {
    name: String,
    query: String,
    rule: Value,
}

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn alerts() -> Vec<Alert> {
    let rules = yaml("deploy/observability/alerts.yaml");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let alerts: Vec<Alert> = rules
        .map(|rule| Alert {
            name: rule["alert"].as_str().expect("a name").to_owned(),
            query: rule["expr"].as_str().expect("an expression").to_owned(),
            rule: rule.clone(),
        })
        .collect();
    assert!(!alerts.is_empty());
    alerts
}

/// The queries of the dashboard, each with the title of its panel.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/observability/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.to_owned(), target["expr"].as_str().unwrap_or_default().to_owned()))
    });
    let queries: Vec<_> = queries.collect();
    assert!(queries.len() > 30, "{} queries", queries.len());
    queries
}

/// The names of metrics in a query: what begins as the names of metrics do.
fn metrics_in(query: &str) -> BTreeSet<String> {
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        let prefixes = "leanserve|controller_runtime|workqueue|rest_client|leader_election|process|kube";
        Regex::new(&format!(r"\b(?:{prefixes})_[a-z0-9_]+\b")).expect("valid")
    });
    // What is quoted is the value of a label.
    let bare: String = query.split('"').step_by(2).collect();
    NAME.find_iter(&bare).map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn names_are_found_in_queries() {
    let query =
        r#"sum by (le) (rate(workqueue_x_bucket{job=~"process_x"}[5m])) / on (job) process_y unless kube_z == 1"#;
    let names: Vec<_> = metrics_in(query).into_iter().collect();
    assert_eq!(names, ["kube_z", "process_y", "workqueue_x_bucket"]);
}
