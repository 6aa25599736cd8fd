//! Lists whose items have names: a Pod's containers and volumes, a container's mounts and environment variables.

use serde_json::{Value, json};

use crate::api::Object;

/// The name of an item.
pub(crate) fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// Whether an item has this name.
pub(crate) fn is_named(item: &Value, name: &str) -> bool {
    name_of(item) == Some(name)
}

/// The item of a name.
pub(crate) fn find<'a>(items: &'a [Value], name: &str) -> Option<&'a Value> {
    items.iter().find(|item| is_named(item, name))
}

/// Whether a list of `holder` has an item of a name.
pub(crate) fn has(holder: &Object, list: &str, name: &str) -> bool {
    let items = holder.get(list).and_then(Value::as_array);
    items.is_some_and(|items| find(items, name).is_some())
}

/// Adds an item to a list of `holder` unless its name is taken: what is there already was meant to be there.
pub(crate) fn add(holder: &mut Object, list: &str, item: Value) {
    let items = holder.entry(list).or_insert_with(|| json!([]));
    if !items.is_array() {
        *items = json!([]);
    }
    if let Some(items) = items.as_array_mut()
        && !items.iter().any(|known| name_of(known) == name_of(&item))
    {
        items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Object, add, has};

    #[test]
    fn what_has_the_name_already_stays() {
        let mut pod = Object::new();
        add(&mut pod, "volumes", json!({"name": "a", "emptyDir": {}}));
        add(&mut pod, "volumes", json!({"name": "a", "secret": {}}));
        add(&mut pod, "volumes", json!({"name": "b"}));
        assert_eq!(
            json!(pod),
            json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b"}]})
        );
        assert!(has(&pod, "volumes", "b"));
        assert!(!has(&pod, "volumes", "c") && !has(&pod, "containers", "a"));
    }

    #[test]
    fn what_is_no_list_is_replaced_by_one() {
        let mut pod = Object::new();
        pod.insert("volumes".to_owned(), json!(null));
        add(&mut pod, "volumes", json!({"name": "a"}));
        assert_eq!(json!(pod), json!({"volumes": [{"name": "a"}]}));
    }
}
