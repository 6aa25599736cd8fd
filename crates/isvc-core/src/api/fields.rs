//! Reading typed fields out of a JSON object, with errors that name the field.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::Object;

/// A field holds something that cannot be read as what it must be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {problem}")]
pub struct InvalidField {
    /// Path from the object's root, as in `spec.predictor.minReplicas`.
    pub path: String,
    /// What is wrong with it, without its content.
    pub problem: String,
}

impl InvalidField {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }
}

/// An object whose known fields are taken out one by one; what is left belongs to somebody else.
pub(crate) struct Fields {
    path: String,
    map: Object,
}

impl Fields {
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Result<Self, InvalidField> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            Value::Null => Ok(Self {
                path,
                map: Object::new(),
            }),
            other => Err(InvalidField::new(
                path,
                format!("must be an object, not {}", json_type(&other)),
            )),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// Takes a field; absent and null are the same.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, InvalidField> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| InvalidField::new(self.path(name), error.to_string())),
        }
    }

    /// Takes a map of texts that are secret: unlike other errors, one about them repeats nothing of what was found.
    pub(crate) fn take_secret(&mut self, name: &str) -> Result<Option<BTreeMap<String, String>>, InvalidField> {
        self.take(name)
            .map_err(|error| InvalidField::new(error.path, "must be a map of text to text"))
    }

    /// Takes a field as it is; null where it is absent.
    pub(crate) fn take_value(&mut self, name: &str) -> Value {
        self.map.remove(name).unwrap_or_default()
    }

    /// Takes a field that must be an object.
    pub(crate) fn take_object(&mut self, name: &str) -> Result<Option<Fields>, InvalidField> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Fields::new(self.path(name), value).map(Some),
        }
    }

    /// Takes a list of objects; absent and null are an empty list.
    pub(crate) fn take_objects(&mut self, name: &str) -> Result<Vec<Value>, InvalidField> {
        let list: Vec<Value> = self.take(name)?.unwrap_or_default();
        for (index, item) in list.iter().enumerate() {
            if !item.is_object() {
                let path = format!("{}[{index}]", self.path(name));
                return Err(InvalidField::new(
                    path,
                    format!("must be an object, not {}", json_type(item)),
                ));
            }
        }
        Ok(list)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field that is an object, left where it is.
    pub(crate) fn object(&self, name: &str) -> Option<&Object> {
        self.map.get(name).and_then(Value::as_object)
    }

    /// What nobody has taken.
    pub(crate) fn rest(self) -> Object {
        self.map
    }
}

/// Takes away null fields at every depth: they count as absent, and a definition that keeps unknown fields stores them.
pub(super) fn without_null(mut value: Value) -> Value {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(prune);
            }
            Value::Array(items) => items.iter_mut().for_each(prune),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    prune(&mut value);
    value
}

/// What kind of JSON a value is, for messages.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
