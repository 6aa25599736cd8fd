//! The values of a policy's parameters, checked against what the template declares.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::{ParameterDeclaration, ParameterType, Policy, Template, cel};

/// The longest text, in characters.
const MAX_TEXT: usize = 4096;
/// The longest list.
const MAX_ITEMS: usize = 1000;
/// Most bytes of all values together, as they are written into the admission policy. The API server's parser takes
/// expressions of up to 100,000 characters.
const MAX_BYTES: usize = 64 * 1024;

/// Checked values by name, each of its declared type. Nothing else can be built into an admission policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(BTreeMap<String, Parameter>);

/// One checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// Text.
    String(String),
    /// A 64-bit integer.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A list of texts.
    StringList(Vec<String>),
    /// A list of 64-bit integers.
    IntegerList(Vec<i64>),
}

/// Why a policy's parameters cannot be used, and what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {problem}")]
pub struct ParameterProblem {
    /// The field, as in `spec.parameters.maxReplicas`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Parameters {
    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A map literal in CEL with every value behind `dyn`, because the values of a map have to be of one type.
    pub(super) fn to_cel(&self) -> String {
        let entries: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{}: dyn({})", cel::quote(name), value.to_cel()))
            .collect();
        format!("{{{}}}", entries.join(", "))
    }

    /// A value of each declared type: the default where there is a usable one.
    pub(super) fn probing(declarations: &[ParameterDeclaration]) -> Self {
        let value = |declaration: &ParameterDeclaration| {
            let default = declaration.default.as_ref();
            default
                .and_then(|default| Parameter::parse(default, declaration.type_).ok())
                .unwrap_or_else(|| Parameter::probing(declaration.type_))
        };
        let values = declarations
            .iter()
            .map(|declaration| (declaration.name.clone(), value(declaration)));
        Self(values.collect())
    }
}

impl Parameter {
    fn parse(value: &Value, type_: ParameterType) -> Result<Self, String> {
        match type_ {
            ParameterType::String => text(value).map(Self::String),
            ParameterType::Integer => integer(value).map(Self::Integer),
            ParameterType::Number => number(value).map(Self::Number),
            ParameterType::Boolean => value
                .as_bool()
                .map(Self::Boolean)
                .ok_or_else(|| format!("must be true or false, not {}", shown(value))),
            ParameterType::StringList => list(value, text).map(Self::StringList),
            ParameterType::IntegerList => list(value, integer).map(Self::IntegerList),
        }
    }

    fn probing(type_: ParameterType) -> Self {
        match type_ {
            ParameterType::String => Self::String("probe".to_owned()),
            ParameterType::Integer => Self::Integer(1),
            ParameterType::Number => Self::Number(1.5),
            ParameterType::Boolean => Self::Boolean(true),
            ParameterType::StringList => Self::StringList(vec!["probe".to_owned()]),
            ParameterType::IntegerList => Self::IntegerList(vec![1]),
        }
    }

    /// A literal of exactly this value.
    fn to_cel(&self) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        match self {
            Self::String(text) => cel::quote(text),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => cel::double(*number),
            Self::Boolean(value) => value.to_string(),
            Self::StringList(items) => list(items.iter().map(|item| cel::quote(item)).collect()),
            Self::IntegerList(items) => list(items.iter().map(ToString::to_string).collect()),
        }
    }
}

/// Checks the parameters of a policy against its template: all problems at once, each with its field and what to do.
pub fn check_parameters(template: &Template, policy: &Policy) -> Result<Parameters, Vec<ParameterProblem>> {
    let declared = &template.spec.parameters;
    let mut values = BTreeMap::new();
    let mut problems = Vec::new();
    let mut problem = |name: &str, problem: String| {
        problems.push(ParameterProblem {
            path: format!("spec.parameters.{name}"),
            problem,
        });
    };
    for name in policy.spec.parameters.keys() {
        if !declared.iter().any(|declaration| declaration.name == *name) {
            problem(name, unknown(name, template));
        }
    }
    for declaration in declared {
        let given = policy.spec.parameters.get(&declaration.name);
        let Some(value) = given.filter(|value| !value.is_null()).or(declaration.default.as_ref()) else {
            if declaration.required {
                let type_ = declaration.type_.as_str();
                problem(
                    &declaration.name,
                    format!(
                        "is required by template {}; set it to a value of type {type_}",
                        template.name
                    ),
                );
            }
            continue;
        };
        match Parameter::parse(value, declaration.type_) {
            Ok(value) => {
                values.insert(declaration.name.clone(), value);
            }
            Err(reason) => problem(&declaration.name, reason),
        }
    }
    let parameters = Parameters(values);
    let bytes = parameters.to_cel().len();
    if bytes > MAX_BYTES {
        problems.push(ParameterProblem {
            path: "spec.parameters".to_owned(),
            problem: format!(
                "come to {bytes} bytes as an expression, and at most {MAX_BYTES} are possible; split them over several policies"
            ),
        });
    }
    if problems.is_empty() {
        Ok(parameters)
    } else {
        Err(problems)
    }
}

fn unknown(name: &str, template: &Template) -> String {
    let declared = &template.spec.parameters;
    let alike = declared
        .iter()
        .find(|declaration| declaration.name.eq_ignore_ascii_case(name));
    if let Some(alike) = alike {
        return format!(
            "template {} has no such parameter; it has {}, and case matters",
            template.name, alike.name
        );
    }
    let names: Vec<&str> = declared.iter().map(|declaration| declaration.name.as_str()).collect();
    let has = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    format!(
        "template {} has no such parameter; it has {has}; remove it",
        template.name
    )
}

fn text(value: &Value) -> Result<String, String> {
    let text = value
        .as_str()
        .ok_or_else(|| format!("must be a string, not {}; quote it", shown(value)))?;
    match text.chars().count() {
        length if length <= MAX_TEXT => Ok(text.to_owned()),
        length => Err(format!("is {length} characters long; at most {MAX_TEXT} are possible")),
    }
}

fn integer(value: &Value) -> Result<i64, String> {
    value
        .as_i64()
        .ok_or_else(|| format!("must be a 64-bit integer, not {}", shown(value)))
}

fn number(value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|number| number.is_finite())
        // Of the two zeros only one, because they are equal and so must be what they compile to.
        .map(|number| number + 0.0)
        .ok_or_else(|| format!("must be a number, not {}", shown(value)))
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("must be a list, not {}", shown(value)))?;
    if items.len() > MAX_ITEMS {
        let length = items.len();
        return Err(format!("has {length} entries; at most {MAX_ITEMS} are possible"));
    }
    let checked = items
        .iter()
        .enumerate()
        .map(|(index, value)| item(value).map_err(|reason| format!("entry {index} {reason}")));
    checked.collect()
}

/// A value as a message shows it: scalars by themselves, and not at any length.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            let text = scalar.to_string();
            if text.chars().count() <= LONGEST {
                return text;
            }
            let start: String = text.chars().take(LONGEST).collect();
            format!("{start}...")
        }
    }
}
