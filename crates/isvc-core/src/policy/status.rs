//! The statuses of templates and policies, from plain facts.
//!
//! Each function returns a whole `status`, to be applied with the controller's field manager. The part that the auditor
//! writes, `status.audit` of a policy, is not in it: it has a field manager of its own ([`audit`]).

mod audit;

pub use audit::{AuditResult, AuditSample, MAX_SAMPLES, audit};

use serde_json::{Value, json};

use super::{Audit, Compiled, ParameterProblem, cel, names};

/// Condition of a template: the API server accepts its rules.
pub const COMPILED: &str = "Compiled";
/// Condition of a template: the API server finds nothing wrong with the types in its rules.
pub const TYPE_CHECKED: &str = "TypeChecked";
/// Condition of a policy: it is in force as it is written.
pub const READY: &str = "Ready";
/// Condition of a policy: its parameters are what the template declares.
pub const PARAMETERS_VALID: &str = "ParametersValid";
/// Condition of a policy: its template is there and can be used.
pub const TEMPLATE_FOUND: &str = "TemplateFound";
/// Condition of a policy: somebody else keeps changing what it compiles to.
pub const CONTESTED: &str = "Contested";
/// Condition of a policy with `audit: true`: the auditor can tell its violations.
pub const AUDITABLE: &str = "Auditable";

/// The longest message of a condition that the definition accepts, in characters.
pub const MAX_MESSAGE: usize = 32_768;

/// What is known of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFacts<'a> {
    /// The generation that the facts are about.
    pub generation: i64,
    /// How many policies use it.
    pub policies: u64,
    /// What the API server says of its rules; an error is its text.
    pub compiled: Known<Result<(), &'a str>>,
    /// What the API server finds wrong with types; empty for nothing.
    pub type_warnings: Known<&'a [TypeWarning]>,
}

/// A fact that may not be known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known<T> {
    /// Nothing has said it yet.
    #[default]
    NotYet,
    /// It is so.
    Is(T),
}

/// One entry of `status.typeChecking.expressionWarnings` of an admission policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeWarning {
    /// The field of the admission policy, as in `spec.validations[0].expression`.
    pub field: String,
    /// What the API server says.
    pub text: String,
}

/// What is known of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyFacts<'a> {
    /// The generation that the facts are about.
    pub generation: i64,
    /// Name of the template.
    pub template_name: &'a str,
    /// Whether there is such a template.
    pub template: TemplateState<'a>,
    /// What is wrong with the parameters; empty for nothing. Not known without a template.
    pub parameters: Known<&'a [ParameterProblem]>,
    /// How far putting it in force has come.
    pub enforcement: Enforcement<'a>,
    /// What is in force, or being put in force; none where nothing could be compiled.
    pub compiled: Option<&'a Compiled>,
    /// Repairs within the last minutes, if they are so many that somebody else wants something else.
    pub contested: Option<u32>,
}

/// Whether a policy's template can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateState<'a> {
    /// It is there.
    Found,
    /// There is none of this name.
    Missing,
    /// It is there and cannot be read, and why.
    Unreadable(&'a str),
}

/// How far putting a policy in force has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement<'a> {
    /// Every API server that was asked enforces it.
    InForce,
    /// It is applied, and not known to be in force yet.
    Settling,
    /// The API server refuses what it compiles to, with this text.
    Refused(&'a str),
    /// There is nothing to apply: other conditions say why. True if what it compiled to before is still in force.
    Blocked {
        /// The objects of before are kept.
        last_good: bool,
    },
}

/// The status of a template. `before` is its present status (null if it has none), `now` an RFC 3339 time.
#[must_use]
pub fn template(facts: &TemplateFacts<'_>, before: &Value, now: &str) -> Value {
    let compiled = match facts.compiled {
        Known::NotYet => unknown(COMPILED, "Pending", "The API server was not asked yet."),
        Known::Is(Ok(())) => holds(COMPILED, "Accepted", "The API server accepts every expression."),
        Known::Is(Err(text)) => fails(COMPILED, "Refused", text),
    };
    let type_checked = match facts.type_warnings {
        Known::NotYet => unknown(
            TYPE_CHECKED,
            "Pending",
            "The API server checks types when a policy uses the template.",
        ),
        Known::Is([]) => holds(TYPE_CHECKED, "NoWarnings", "The API server finds nothing wrong."),
        Known::Is(warnings) => {
            let lines: Vec<String> = warnings
                .iter()
                .map(|warning| format!("{}: {}", warning.field, warning.text.trim()))
                .collect();
            fails(TYPE_CHECKED, "Warnings", &lines.join("\n"))
        }
    };
    json!({
        "observedGeneration": facts.generation,
        "policies": facts.policies,
        "conditions": conditions(vec![compiled, type_checked], facts.generation, before, now),
    })
}

