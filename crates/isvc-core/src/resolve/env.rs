//! Environment variables of a container, as a JSON list keyed by name.
//!
//! Server-side apply refuses a list with a name twice, so every change goes through here.

use serde_json::{Value, json};

use crate::{
    api::Object,
    named::{find, is_named, name_of},
};

/// The `env` list of a container, made when absent.
pub(crate) fn list_of(container: &mut Object) -> &mut Vec<Value> {
    let env = container.entry("env").or_insert_with(|| json!([]));
    if !env.is_array() {
        *env = json!([]);
    }
    env.as_array_mut().expect("it was made an array just above")
}

fn find_mut<'a>(env: &'a mut [Value], name: &str) -> Option<&'a mut Value> {
    env.iter_mut().find(|variable| is_named(variable, name))
}

/// The literal value of a name.
pub(crate) fn literal<'a>(env: &'a [Value], name: &str) -> Option<&'a str> {
    find(env, name)?.get("value")?.as_str()
}

/// Adds a variable, or replaces the one of the same name where it stands.
pub(crate) fn set(env: &mut Vec<Value>, variable: Value) {
    let name = name_of(&variable).unwrap_or_default().to_owned();
    match find_mut(env, &name) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}

/// Adds a literal unless the name is taken.
pub(crate) fn add_if_absent(env: &mut Vec<Value>, name: &str, value: &str) {
    if find(env, name).is_none() {
        env.push(json!({"name": name, "value": value}));
    }
}

/// Adds a variable; where the name is taken, only a literal changes and a reference stays.
pub(crate) fn set_literals_only(env: &mut Vec<Value>, variable: Value) {
    let name = name_of(&variable).unwrap_or_default().to_owned();
    match find_mut(env, &name) {
        None => env.push(variable),
        Some(known) => {
            if let (Some(value), Some(known)) = (variable.get("value"), known.as_object_mut())
                && !known.contains_key("valueFrom")
            {
                known.insert("value".to_owned(), value.clone());
            }
        }
    }
}

/// A literal.
pub(crate) fn value(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// A reference to a key of a Secret.
pub(crate) fn secret_key(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}
