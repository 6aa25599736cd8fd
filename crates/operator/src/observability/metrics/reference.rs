//! `docs/metrics.md`, made of the descriptions.

use std::{env, fmt::Write, fs, path::PathBuf};

use super::{
    AuditMetrics, Metrics, WebhookMetrics,
    catalog::{Catalog, Description, Kind, Values},
};

/// Set to write the page instead of comparing it.
const WRITE: &str = "LEANSERVE_WRITE_DOCS";

const HEAD: &str = "\
# Metrics

leanserve serves these under `/metrics` on port 8080 (`--metrics-bind-address`): in the text format of Prometheus, or in
OpenMetrics for who asks for it. Each role, such as `leanserve run` and `leanserve webhook`, has those that concern it. Names that begin with `controller_runtime_`, `workqueue_`, `rest_client_`,
`leader_election_` and `process_` mean what they mean in operators written in Go, so that dashboards made for those work;
names that begin with `leanserve_` are its own.

Every label has one of the values that are listed, and none is the name of an object: the number of series has a bound
that does not depend on the cluster. `make metrics` writes this page from the code, and `make check-metrics` compares it.

Alerts on them are in [deploy/observability/alerts.yaml](../deploy/observability/alerts.yaml), with a page each under
[runbooks](runbooks); a dashboard for Grafana is beside them.
";

/// Of all roles; what several have is described once.
fn descriptions() -> Vec<Description> {
    let (_, catalog) = Metrics::described(Catalog::default());
    let (_, of_webhook) = WebhookMetrics::described(Catalog::default());
    let (_, of_audit) = AuditMetrics::described(Catalog::default());
    let mut descriptions = catalog.descriptions;
    for further in of_webhook.descriptions.into_iter().chain(of_audit.descriptions) {
        match descriptions.iter().find(|known| known.name == further.name) {
            Some(known) => assert_eq!(known.help, further.help, "{} means one thing", known.name),
            None => descriptions.push(further),
        }
    }
    descriptions.sort_by_key(|description| description.name);
    descriptions
}

fn page() -> String {
    let descriptions = descriptions();
    let mut page = HEAD.to_owned();
    for (title, own) in [("Its own", true), ("As in other operators", false)] {
        write!(page, "\n## {title}\n").expect("writing to a string cannot fail");
        let those = descriptions
            .iter()
            .filter(|one| one.name.starts_with("leanserve_") == own);
        those.for_each(|one| describe(&mut page, one));
    }
    page
}

fn describe(page: &mut String, description: &Description) {
    let Description {
        name,
        kind,
        help,
        labels,
    } = description;
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = unit(name).map(|unit| format!(", in {unit}")).unwrap_or_default();
    write!(page, "\n### `{name}`\n\n{help}.\n\nType: {kind}{unit}.\n").expect("writing to a string cannot fail");
    if labels.is_empty() {
        return;
    }
    page.push_str("\n| label | values |\n|---|---|\n");
    for label in labels {
        let values = match label.values {
            Values::Closed(values) => {
                let values: Vec<_> = values()
                    .iter()
                    .map(|value| {
                        if value.is_empty() {
                            "none".to_owned()
                        } else {
                            format!("`{value}`")
                        }
                    })
                    .collect();
                values.join(", ")
            }
            Values::Constant(what) => what.to_owned(),
        };
        writeln!(page, "| `{}` | {values} |", label.name).expect("writing to a string cannot fail");
    }
}

/// Names end with their unit.
fn unit(name: &str) -> Option<&'static str> {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| bare.ends_with(unit))
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = page();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/metrics.md is not what the code says; `make metrics` writes it"
    );
}

#[test]
fn every_metric_follows_the_conventions_of_prometheus() {
    for Description {
        name,
        kind,
        help,
        labels,
    } in &descriptions()
    {
        assert_eq!(
            *kind == Kind::Counter,
            name.ends_with("_total"),
            "{name}: counters and nothing else end with _total"
        );
        assert!(
            !help.is_empty() && !help.ends_with('.'),
            "{name}: the help is a text, and the full stop is added"
        );
        for label in labels {
            let Values::Closed(values) = label.values else { continue };
            let values = values();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), values.len(), "{name}: {} has a value twice", label.name);
        }
    }
}
