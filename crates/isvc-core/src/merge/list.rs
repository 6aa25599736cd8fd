//! Merging lists, and the order of what comes out.

use std::collections::HashMap;

use serde_json::Value;

use super::merge_struct;
use super::schema::Type;

/// Where an element with this identity stands first.
type Places = HashMap<Value, usize>;

/// Merges lists of structs by a field of theirs.
///
/// Elements without that field, which the API would refuse, are kept.
pub(super) fn merge_by_key(kind: Option<&Type>, key: &str, base: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let identity = |item: &Value| item.get(key).cloned();
    let base_places = places(&base, identity);
    let mut merged_places = base_places.clone();
    let mut merged = base;
    for set in patch {
        let found = identity(set).and_then(|identity| merged_places.get(&identity).copied());
        if let (Some(Value::Object(item)), Value::Object(set)) = (found.and_then(|at| merged.get_mut(at)), set) {
            *item = merge_struct(kind, std::mem::take(item), set);
            continue;
        }
        if let Some(identity) = identity(set) {
            merged_places.entry(identity).or_insert(merged.len());
        }
        merged.push(set.clone());
    }
    ordered(merged, &base_places, &places(patch, identity), identity)
}

/// Merges lists of scalars as sets.
pub(super) fn merge_by_value(base: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let identity = |item: &Value| Some(item.clone());
    let base_places = places(&base, identity);
    let mut merged = base;
    merged.extend(patch.iter().cloned());
    let first = places(&merged, identity);
    let mut at = 0;
    merged.retain(|item| {
        at += 1;
        first.get(item) == Some(&(at - 1))
    });
    ordered(merged, &base_places, &places(patch, identity), identity)
}

fn places(items: &[Value], identity: impl Fn(&Value) -> Option<Value>) -> Places {
    let mut places = Places::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        if let Some(identity) = identity(item) {
            places.entry(identity).or_insert(at);
        }
    }
    places
}

/// Brings merged elements into apimachinery's order.
///
/// Elements that the patch names follow the patch's order, the others the base's. The two sequences are then
/// interleaved: the base's next element goes first only if the base holds the patch's next element as well, further
/// back. Elements without identity come last, as they were.
fn ordered(
    merged: Vec<Value>,
    base_places: &Places,
    patch_places: &Places,
    identity: impl Fn(&Value) -> Option<Value>,
) -> Vec<Value> {
    /// An element and its places in patch and base.
    type Placed = (Option<usize>, Option<usize>, Value);
    let place = |places: &Places, identity: &Option<Value>| identity.as_ref().and_then(|i| places.get(i).copied());
    let mut from_patch: Vec<Placed> = Vec::new();
    let mut from_base: Vec<Placed> = Vec::new();
    let mut without: Vec<Value> = Vec::new();
    for item in merged {
        let identity = identity(&item);
        match (place(patch_places, &identity), place(base_places, &identity)) {
            (None, None) => without.push(item),
            (Some(patch), base) => from_patch.push((Some(patch), base, item)),
            (None, base) => from_base.push((None, base, item)),
        }
    }
    from_patch.sort_by_key(|(patch, ..)| *patch);
    from_base.sort_by_key(|(_, base, _)| *base);

    let mut all = Vec::with_capacity(from_patch.len() + from_base.len() + without.len());
    let mut from_patch = from_patch.into_iter().peekable();
    let mut from_base = from_base.into_iter().peekable();
    while let (Some((_, left, _)), Some((_, right, _))) = (from_base.peek(), from_patch.peek()) {
        let base_first = matches!((left, right), (Some(left), Some(right)) if left < right);
        all.extend(if base_first {
            from_base.next()
        } else {
            from_patch.next()
        });
    }
    let placed = all.into_iter().chain(from_base).chain(from_patch);
    placed.map(|(.., item)| item).chain(without).collect()
}
