//! What a template and a policy compile to.

use serde_json::{Value, json};

use super::{
    EnforcementAction, FailurePolicy, Named, Parameters, Policy, Template, TemplateSpec, Validation, cel,
    names::{self, admission_policy, audit_binding, audit_shard, binding},
};

/// Follows what is built: another version compiles to objects of other names, so that both are in force while the new ones
/// are put in place.
const COMPILER: &str = "1";

/// A service that is being deleted may break any rule, or nobody could take its finalizers away and it would hang. Only its
/// specification must not change meanwhile.
const BEING_DELETED: (&str, &str) = (
    "leanserve-not-being-deleted",
    "!has(object.metadata.deletionTimestamp) || object.spec != oldObject.spec",
);

/// The objects of one policy, as they are applied.
///
/// The admission policy is shared: identical parameters of one template compile to the same object, down to its name, and
/// its content never changes under that name. The bindings are the policy's own. Both bindings are applied before a
/// policy counts as in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// Of everything that decides: the template's uid and rules, and the values of the parameters.
    pub hash: String,
    /// The `ValidatingAdmissionPolicy`; the template is its owner.
    pub admission_policy: Value,
    /// The `ValidatingAdmissionPolicyBinding` that enforces; the policy is its owner.
    pub binding: Value,
    /// The binding that warns the auditor and nobody else; the policy is its owner. None where [`Self::audit`] needs none.
    pub audit_binding: Option<Value>,
    /// How the auditor learns of violations.
    pub audit: Audit,
}

/// How the auditor learns of a policy's violations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Warnings of the binding of this name are the violations.
    Binding(String),
    /// The policy says `audit: false`.
    Off,
    /// The rules ask who makes the request, which is the auditor in an audit.
    AsksWho,
    /// A rule has characters that the API server's warnings cannot carry.
    Unreadable,
}

/// Compiles. Any parameters that were checked can be built; whether the rules are valid the API server says.
#[must_use]
pub fn build(template: &Template, policy: &Policy, parameters: &Parameters) -> Compiled {
    let spec = admission_spec(&template.spec, parameters);
    let hash = names::digest(format!("{COMPILER}\n{}\n{}", template.uid, canonical(&spec)).as_bytes());
    let audit = audit(template, policy, &spec);
    let audit_binding = match &audit {
        Audit::Binding(name) if policy.spec.enforcement_action != EnforcementAction::Warn => {
            Some(make_audit_binding(name, template, policy, &hash))
        }
        Audit::Binding(_) | Audit::Off | Audit::AsksWho | Audit::Unreadable => None,
    };
    Compiled {
        admission_policy: json!({
            "apiVersion": names::ADMISSION_API_VERSION,
            "kind": names::ADMISSION_POLICY_KIND,
            "metadata": {
                "name": admission_policy(&hash),
                "labels": {
                    (names::LABEL_MANAGED_BY): names::MANAGED_BY,
                    (names::LABEL_TEMPLATE_UID): template.uid,
                    (names::LABEL_POLICY_HASH): hash,
                },
                "annotations": {(names::ANNOTATION_TEMPLATE): template.name},
                "ownerReferences": [owner(names::TEMPLATE_KIND, &template.name, &template.uid)],
            },
            "spec": spec,
        }),
        binding: make_binding(template, policy, &hash),
        audit_binding,
        audit,
        hash,
    }
}

/// An admission policy for a dry run, with a value of each parameter's type, so that the API server judges a template that
/// no policy uses yet.
#[must_use]
pub fn probe(template: &Template) -> Value {
    let spec = admission_spec(&template.spec, &Parameters::probing(&template.spec.parameters));
    json!({
        "apiVersion": names::ADMISSION_API_VERSION,
        "kind": names::ADMISSION_POLICY_KIND,
        "metadata": {
            "name": format!("leanserve-probe-{}", names::digest(template.uid.as_bytes())),
            "labels": {(names::LABEL_MANAGED_BY): names::MANAGED_BY},
        },
        "spec": spec,
    })
}

