//! Templates and policies read from JSON. Errors name the field.

use serde::Deserialize;
use serde_json::Value;

use super::{
    EnforcementAction, FailurePolicy, Named, ParameterDeclaration, ParameterType, Policy, PolicySpec, Template,
    TemplateSpec, Validation, cel,
};
use crate::api::{InvalidField, fields::Fields};

impl Template {
    /// Reads an `InferencePolicyTemplate`.
    ///
    /// Its definition refuses what this refuses, and an object of before the definition may still hold it.
    pub fn parse(object: &Value) -> Result<Self, InvalidField> {
        let (name, uid, generation) = metadata(object)?;
        let mut spec = Fields::new("spec", object["spec"].clone())?;
        let parameters = items(&mut spec, "parameters", |path, mut fields| {
            let declaration = ParameterDeclaration {
                name: identifier(path, &mut fields)?,
                type_: parameter_type(path, &mut fields)?,
                required: fields.take("required")?.unwrap_or(false),
                default: fields.take("default")?,
            };
            Ok(declaration)
        })?;
        let variables = items(&mut spec, "variables", |path, mut fields| {
            let name = identifier(path, &mut fields)?;
            if name == "params" {
                return Err(invalid(path, "name", "is taken by the parameters; choose another"));
            }
            Ok(Named {
                name,
                expression: needed(path, &mut fields, "expression")?,
            })
        })?;
        let match_conditions = items(&mut spec, "matchConditions", |path, mut fields| {
            Ok(Named {
                name: needed(path, &mut fields, "name")?,
                expression: needed(path, &mut fields, "expression")?,
            })
        })?;
        let validations = items(&mut spec, "validations", |path, mut fields| {
            Ok(Validation {
                expression: needed(path, &mut fields, "expression")?,
                message: fields.take("message")?,
                message_expression: fields.take("messageExpression")?,
            })
        })?;
        if validations.is_empty() {
            return Err(InvalidField::new("spec.validations", "must have at least one entry"));
        }
        unique("spec.parameters", parameters.iter().map(|parameter| &parameter.name))?;
        unique("spec.variables", variables.iter().map(|variable| &variable.name))?;
        Ok(Self {
            name,
            uid,
            generation,
            spec: TemplateSpec {
                failure_policy: choice(
                    &mut spec,
                    "failurePolicy",
                    &[("Fail", FailurePolicy::Fail), ("Ignore", FailurePolicy::Ignore)],
                )?,
                parameters,
                variables,
                match_conditions,
                validations,
            },
        })
    }
}

impl Policy {
    /// Reads an `InferencePolicy`. Its parameters are checked later, by
    /// [`check_parameters`](super::check_parameters).
    pub fn parse(object: &Value) -> Result<Self, InvalidField> {
        let (name, uid, generation) = metadata(object)?;
        let mut spec = Fields::new("spec", object["spec"].clone())?;
        let mut reference = Fields::new("spec.templateRef", spec.take_value("templateRef"))?;
        let mut scope = Fields::new("spec.match", spec.take_value("match"))?;
        Ok(Self {
            name,
            uid,
            generation,
            spec: PolicySpec {
                template: needed("spec.templateRef", &mut reference, "name")?,
                parameters: spec.take("parameters")?.unwrap_or_default(),
                namespace_selector: selector(&mut scope, "namespaceSelector")?,
                object_selector: selector(&mut scope, "objectSelector")?,
                enforcement_action: choice(
                    &mut spec,
                    "enforcementAction",
                    &[
                        ("deny", EnforcementAction::Deny),
                        ("warn", EnforcementAction::Warn),
                        ("dryrun", EnforcementAction::Dryrun),
                    ],
                )?,
                audit: spec.take("audit")?.unwrap_or(true),
            },
        })
    }
}

fn metadata(object: &Value) -> Result<(String, String, i64), InvalidField> {
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
        #[serde(default)]
        uid: String,
        #[serde(default)]
        generation: i64,
    }
    let metadata: Metadata = serde_json::from_value(object["metadata"].clone())
        .map_err(|error| InvalidField::new("metadata", error.to_string()))?;
    Ok((metadata.name, metadata.uid, metadata.generation))
}

/// Reads the objects of a list, each with its path.
fn items<T>(
    spec: &mut Fields,
    name: &str,
    parse: impl Fn(&str, Fields) -> Result<T, InvalidField>,
) -> Result<Vec<T>, InvalidField> {
    let list = spec.take_objects(name)?;
    let parsed = list.into_iter().enumerate().map(|(index, item)| {
        let path = format!("{}[{index}]", spec.path(name));
        parse(&path, Fields::new(&path, item)?)
    });
    parsed.collect()
}

fn invalid(path: &str, field: &str, problem: impl Into<String>) -> InvalidField {
    InvalidField::new(format!("{path}.{field}"), problem)
}

/// A text that has to be there.
fn needed(path: &str, fields: &mut Fields, name: &str) -> Result<String, InvalidField> {
    let text: Option<String> = fields.take(name)?;
    text.filter(|text| !text.trim().is_empty())
        .ok_or_else(|| invalid(path, name, "must be set"))
}

fn identifier(path: &str, fields: &mut Fields) -> Result<String, InvalidField> {
    let name: String = needed(path, fields, "name")?;
    if cel::is_identifier(&name) {
        Ok(name)
    } else {
        Err(invalid(
            path,
            "name",
            "must be letters, digits and underscores, not begin with a digit, and be no word of the expression language",
        ))
    }
}

fn parameter_type(path: &str, fields: &mut Fields) -> Result<ParameterType, InvalidField> {
    let written: String = needed(path, fields, "type")?;
    ParameterType::ALL
        .into_iter()
        .find(|type_| type_.as_str() == written)
        .ok_or_else(|| {
            invalid(
                path,
                "type",
                format!("must be one of {}", ParameterType::names().join(", ")),
            )
        })
}

fn choice<T: Copy + Default>(fields: &mut Fields, name: &str, choices: &[(&str, T)]) -> Result<T, InvalidField> {
    let written: Option<String> = fields.take(name)?;
    let Some(written) = written else {
        return Ok(T::default());
    };
    choices
        .iter()
        .find(|(word, _)| *word == written)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            InvalidField::new(fields.path(name), format!("must be one of {}", words.join(", ")))
        })
}

fn selector(scope: &mut Fields, name: &str) -> Result<Value, InvalidField> {
    let selector = scope.take_value(name);
    if selector.is_object() || selector.is_null() {
        Ok(selector)
    } else {
        Err(InvalidField::new(scope.path(name), "must be a label selector"))
    }
}

fn unique<'a>(path: &str, names: impl Iterator<Item = &'a String>) -> Result<(), InvalidField> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(InvalidField::new(path, format!("has two entries named {name}")));
        }
    }
    Ok(())
}
