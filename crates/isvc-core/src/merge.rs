//! Strategic merge of containers and Pods: how a service's own settings lie over its runtime's.
//!
//! The rules are those of Kubernetes' strategic merge patch for core/v1 `Container` and `PodSpec` (apimachinery and
//! api v0.36.3): scalars replace, structs and maps merge key by key, some lists merge by a key of their elements,
//! all others replace. On top come the rules of `KServe` for containers, see [`merge_container`], and one repair: where
//! base and patch choose different members of a union (a volume's source, a probe's handler), the patch's choice
//! replaces the base's, because the API server refuses two.
//!
//! Values are read as the typed API reads them: null, and zero values of fields that the API does not write when zero
//! (`""`, `0`, `false`, `[]`, `{}`), count as absent. So a patch cannot delete; directives (`$patch`) have no meaning.
//! Fields unknown to the schema are kept; objects in them merge key by key, anything else replaces.
//!
//! `tests/oracle/merge.jsonl` was recorded from apimachinery.

use serde_json::{Map, Value};

mod list;
mod schema;

use schema::{Form, Merge, Type};

/// The fields of a Pod that a runtime can set.
const RUNTIME_POD_FIELDS: [&str; 7] = [
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "resourceClaims",
    "schedulerName",
    "tolerations",
    "volumes",
];

/// Merges a service's container into its runtime's.
///
/// Strategic merge, and then
/// - `args` are the base's followed by the patch's ([`concatenated_args`]);
/// - an env entry that ends up with both `value` and `valueFrom` keeps the patch's kind ([`reconcile_env`]);
/// - `name` is the base's if the merge leaves it empty.
///
/// Elements of a merged list stand in this order: the patch's elements in the patch's order and the elements only the
/// base has in the base's order, where an element of the base goes first only if both are in the base and it stands
/// first there. So `[A, B]` with `[C]` gives `[C, A, B]`, and `[A, B]` with `[B, C]` gives `[A, B, C]`.
///
/// ```
/// use isvc_core::merge::merge_container;
/// use serde_json::json;
///
/// let runtime = json!({"name": "kserve-container", "image": "server:1", "args": ["--port=8080"]});
/// let service = json!({"image": "server:2", "args": ["--verbose"]});
/// assert_eq!(
///     merge_container(&runtime, &service),
///     json!({"name": "kserve-container", "image": "server:2", "args": ["--port=8080", "--verbose"]}),
/// );
/// ```
#[must_use]
pub fn merge_container(base: &Value, patch: &Value) -> Value {
    let base = typed(Type::named("Container"), object(base));
    let patch = typed(Type::named("Container"), object(patch));
    let args = concatenated_args(base.get("args"), patch.get("args"));
    let base_name = base.get("name").cloned();
    let mut merged = merge_struct(Type::named("Container"), base, &patch);
    if !args.is_empty() {
        merged.insert("args".to_owned(), Value::Array(args));
    }
    if merged
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
        && let Some(name) = base_name
    {
        merged.insert("name".to_owned(), name);
    }
    if let (Some(Value::Array(env)), Some(Value::Array(patch_env))) = (merged.get_mut("env"), patch.get("env")) {
        reconcile_env(env, patch_env);
    }
    Value::Object(merged)
}

/// Merges a service's Pod into its runtime's.
///
/// Of the base only affinity, imagePullSecrets, nodeSelector, resourceClaims, schedulerName, tolerations and volumes
/// count; everything else is the patch's. The result has no `containers`, whose merge is the caller's.
#[must_use]
pub fn merge_pod(base: &Value, patch: &Value) -> Value {
    let mut base = typed(Type::named("PodSpec"), object(base));
    base.retain(|field, _| RUNTIME_POD_FIELDS.contains(&field.as_str()));
    let mut patch = typed(Type::named("PodSpec"), object(patch));
    patch.remove("containers");
    Value::Object(merge_struct(Type::named("PodSpec"), base, &patch))
}

/// The arguments of a merged container: the base's, followed by the patch's, duplicates and all.
///
/// Strategic merge would replace the list. Runtimes bring the arguments a server needs, and services add to them.
#[must_use]
pub fn concatenated_args(base: Option<&Value>, patch: Option<&Value>) -> Vec<Value> {
    [base, patch]
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .cloned()
        .collect()
}

/// Leaves one of `value` and `valueFrom` in each env entry that the merge gave both: the one the patch set.
pub fn reconcile_env(env: &mut [Value], patch: &[Value]) {
    for entry in env.iter_mut().filter_map(Value::as_object_mut) {
        if !(entry.contains_key("value") && entry.contains_key("valueFrom")) {
            continue;
        }
        let name = entry.get("name");
        let Some(set) = patch.iter().rev().find(|set| set.get("name") == name) else {
            continue;
        };
        if set.get("valueFrom").is_some_and(|source| !source.is_null()) {
            entry.remove("value");
        } else if set
            .get("value")
            .and_then(Value::as_str)
            .is_some_and(|value| !value.is_empty())
        {
            entry.remove("valueFrom");
        }
    }
}

/// The object a value holds; anything else is as good as an empty one.
fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Drops what the typed API does not see: nulls, and zero values of the fields that are not written when zero.
fn typed(kind: Option<&Type>, object: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in object {
        let field = kind.and_then(|kind| kind.field(&name));
        let inner = field.and_then(|field| field.form.inner());
        let value = match value {
            Value::Null => continue,
            Value::Object(object) => Value::Object(typed(inner, object)),
            Value::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| match item {
                        Value::Object(object) => Value::Object(typed(inner, object)),
                        other => other,
                    })
                    .collect(),
            ),
            other => other,
        };
        if field.is_some_and(|field| field.omits_zero) && is_omitted(&value) {
            continue;
        }
        kept.insert(name, value);
    }
    kept
}

/// Whether Go's encoder leaves a value out of a field that is not written when zero.
fn is_omitted(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// Merges two objects of one type; none is a map, or an object the schema does not know.
fn merge_struct(kind: Option<&Type>, mut base: Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    if let Some(kind) = kind {
        drop_replaced_choice(kind, &mut base, patch);
    }
    for (name, set) in patch {
        let field = kind.and_then(|kind| kind.field(name));
        let form = field.map_or(Form::Unknown, |field| field.form);
        let merged = match (base.remove(name), set, form) {
            (Some(Value::Object(_)), _, Form::Scalar) => set.clone(),
            (Some(Value::Object(old)), Value::Object(new), _) => Value::Object(merge_struct(form.inner(), old, new)),
            (Some(Value::Array(old)), Value::Array(new), _) => match field.map(|field| field.merge) {
                Some(Merge::ByKey(key)) => Value::Array(list::merge_by_key(form.inner(), key, old, new)),
                Some(Merge::ByValue) => Value::Array(list::merge_by_value(old, new)),
                Some(Merge::Replace) | None => set.clone(),
            },
            _ => set.clone(),
        };
        base.insert(name.clone(), merged);
    }
    base
}

/// Makes room in the base for the patch's member of a union.
fn drop_replaced_choice(kind: &Type, base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if let Some(discriminator) = kind.discriminator
        && let (Some(old), Some(new)) = (base.get(discriminator), patch.get(discriminator))
        && old != new
    {
        base.clear();
        return;
    }
    if patch.keys().any(|name| kind.is_choice(name)) {
        base.retain(|name, _| !kind.is_choice(name) || patch.contains_key(name));
    }
}

#[cfg(test)]
mod tests;
