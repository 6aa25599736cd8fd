//! The definitions of `leanserve.dev`: policy templates and policies.

use serde_json::Value;

use super::definition::{Definition, OWN_GROUP, PrinterColumn};
use super::rules;
use super::schema::{
    Schema, any, boolean, field, int64, item, list, object, opaque, required, string, string_map, strings,
};
use crate::policy::{ParameterType, names, status};

/// Bounds of a template. They keep the cost of the rules below what the API server accepts, too.
const MAX_PARAMETERS: u64 = 32;
const MAX_EXPRESSIONS: u64 = 32;
const MAX_NAME: u64 = 63;
const MAX_EXPRESSION: u64 = 8192;
const MAX_TEXT: u64 = 1024;

/// Most requirements of a selector.
const MAX_REQUIREMENTS: u64 = 64;

const IDENTIFIER: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

/// The `inferencepolicytemplates.leanserve.dev` `CustomResourceDefinition`.
#[must_use]
pub fn inference_policy_template() -> Value {
    let spec = object(
        "The rules and what they can be parameterized with.",
        [
            field(
                "failurePolicy",
                string("What a rule that cannot be evaluated does to the request: Fail refuses it.")
                    .one_of(&["Fail", "Ignore"])
                    .default("Fail"),
            ),
            field("parameters", parameters()),
            field(
                "variables",
                named(
                    "Expressions that later ones read as variables.<name>.",
                    identifier("Name of the variable."),
                ),
            ),
            field(
                "matchConditions",
                named(
                    "Conditions that all have to be true for the rules to apply.",
                    string("Name of the condition.").min_length(1).max_length(MAX_NAME),
                ),
            ),
            required("validations", validations()),
        ],
    )
    .rules(rules::policy_template());
    let status = object(
        "What came of the template.",
        [
            field("observedGeneration", int64("Generation that the status is about.")),
            field("policies", int64("Policies that use the template.")),
            field("conditions", conditions("Compiled and TypeChecked.")),
        ],
    );
    Definition {
        group: OWN_GROUP,
        kind: names::TEMPLATE_KIND,
        singular: "inferencepolicytemplate",
        plural: names::TEMPLATE_RESOURCE,
        short_names: &[],
        scope: "Cluster",
        version: names::VERSION,
        status_subresource: true,
        columns: vec![
            condition_column("Compiled", status::COMPILED),
            condition_column("TypeChecked", status::TYPE_CHECKED),
            PrinterColumn::new("Policies", "integer", ".status.policies"),
            PrinterColumn::age(),
        ],
        description: "Rules about InferenceServices with parameters that policies set.",
        fields: vec![required("spec", spec), field("status", status)],
        rules: Vec::new(),
    }
    .into_json()
}

/// The `inferencepolicies.leanserve.dev` `CustomResourceDefinition`.
#[must_use]
pub fn inference_policy() -> Value {
    let spec = object(
        "Which rules hold for which services.",
        [
            required(
                "templateRef",
                object(
                    "The template with the rules.",
                    [required(
                        "name",
                        string("Name of an InferencePolicyTemplate.")
                            .min_length(1)
                            .max_length(253),
                    )],
                ),
            ),
            field(
                "parameters",
                opaque("Values of the template's parameters by name, each of its declared type."),
            ),
            field(
                "match",
                object(
                    "Services the policy is about; all if absent.",
                    [
                        field(
                            "namespaceSelector",
                            label_selector("Labels of the services' namespaces; all if absent."),
                        ),
                        field(
                            "objectSelector",
                            label_selector("Labels of the services; all if absent."),
                        ),
                    ],
                ),
            ),
            field(
                "enforcementAction",
                string("What a violation leads to: refusal, a warning, or a note in the API server's audit log.")
                    .one_of(&["deny", "warn", "dryrun"])
                    .default("deny"),
            ),
            field(
                "audit",
                boolean("Services that exist are checked by leanserve audit.").default(true),
            ),
        ],
    );
    let status = object(
        "What came of the policy.",
        [
            field("observedGeneration", int64("Generation that the status is about.")),
            field(
                "admissionPolicy",
                string("ValidatingAdmissionPolicy it compiles to, shared by equal policies."),
            ),
            field("binding", string("ValidatingAdmissionPolicyBinding that enforces it.")),
            field(
                "auditBinding",
                string("ValidatingAdmissionPolicyBinding whose warnings are the audit's findings."),
            ),
            field(
                "conditions",
                conditions("Ready, ParametersValid, TemplateFound, Auditable and, in a fight, Contested."),
            ),
            field("audit", audit()),
        ],
    );
    Definition {
        group: OWN_GROUP,
        kind: names::POLICY_KIND,
        singular: "inferencepolicy",
        plural: names::POLICY_RESOURCE,
        short_names: &[],
        scope: "Cluster",
        version: names::VERSION,
        status_subresource: true,
        columns: vec![
            PrinterColumn::new("Template", "string", ".spec.templateRef.name"),
            PrinterColumn::new("Action", "string", ".spec.enforcementAction"),
            condition_column("Ready", status::READY),
            PrinterColumn::new("Violations", "integer", ".status.audit.violations"),
            PrinterColumn::new("Complete", "boolean", ".status.audit.complete"),
            PrinterColumn::age(),
        ],
        description: "Puts the rules of a template in force for some InferenceServices.",
        fields: vec![required("spec", spec), field("status", status)],
        rules: Vec::new(),
    }
    .into_json()
}

