//! The frame around a schema: a complete `CustomResourceDefinition`.

use serde_json::{Map, Value, json};

use super::rules::Rule;
use super::schema::{Field, field, item, object, string};

/// Everything in which the definitions differ.
pub(super) struct Definition {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) singular: &'static str,
    pub(super) plural: &'static str,
    pub(super) short_names: &'static [&'static str],
    pub(super) scope: &'static str,
    pub(super) version: &'static str,
    pub(super) status_subresource: bool,
    pub(super) columns: Vec<PrinterColumn>,
    pub(super) description: &'static str,
    /// Top-level fields besides `apiVersion`, `kind` and `metadata`.
    pub(super) fields: Vec<Field>,
    /// Rules about the object as a whole.
    pub(super) rules: Vec<Rule>,
}

/// A column of `kubectl get`.
pub(super) struct PrinterColumn {
    name: &'static str,
    kind: &'static str,
    path: String,
}

impl PrinterColumn {
    pub(super) fn new(name: &'static str, kind: &'static str, path: &str) -> Self {
        Self {
            name,
            kind,
            path: path.to_owned(),
        }
    }

    pub(super) fn age() -> Self {
        Self::new("Age", "date", ".metadata.creationTimestamp")
    }
}

impl Definition {
    pub(super) fn into_json(self) -> Value {
        let mut fields = vec![
            field("apiVersion", string("Group and version of the object.")),
            field("kind", string("Kind of the object.")),
            // The API server describes metadata itself and refuses any other description.
            field("metadata", item([])),
        ];
        fields.extend(self.fields);

        let mut names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.singular,
        });
        if !self.short_names.is_empty() {
            names["shortNames"] = json!(self.short_names);
        }

        let mut version = Map::new();
        version.insert("name".to_owned(), json!(self.version));
        version.insert("served".to_owned(), json!(true));
        version.insert("storage".to_owned(), json!(true));
        let mut schema = object(self.description, fields);
        if !self.rules.is_empty() {
            schema = schema.rules(self.rules);
        }
        version.insert("schema".to_owned(), json!({"openAPIV3Schema": schema.into_json()}));
        if self.status_subresource {
            version.insert("subresources".to_owned(), json!({"status": {}}));
        }
        if !self.columns.is_empty() {
            let columns: Vec<Value> = self
                .columns
                .into_iter()
                .map(|column| json!({"name": column.name, "type": column.kind, "jsonPath": column.path}))
                .collect();
            version.insert("additionalPrinterColumns".to_owned(), Value::Array(columns));
        }

        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", self.plural, self.group)},
            "spec": {
                "group": self.group,
                "names": names,
                "scope": self.scope,
                "versions": [version],
            },
        })
    }
}

/// The group of `KServe`'s kinds.
pub(super) const KSERVE_GROUP: &str = "serving.kserve.io";
/// The group of our own kinds.
pub(super) const OWN_GROUP: &str = crate::policy::names::GROUP;
