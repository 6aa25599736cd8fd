//! One JSON document of the `ConfigMap`, read field by field with errors that name the place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{OptionalResources, Resources, SettingsError};
use crate::api::json_type;
use crate::quantity::canonical;

/// An object inside the document of one data key.
pub(super) struct Fields<'a> {
    key: &'a str,
    /// Path of this object inside the document, with a dot at its end unless it is the document itself.
    path: String,
    object: Cow<'a, Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// The document of a data key, if there is one.
    pub(super) fn of(data: &'a BTreeMap<String, String>, key: &'a str) -> Result<Option<Self>, SettingsError> {
        data.get(key).map(|json| Self::document(key, json)).transpose()
    }

    /// The document of a data key, or another one where there is none.
    pub(super) fn of_or(data: &'a BTreeMap<String, String>, key: &'a str, absent: &str) -> Result<Self, SettingsError> {
        Self::document(key, data.get(key).map_or(absent, String::as_str))
    }

    fn document(key: &'a str, json: &str) -> Result<Self, SettingsError> {
        let error = |problem: String, remedy: &str| SettingsError {
            key: key.to_owned(),
            field: None,
            problem,
            remedy: remedy.to_owned(),
        };
        let value: Value = serde_json::from_str(json).map_err(|cause| {
            error(
                format!("the value is not valid JSON: {cause}"),
                "correct the JSON document or remove the key",
            )
        })?;
        match value {
            Value::Object(object) => Ok(Self {
                key,
                path: String::new(),
                object: Cow::Owned(object),
            }),
            // As for any JSON document that is decoded into an object: null sets nothing.
            Value::Null => Ok(Self {
                key,
                path: String::new(),
                object: Cow::Owned(Map::new()),
            }),
            other => Err(error(
                format!("the value is {}, not a JSON object", json_type(&other)),
                "write a JSON object or remove the key",
            )),
        }
    }

    /// An error about a field of this object.
    pub(super) fn error(&self, name: &str, problem: &str, remedy: &str) -> SettingsError {
        SettingsError {
            key: self.key.to_owned(),
            field: Some(format!("{}{name}", self.path)),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn wrong_type(&self, name: &str, wanted: &str, found: &Value) -> SettingsError {
        self.error(
            name,
            &format!("expected {wanted}, found {}", json_type(found)),
            &format!("write {wanted} or remove the field"),
        )
    }

    /// The value of a field; null counts as unset.
    fn value(&self, name: &str) -> Option<&Value> {
        let exact = self.object.get(name);
        let found = exact.or_else(|| {
            self.object
                .iter()
                .find(|(spelling, _)| spelling.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        });
        found.filter(|value| !value.is_null())
    }

    /// Whether an object-valued field is set.
    pub(super) fn has(&self, name: &str) -> Result<bool, SettingsError> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Object(_)) => Ok(true),
            Some(other) => Err(self.wrong_type(name, "an object", other)),
        }
    }

    /// An object inside this one; empty if unset.
    pub(super) fn section(&self, name: &str) -> Result<Fields<'_>, SettingsError> {
        let path = format!("{}{name}.", self.path);
        match self.value(name) {
            None => Ok(Fields {
                key: self.key,
                path,
                object: Cow::Owned(Map::new()),
            }),
            Some(Value::Object(object)) => Ok(Fields {
                key: self.key,
                path,
                object: Cow::Borrowed(object),
            }),
            Some(other) => Err(self.wrong_type(name, "an object", other)),
        }
    }

    /// A string, if set.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, SettingsError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "a string", other)),
        }
    }

    /// A string, or a default where it is unset or empty.
    pub(super) fn text_or(&self, name: &str, default: &str) -> Result<String, SettingsError> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        Ok(text.unwrap_or(default).to_owned())
    }

    /// A string, unless it is unset or empty.
    pub(super) fn some_text(&self, name: &str) -> Result<Option<String>, SettingsError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// A boolean; false if unset.
    pub(super) fn flag(&self, name: &str) -> Result<bool, SettingsError> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(name, "true or false", other)),
        }
    }

    /// A whole number, if set.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, SettingsError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| self.wrong_type(name, "a whole number", value)),
        }
    }

    /// A list of strings; empty if unset.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, SettingsError> {
        let Some(value) = self.value(name) else {
            return Ok(Vec::new());
        };
        let list = value
            .as_array()
            .ok_or_else(|| self.wrong_type(name, "a list of strings", value))?;
        list.iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                other => Err(self.wrong_type(name, "a list of strings", other)),
            })
            .collect()
    }

    /// A map of strings; empty if unset.
    pub(super) fn text_map(&self, name: &str) -> Result<BTreeMap<String, String>, SettingsError> {
        let section = self.section(name)?;
        let mut map = BTreeMap::new();
        for (key, value) in section.object.iter() {
            let Value::String(text) = value else {
                return Err(section.wrong_type(key, "a string", value));
            };
            map.insert(key.clone(), text.clone());
        }
        Ok(map)
    }

    /// The canonical form of a quantity, unless it is unset or empty.
    pub(super) fn quantity(&self, name: &str) -> Result<Option<String>, SettingsError> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        canonical(text)
            .map(Some)
            .map_err(|cause| self.error(name, &cause.to_string(), "write a quantity such as 100m or 1Gi"))
    }

    /// The canonical form of a quantity that must be set.
    fn required_quantity(&self, name: &str) -> Result<String, SettingsError> {
        self.quantity(name)?.ok_or_else(|| {
            self.error(
                name,
                "the quantity is required and is missing or empty",
                "set it, for example to 100m or 1Gi",
            )
        })
    }

    /// The four quantities of a container, all of which must be set.
    pub(super) fn resources(&self) -> Result<Resources, SettingsError> {
        Ok(Resources {
            cpu_request: self.required_quantity("cpuRequest")?,
            cpu_limit: self.required_quantity("cpuLimit")?,
            memory_request: self.required_quantity("memoryRequest")?,
            memory_limit: self.required_quantity("memoryLimit")?,
        })
    }

    /// The four quantities of a container, each if set.
    pub(super) fn optional_resources(&self) -> Result<OptionalResources, SettingsError> {
        Ok(OptionalResources {
            cpu_request: self.quantity("cpuRequest")?,
            cpu_limit: self.quantity("cpuLimit")?,
            memory_request: self.quantity("memoryRequest")?,
            memory_limit: self.quantity("memoryLimit")?,
        })
    }
}