fn parameters() -> Schema {
    list(
        "What policies may or must set.",
        item([
            required("name", identifier("Name; expressions read variables.params.<name>.")),
            required("type", string("Type of the value.").one_of(&ParameterType::names())),
            field(
                "required",
                boolean("Every policy has to set it, unless there is a default.").default(false),
            ),
            field("default", any("Value where a policy sets none.")),
            field("description", string("What the parameter means.").max_length(MAX_TEXT)),
        ]),
    )
    .keyed_by(&["name"])
    .max_items(MAX_PARAMETERS)
}

fn validations() -> Schema {
    list(
        "The rules. A service has to keep all of them.",
        item([
            required(
                "expression",
                expression("True for a service that keeps the rule, in CEL."),
            ),
            field(
                "message",
                string("What a refusal says, on one line.")
                    .min_length(1)
                    .max_length(MAX_TEXT)
                    .pattern("^[^\\n\\r]*[^\\s][^\\n\\r]*$"),
            ),
            field(
                "messageExpression",
                expression("The same as an expression, such as 'at most ' + string(variables.params.max)."),
            ),
        ]),
    )
    .atomic()
    .min_items(1)
    .max_items(MAX_EXPRESSIONS)
}

fn named(description: &str, name: Schema) -> Schema {
    list(
        description,
        item([
            required("name", name),
            required("expression", expression("Expression in CEL.")),
        ]),
    )
    .keyed_by(&["name"])
    .max_items(MAX_EXPRESSIONS)
}

fn identifier(description: &str) -> Schema {
    string(description)
        .min_length(1)
        .max_length(MAX_NAME)
        .pattern(IDENTIFIER)
}

fn expression(description: &str) -> Schema {
    string(description).min_length(1).max_length(MAX_EXPRESSION)
}

fn label_selector(description: &str) -> Schema {
    object(
        description,
        [
            field("matchLabels", string_map("Labels with exactly these values.")),
            field(
                "matchExpressions",
                list(
                    "Requirements that all have to hold.",
                    item([
                        required("key", string("Key of the label.")),
                        required(
                            "operator",
                            string("How the value is compared.").one_of(&["In", "NotIn", "Exists", "DoesNotExist"]),
                        ),
                        field("values", strings("Values of In and NotIn.").atomic()),
                    ]),
                )
                .atomic()
                .max_items(MAX_REQUIREMENTS),
            ),
        ],
    )
    .atomic()
    .rules(rules::label_selector())
}

fn conditions(description: &str) -> Schema {
    list(
        description,
        item([
            required("type", string("Kind of condition.")),
            required(
                "status",
                string("Whether it holds.").one_of(&["True", "False", "Unknown"]),
            ),
            required("reason", string("One word for programs.").min_length(1)),
            required(
                "message",
                string("Sentence for people.").max_length(status::MAX_MESSAGE as u64),
            ),
            required(
                "lastTransitionTime",
                string("When the status changed last.").format("date-time"),
            ),
            field("observedGeneration", int64("Generation that the condition is about.")),
        ]),
    )
    .keyed_by(&["type"])
}

fn audit() -> Schema {
    object(
        "Services that violated the policy when they were looked at last.",
        [
            field("lastRun", string("When the run ended.").format("date-time")),
            field(
                "observedGeneration",
                int64("Generation of the policy that the run was about."),
            ),
            field(
                "complete",
                boolean("Every service was evaluated under this generation."),
            ),
            field("message", string("Why the run is not complete.")),
            field(
                "violations",
                int64("Services that violate the policy, as far as they were evaluated."),
            ),
            field(
                "samples",
                list(
                    "Some of them.",
                    item([
                        required("namespace", string("Namespace of the service.")),
                        required("name", string("Name of the service.")),
                        field("message", string("What the first rule it violates says.")),
                    ]),
                )
                .atomic()
                .max_items(status::MAX_SAMPLES as u64),
            ),
        ],
    )
}

fn condition_column(name: &'static str, type_: &str) -> PrinterColumn {
    PrinterColumn::new(
        name,
        "string",
        &format!(".status.conditions[?(@.type=='{type_}')].status"),
    )
}
