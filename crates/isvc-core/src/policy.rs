//! Policies: rules about `InferenceServices` that the API server itself evaluates.
//!
//! An `InferencePolicyTemplate` holds rules in the Common Expression Language (CEL) and declares parameters; an
//! `InferencePolicy` gives the parameters values and says which services it is about. Both together compile to a
//! `ValidatingAdmissionPolicy` and a `ValidatingAdmissionPolicyBinding`, and nothing of them stays in the operator's memory.
//!
//! ```text
//! Template + Policy --check_parameters--> Parameters --build--> Compiled     (build cannot fail)
//!                                    \--> Vec<ParameterProblem>
//! ```
//!
//! Objects come and go as JSON values, because this crate knows no Kubernetes library. What the API server thinks of an
//! expression only the API server can say: it does with the answer to the apply, and in the status of what was applied.
//!
//! Facts about the API server that this module stands on (read in the sources of Kubernetes 1.36, and seen on 1.36.3):
//!
//! - Every policy is evaluated before the first refusal is answered, so the answer to a refused request has the warnings of
//!   all bindings.
//! - Types are checked only where a rule names its API version: `*` switches the check off.
//! - A warning whose text has a control character is dropped without a trace. So expressions are compiled on one line
//!   and messages lose control characters, or an audit would miss violations.
//! - All warnings of an answer share 4,096 characters; beyond that each is cut to 256, and the rest is dropped. So the names
//!   of policy and binding, which a warning begins with, are short enough to be whole after the cut.

pub(crate) mod cel;
mod compile;
pub mod names;
mod parameters;
mod parse;
pub mod status;

pub use compile::{Audit, Compiled, build, probe};
pub use parameters::{Parameter, ParameterProblem, Parameters, check_parameters};

use serde_json::Value;

/// An `InferencePolicyTemplate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; empty in an object that was not stored yet.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The rules.
    pub spec: TemplateSpec,
}

/// What a template says.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateSpec {
    /// What happens to a request when a rule cannot be evaluated.
    pub failure_policy: FailurePolicy,
    /// What policies may or must set.
    pub parameters: Vec<ParameterDeclaration>,
    /// Expressions by name, for use in later ones as `variables.<name>`.
    pub variables: Vec<Named>,
    /// Conditions under which the rules apply at all.
    pub match_conditions: Vec<Named>,
    /// The rules; never empty in a template that was parsed.
    pub validations: Vec<Validation>,
}

/// `spec.failurePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// An error counts as a violation.
    #[default]
    Fail,
    /// An error counts for nothing.
    Ignore,
}

/// One entry of `spec.parameters` of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterDeclaration {
    /// A CEL identifier; expressions read it as `variables.params.<name>`.
    pub name: String,
    /// The type of its value.
    pub type_: ParameterType,
    /// A policy has to set it.
    pub required: bool,
    /// The value where a policy sets none. Checked against the type like a policy's.
    pub default: Option<Value>,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterType {
    /// Text.
    String,
    /// A 64-bit integer.
    Integer,
    /// A finite number.
    Number,
    /// True or false.
    Boolean,
    /// A list of texts.
    StringList,
    /// A list of 64-bit integers.
    IntegerList,
}

/// An expression with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Unique among its like.
    pub name: String,
    /// In CEL.
    pub expression: String,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// True for a service that keeps the rule; in CEL.
    pub expression: String,
    /// What a refusal says.
    pub message: Option<String>,
    /// The same as a CEL expression, which wins if it can be evaluated.
    pub message_expression: Option<String>,
}

/// An `InferencePolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; empty in an object that was not stored yet.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// What it says.
    pub spec: PolicySpec,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// Name of the template.
    pub template: String,
    /// Values of the template's parameters, not checked yet.
    pub parameters: serde_json::Map<String, Value>,
    /// Label selector of namespaces; all if null.
    pub namespace_selector: Value,
    /// Label selector of services; all if null.
    pub object_selector: Value,
    /// What a violation leads to.
    pub enforcement_action: EnforcementAction,
    /// Whether services that exist are checked regularly.
    pub audit: bool,
}

/// `spec.enforcementAction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnforcementAction {
    /// The request is refused.
    #[default]
    Deny,
    /// The client is warned.
    Warn,
    /// The API server's audit log notes it.
    Dryrun,
}

impl ParameterType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::StringList,
        Self::IntegerList,
    ];

    /// All of them, as a template spells them.
    #[must_use]
    pub fn names() -> [&'static str; 6] {
        Self::ALL.map(Self::as_str)
    }

    /// As a template spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::StringList => "stringList",
            Self::IntegerList => "integerList",
        }
    }
}

#[cfg(test)]
mod tests;