/// The API version is written out, because the API server checks types only against named versions.
fn admission_spec(template: &TemplateSpec, parameters: &Parameters) -> Value {
    let named = |list: &[Named]| {
        list.iter()
            .map(|named| json!({"name": named.name, "expression": cel::on_one_line(&named.expression)}))
            .collect::<Vec<_>>()
    };
    let mut variables = vec![json!({"name": "params", "expression": parameters.to_cel()})];
    variables.extend(named(&template.variables));
    let mut spec = json!({
        "failurePolicy": match template.failure_policy {
            FailurePolicy::Fail => "Fail",
            FailurePolicy::Ignore => "Ignore",
        },
        "matchConstraints": {
            "resourceRules": [{
                "apiGroups": ["serving.kserve.io"],
                "apiVersions": ["v1beta1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["inferenceservices"],
                "scope": "Namespaced",
            }],
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
        },
        "validations": template.validations.iter().map(validation).collect::<Vec<_>>(),
        "variables": variables,
    });
    let mut conditions = vec![json!({"name": BEING_DELETED.0, "expression": BEING_DELETED.1})];
    conditions.extend(named(&template.match_conditions));
    spec["matchConditions"] = Value::from(conditions);
    spec
}

fn validation(validation: &Validation) -> Value {
    let mut entry = json!({"expression": cel::on_one_line(&validation.expression)});
    if let Some(message) = &validation.message {
        entry["message"] = Value::from(message.replace(cel::is_odd, " ").trim());
    }
    if let Some(expression) = &validation.message_expression {
        // What the service says may be part of the message; without control characters the warning is never dropped.
        let expression = cel::on_one_line(expression);
        entry["messageExpression"] = Value::from(format!("({expression}).findAll('[^\\\\p{{Cc}}]+').join(' ')"));
    }
    entry
}

fn make_binding(template: &Template, policy: &Policy, hash: &str) -> Value {
    let action = match policy.spec.enforcement_action {
        EnforcementAction::Deny => "Deny",
        EnforcementAction::Warn => "Warn",
        EnforcementAction::Dryrun => "Audit",
    };
    let selector = or_all(&policy.spec.object_selector);
    object_of_binding(
        &binding(&policy.name),
        names::BINDING_ENFORCE,
        (template, policy, hash),
        action,
        &selector,
    )
}

fn make_audit_binding(name: &str, template: &Template, policy: &Policy, hash: &str) -> Value {
    let shard = audit_shard(name);
    let mut values = vec![names::AUDIT_ALL.to_owned()];
    values.extend((1..=shard.len()).map(|digits| shard[..digits].to_owned()));
    let mut selector = or_all(&policy.spec.object_selector);
    let mut expressions = match selector["matchExpressions"].take() {
        Value::Array(expressions) => expressions,
        _ => Vec::new(),
    };
    expressions.push(json!({"key": names::LABEL_AUDIT, "operator": "In", "values": values}));
    selector["matchExpressions"] = Value::Array(expressions);
    object_of_binding(name, names::BINDING_AUDIT, (template, policy, hash), "Warn", &selector)
}

fn object_of_binding(
    name: &str,
    purpose: &str,
    (template, policy, hash): (&Template, &Policy, &str),
    action: &str,
    object_selector: &Value,
) -> Value {
    json!({
        "apiVersion": names::ADMISSION_API_VERSION,
        "kind": names::BINDING_KIND,
        "metadata": {
            "name": name,
            "labels": {
                (names::LABEL_MANAGED_BY): names::MANAGED_BY,
                (names::LABEL_TEMPLATE_UID): template.uid,
                (names::LABEL_POLICY_UID): policy.uid,
                (names::LABEL_POLICY_HASH): hash,
                (names::LABEL_BINDING): purpose,
            },
            "annotations": {(names::ANNOTATION_POLICY_GENERATION): policy.generation.to_string()},
            "ownerReferences": [owner(names::POLICY_KIND, &policy.name, &policy.uid)],
        },
        "spec": {
            "policyName": admission_policy(hash),
            "validationActions": [action],
            "matchResources": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": or_all(&policy.spec.namespace_selector),
                "objectSelector": object_selector,
            },
        },
    })
}

/// A violation of a policy that only warns is seen in its own binding's warning, which would come beside another one.
fn audit(template: &Template, policy: &Policy, spec: &Value) -> Audit {
    if !policy.spec.audit {
        return Audit::Off;
    }
    let rules = &template.spec;
    let named = rules.variables.iter().chain(&rules.match_conditions);
    let mut expressions = named.map(|named| named.expression.as_str()).chain(
        rules
            .validations
            .iter()
            .map(|validation| validation.expression.as_str()),
    );
    if expressions.any(cel::asks_who) {
        return Audit::AsksWho;
    }
    let unreadable = |key: &str| {
        spec[key].as_array().into_iter().flatten().any(|entry| {
            let expression = entry["expression"].as_str();
            expression.is_some_and(|expression| expression.contains(cel::is_odd))
        })
    };
    if ["variables", "validations"].into_iter().any(unreadable) {
        return Audit::Unreadable;
    }
    Audit::Binding(match policy.spec.enforcement_action {
        EnforcementAction::Warn => binding(&policy.name),
        EnforcementAction::Deny | EnforcementAction::Dryrun => audit_binding(&policy.name),
    })
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": names::API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}

fn or_all(selector: &Value) -> Value {
    if selector.is_null() {
        json!({})
    } else {
        selector.clone()
    }
}

/// JSON text that is the same for equal values, whatever the order of keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut entries: Vec<(&String, &Value)> = fields.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar.to_string(),
    }
}