/// The status of a policy, without what the auditor writes. `before` is its present status (null if it has none), `now` an
/// RFC 3339 time.
#[must_use]
pub fn policy(facts: &PolicyFacts<'_>, before: &Value, now: &str) -> Value {
    let template_name = facts.template_name;
    let template_found = match facts.template {
        TemplateState::Found => holds(TEMPLATE_FOUND, "Found", "The template is there."),
        TemplateState::Missing => fails(
            TEMPLATE_FOUND,
            "Missing",
            &format!("There is no InferencePolicyTemplate {template_name}. Nothing is enforced until it is made."),
        ),
        TemplateState::Unreadable(problem) => fails(
            TEMPLATE_FOUND,
            "Unreadable",
            &format!("InferencePolicyTemplate {template_name} cannot be read: {problem}"),
        ),
    };
    let parameters_valid = match facts.parameters {
        Known::NotYet => unknown(PARAMETERS_VALID, "NoTemplate", "Only the template can tell."),
        Known::Is([]) => holds(
            PARAMETERS_VALID,
            "Valid",
            "Every parameter is what the template declares.",
        ),
        Known::Is(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            fails(PARAMETERS_VALID, "Invalid", &lines.join("\n"))
        }
    };
    let mut all = vec![ready(facts), parameters_valid, template_found];
    let auditable = facts.compiled.and_then(|compiled| auditable(&compiled.audit));
    all.extend(auditable);
    if let Some(repairs) = facts.contested {
        all.push(holds(
            CONTESTED,
            "RepairedTooOften",
            &format!(
                "What the policy compiles to was changed or deleted {repairs} times within minutes by somebody else. It is \
                 put back more and more slowly; find out who does it in the API server's audit log."
            ),
        ));
    }
    let mut status = json!({
        "observedGeneration": facts.generation,
        "conditions": conditions(all, facts.generation, before, now),
    });
    if let Some(compiled) = facts.compiled {
        status["admissionPolicy"] = compiled.admission_policy["metadata"]["name"].clone();
        status["binding"] = compiled.binding["metadata"]["name"].clone();
        if let Audit::Binding(name) = &compiled.audit {
            status["auditBinding"] = Value::from(name.as_str());
        }
    }
    status
}

fn ready(facts: &PolicyFacts<'_>) -> Value {
    match facts.enforcement {
        Enforcement::InForce => holds(READY, "InForce", "The API server enforces the policy as it is written."),
        Enforcement::Settling => fails(
            READY,
            "Settling",
            "What the policy compiles to is applied; the API server was not seen to enforce it yet. Until then the one of \
             before is in force, if there was one.",
        ),
        Enforcement::Refused(text) => fails(READY, "Refused", text),
        Enforcement::Blocked { last_good } => {
            let (reason, why) = match (&facts.template, &facts.parameters) {
                (TemplateState::Missing, _) => ("TemplateMissing", "There is no such template."),
                (TemplateState::Unreadable(_), _) => ("TemplateUnreadable", "The template cannot be read."),
                (TemplateState::Found, _) => (
                    "ParametersInvalid",
                    "The parameters are not what the template declares.",
                ),
            };
            let kept = if last_good {
                "What was in force before stays in force."
            } else {
                "Nothing is in force."
            };
            fails(READY, reason, &format!("{why} {kept}"))
        }
    }
}

fn auditable(audit: &Audit) -> Option<Value> {
    match audit {
        Audit::Off => None,
        Audit::Binding(_) => Some(holds(AUDITABLE, "Auditable", "Services that exist can be checked.")),
        Audit::AsksWho => Some(fails(
            AUDITABLE,
            "AsksWho",
            "The rules ask who makes the request, and in an audit that is the auditor. Set audit to false.",
        )),
        Audit::Unreadable => Some(fails(
            AUDITABLE,
            "Unreadable",
            "A rule has control characters that cannot be written otherwise, and warnings cannot carry them.",
        )),
    }
}

/// A text without the characters that server-side apply takes as escapes only. They come from what others wrote: an image's
/// name that a message quotes, and must not keep a status from being written.
fn plain(text: &str) -> String {
    text.replace(|c| cel::is_odd(c) && !('\0'..' ').contains(&c), "\u{fffd}")
}

fn holds(type_: &str, reason: &str, message: &str) -> Value {
    condition(type_, "True", reason, message)
}

fn fails(type_: &str, reason: &str, message: &str) -> Value {
    condition(type_, "False", reason, message)
}

fn unknown(type_: &str, reason: &str, message: &str) -> Value {
    condition(type_, "Unknown", reason, message)
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    let message = plain(message);
    let message = if message.chars().count() > MAX_MESSAGE {
        const MORE: &str = " ...";
        let kept = message.chars().take(MAX_MESSAGE - MORE.len());
        kept.chain(MORE.chars()).collect()
    } else {
        message
    };
    json!({"type": type_, "status": status, "reason": reason, "message": message})
}

/// Gives each condition its generation, and its time: that of before where its status is the same.
fn conditions(mut list: Vec<Value>, generation: i64, before: &Value, now: &str) -> Value {
    for condition in &mut list {
        let known = before["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|known| known["type"] == condition["type"] && known["status"] == condition["status"]);
        let time = known
            .and_then(|known| known["lastTransitionTime"].as_str())
            .unwrap_or(now);
        condition["lastTransitionTime"] = Value::from(time);
        condition["observedGeneration"] = Value::from(generation);
    }
    Value::Array(list)
}

/// The object to apply to the status of a template or policy.
#[must_use]
pub fn patch(kind: &str, name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": names::API_VERSION,
        "kind": kind,
        "metadata": {"name": name},
        "status": status,
    })
}
