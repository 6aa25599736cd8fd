//! Merging lists, and the order of what comes out.

use serde_json::Value;

use super::merge_struct;
use super::schema::Type;

/// Merges lists of structs by a field of theirs.
///
/// Elements without that field, which the API would refuse, are kept where they are found.
pub(super) fn merge_by_key(kind: Option<&Type>, key: &str, base: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let identity = |item: &Value| item.get(key).cloned();
    let base_order: Vec<Option<Value>> = base.iter().map(identity).collect();
    let mut merged = base;
    for set in patch {
        let wanted = identity(set);
        let found = merged
            .iter_mut()
            .find(|item| wanted.is_some() && identity(item) == wanted);
        match (found, set) {
            (Some(Value::Object(item)), Value::Object(set)) => {
                *item = merge_struct(kind, std::mem::take(item), set);
            }
            _ => merged.push(set.clone()),
        }
    }
    let patch_order: Vec<Option<Value>> = patch.iter().map(identity).collect();
    ordered(merged, &base_order, &patch_order, identity)
}

/// Merges lists of scalars as sets.
pub(super) fn merge_by_value(base: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let identity = |item: &Value| Some(item.clone());
    let base_order: Vec<Option<Value>> = base.iter().map(identity).collect();
    let patch_order: Vec<Option<Value>> = patch.iter().map(identity).collect();
    let mut merged: Vec<Value> = Vec::with_capacity(base.len() + patch.len());
    for item in base.into_iter().chain(patch.iter().cloned()) {
        if !merged.contains(&item) {
            merged.push(item);
        }
    }
    ordered(merged, &base_order, &patch_order, identity)
}

/// Brings merged elements into apimachinery's order.
///
/// Elements that the patch names follow the patch's order, the others the base's. The two sequences are then
/// interleaved: the base's next element goes first only if the base holds the patch's next element as well, further
/// back.
fn ordered(
    merged: Vec<Value>,
    base_order: &[Option<Value>],
    patch_order: &[Option<Value>],
    identity: impl Fn(&Value) -> Option<Value>,
) -> Vec<Value> {
    let place = |order: &[Option<Value>], item: &Value| {
        let identity = identity(item);
        order.iter().position(|other| *other == identity)
    };
    let (mut from_patch, mut from_base): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(patch_order, item).is_some());
    from_patch.sort_by_key(|item| place(patch_order, item));
    from_base.sort_by_key(|item| place(base_order, item));

    let mut all = Vec::with_capacity(from_patch.len() + from_base.len());
    let mut from_patch = from_patch.into_iter().peekable();
    let mut from_base = from_base.into_iter().peekable();
    while let (Some(left), Some(right)) = (from_base.peek(), from_patch.peek()) {
        let base_first = match (place(base_order, left), place(base_order, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        all.extend(if base_first {
            from_base.next()
        } else {
            from_patch.next()
        });
    }
    all.extend(from_base);
    all.extend(from_patch);
    all
}
