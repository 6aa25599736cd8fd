//! What the operator knows of one kind: an index fed by a watch and by the operator's own writes.
//!
//! No I/O happens here. The rules that keep it true:
//!
//! - What is held is never replaced by an older version. A watch that lags behind our own writes changes nothing.
//! - What a relist no longer shows is gone, unless we have written it since the relist began.
//! - What we have deleted does not come back through a watch that lags behind.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{key::ObjectKey, stored::Stored};

/// Objects of one kind, by key and by the `InferenceService` they belong to.
pub(crate) struct Cache<T> {
    index: Mutex<Index<T>>,
    /// Whether the cluster has the kind, as far as its watch knows.
    served: AtomicBool,
}

/// A change of what is known.
pub(crate) struct Change<T> {
    pub(crate) old: Option<Arc<T>>,
    pub(crate) new: Option<Arc<T>>,
}

struct Index<T> {
    objects: HashMap<ObjectKey, Entry<T>>,
    by_owner: HashMap<ObjectKey, Vec<ObjectKey>>,
    /// Objects we have deleted and whose DELETED event has not come yet.
    deleted: HashMap<ObjectKey, Deleted>,
    /// Counts relists; grows with every [`Cache::begin`].
    epoch: u64,
}

struct Entry<T> {
    object: Arc<T>,
    /// The epoch in which it was last seen or written.
    epoch: u64,
}

struct Deleted {
    uid: Box<str>,
    epoch: u64,
}

/// A relist that has begun.
#[derive(Clone, Debug)]
pub(crate) struct Relist {
    /// The one namespace it covers; none means all.
    namespace: Option<String>,
    epoch: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        let index = Index {
            objects: HashMap::new(),
            by_owner: HashMap::new(),
            deleted: HashMap::new(),
            epoch: 0,
        };
        Self {
            index: Mutex::new(index),
            served: AtomicBool::new(true),
        }
    }
}

impl<T: Stored> Cache<T> {
    /// The object, if it is known.
    pub(crate) fn find(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.lock().objects.get(key).map(|entry| Arc::clone(&entry.object))
    }

    /// All objects that belong to a service, sorted by name.
    pub(crate) fn owned_by(&self, owner: &ObjectKey) -> Vec<Arc<T>> {
        let index = self.lock();
        let keys = index.by_owner.get(owner).into_iter().flatten();
        let mut objects: Vec<_> = keys
            .filter_map(|key| index.objects.get(key))
            .map(|entry| Arc::clone(&entry.object))
            .collect();
        drop(index);
        objects.sort_by(|one, other| one.head().key.cmp(&other.head().key));
        objects
    }

    /// All objects of a namespace (of the cluster for the empty name), sorted by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let index = self.lock();
        let entries = index.objects.iter().filter(|(key, _)| key.namespace() == namespace);
        let mut objects: Vec<_> = entries.map(|(_, entry)| Arc::clone(&entry.object)).collect();
        drop(index);
        objects.sort_by(|one, other| one.head().key.cmp(&other.head().key));
        objects
    }

    /// Keys of all objects, or of those of one namespace.
    pub(crate) fn keys(&self, namespace: Option<&str>) -> Vec<ObjectKey> {
        let index = self.lock();
        let keys = index.objects.keys();
        keys.filter(|key| namespace.is_none_or(|namespace| key.namespace() == namespace))
            .cloned()
            .collect()
    }

    /// Shows every object, in no order.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&T)) {
        self.lock().objects.values().for_each(|entry| visit(&entry.object));
    }

    /// A watch or an answer to our own write shows an object.
    pub(crate) fn put(&self, object: Arc<T>) -> Option<Change<T>> {
        self.lock().put(object, None)
    }

    /// Keeps an object in another form, if `change` has one. That is no change of what is known.
    pub(crate) fn replace(&self, key: &ObjectKey, change: impl FnOnce(&T) -> Option<T>) {
        if let Some(entry) = self.lock().objects.get_mut(key)
            && let Some(object) = change(&entry.object)
        {
            entry.object = Arc::new(object);
        }
    }

    /// A watch shows that an object is gone.
    pub(crate) fn delete(&self, object: &T) -> Option<Change<T>> {
        let mut index = self.lock();
        let head = object.head();
        if index
            .deleted
            .get(&head.key)
            .is_some_and(|deleted| deleted.uid == head.uid)
        {
            index.deleted.remove(&head.key);
        }
        let known = index.objects.get(&head.key)?.object.head();
        // An event about a former object of the same name says nothing about the present one.
        if known.uid != head.uid && !known.version.is_older_than(head.version) {
            return None;
        }
        index.remove(&head.key)
    }

    /// We have deleted an object.
    pub(crate) fn forget(&self, key: &ObjectKey, uid: &str) -> Option<Change<T>> {
        let mut index = self.lock();
        if index.objects.get(key)?.object.head().uid.as_ref() != uid {
            return None;
        }
        let epoch = index.epoch;
        index.deleted.insert(key.clone(), Deleted { uid: uid.into(), epoch });
        index.remove(key)
    }

    /// A watch starts to list all its objects.
    pub(crate) fn begin(&self, namespace: Option<&str>) -> Relist {
        let mut index = self.lock();
        index.epoch += 1;
        Relist {
            namespace: namespace.map(str::to_owned),
            epoch: index.epoch,
        }
    }

    /// The list shows an object.
    pub(crate) fn listed(&self, relist: &Relist, object: Arc<T>) -> Option<Change<T>> {
        self.lock().put(object, Some(relist.epoch))
    }

    /// The list is complete: what it has not shown is gone.
    pub(crate) fn finish(&self, relist: &Relist) -> Vec<Change<T>> {
        let mut index = self.lock();
        let covers = |key: &ObjectKey| {
            relist
                .namespace
                .as_deref()
                .is_none_or(|namespace| key.namespace() == namespace)
        };
        index
            .deleted
            .retain(|key, deleted| !covers(key) || deleted.epoch >= relist.epoch);
        let entries = index.objects.iter();
        let gone: Vec<_> = entries
            .filter(|(key, entry)| covers(key) && entry.epoch < relist.epoch)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| index.remove(key)).collect()
    }

    /// Whether the cluster has the kind. Until its watch says otherwise, it has.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// The cluster has the kind, or does not. Returns whether it has it now and had not before.
    pub(crate) fn set_served(&self, served: bool) -> bool {
        !self.served.swap(served, Ordering::Relaxed) && served
    }

    fn lock(&self) -> MutexGuard<'_, Index<T>> {
        // Every change below is complete before anything in it can panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Stored> Index<T> {
    /// `listed_since` is the epoch of the list that shows the object, if it comes from a list. A list is read from a
    /// quorum, so it overrules what was known when it began, even where a cluster restored from a backup counts
    /// versions anew; what was written since stays.
    fn put(&mut self, mut object: Arc<T>, listed_since: Option<u64>) -> Option<Change<T>> {
        let head = object.head();
        if self
            .deleted
            .get(&head.key)
            .is_some_and(|deleted| deleted.uid == head.uid)
        {
            return None;
        }
        let epoch = self.epoch;
        if let Some(entry) = self.objects.get_mut(&head.key) {
            let overruled = listed_since.is_some_and(|since| entry.epoch < since);
            entry.epoch = epoch;
            if !overruled && head.version.is_older_than(entry.object.head().version) {
                return None;
            }
        }
        if !object.concerns_us() {
            return self.remove(&head.key.clone());
        }
        let key = head.key.clone();
        let old = self.unlink(&key);
        if let (Some(old), Some(object)) = (&old, Arc::get_mut(&mut object)) {
            object.follow(old);
        }
        if let Some(owner) = object.owner() {
            self.by_owner.entry(owner.clone()).or_default().push(key.clone());
        }
        self.objects.insert(
            key,
            Entry {
                object: Arc::clone(&object),
                epoch,
            },
        );
        if old.as_ref().is_some_and(|old| old.same_facts(&object)) {
            return None;
        }
        Some(Change { old, new: Some(object) })
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Change<T>> {
        self.unlink(key).map(|old| Change {
            old: Some(old),
            new: None,
        })
    }

    fn unlink(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        let old = self.objects.remove(key)?.object;
        if let Some(owner) = old.owner()
            && let Some(keys) = self.by_owner.get_mut(owner)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::stored::child::{
        Services, StoredChild,
        tests::{owned_by, stored},
    };

    type Child = StoredChild<Services>;

    fn child(name: &str, uid: &str, version: u64) -> Arc<Child> {
        let mut value = owned_by("svc", name, &version.to_string());
        value["metadata"]["uid"] = json!(uid);
        value["spec"]["version"] = json!(version);
        stored(&value)
    }

    fn version(cache: &Cache<Child>, name: &str) -> Option<String> {
        cache
            .find(&ObjectKey::new("ns", name))
            .map(|child| child.head().version.to_string())
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn older_versions_change_nothing() {
        let cache = Cache::default();
        assert!(cache.put(child("a", "1", 10)).is_some());
        assert!(cache.put(child("a", "1", 9)).is_none());
        assert_eq!(version(&cache, "a").as_deref(), Some("10"));
        assert!(
            cache.put(child("a", "1", 10)).is_none(),
            "the watch repeats our own write"
        );
        assert!(cache.put(child("a", "1", 11)).is_some());
    }

    #[test]
    fn the_index_follows_the_owner() {
        let cache = Cache::default();
        cache.put(child("b", "1", 1));
        cache.put(child("a", "2", 2));
        let names: Vec<_> = cache
            .owned_by(&key("svc"))
            .iter()
            .map(|child| child.head().key.name().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let mut moved = owned_by("other", "a", "3");
        moved["metadata"]["uid"] = json!("2");
        cache.put(stored(&moved));
        assert_eq!(cache.owned_by(&key("svc")).len(), 1);
        assert_eq!(cache.owned_by(&key("other")).len(), 1);
        let mut foreign = moved.clone();
        foreign["metadata"]["ownerReferences"] = json!([]);
        foreign["metadata"]["resourceVersion"] = json!("4");
        let change = cache.put(stored(&foreign)).expect("it stops to concern us");
        assert!(change.new.is_none());
        assert!(cache.owned_by(&key("other")).is_empty());
    }

    #[test]
    fn what_we_deleted_does_not_come_back() {
        let cache = Cache::default();
        cache.put(child("a", "1", 10));
        assert!(cache.forget(&key("a"), "2").is_none(), "another incarnation");
        assert!(cache.forget(&key("a"), "1").is_some());
        assert!(cache.put(child("a", "1", 11)).is_none(), "a late event");
        assert_eq!(version(&cache, "a"), None);
        assert!(cache.put(child("a", "2", 13)).is_some(), "a new object of that name");
        assert!(
            cache.delete(&child("a", "1", 12)).is_none(),
            "the late DELETED of the former one"
        );
        assert_eq!(version(&cache, "a").as_deref(), Some("13"));
        assert!(cache.lock().deleted.is_empty());
    }

    #[test]
    fn a_relist_removes_what_it_does_not_show() {
        let cache = Cache::default();
        cache.put(child("a", "1", 10));
        cache.put(child("b", "2", 10));
        let relist = cache.begin(None);
        assert!(cache.listed(&relist, child("a", "1", 10)).is_none());
        cache.put(child("written", "3", 30));
        let gone = cache.finish(&relist);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].old.as_ref().map(|child| child.head().key.name()), Some("b"));
        assert_eq!(
            version(&cache, "written").as_deref(),
            Some("30"),
            "written while the list was on its way"
        );
    }

    #[test]
    fn a_relist_of_one_namespace_leaves_others_alone() {
        let cache = Cache::default();
        cache.put(child("a", "1", 10));
        let elsewhere = cache.begin(Some("elsewhere"));
        assert!(cache.finish(&elsewhere).is_empty());
        let here = cache.begin(Some("ns"));
        assert_eq!(cache.finish(&here).len(), 1);
    }

    #[test]
    fn a_list_overrules_what_was_known_before_and_not_what_was_written_since() {
        let cache = Cache::default();
        cache.put(child("a", "1", 1000));
        let relist = cache.begin(None);
        assert!(
            cache.listed(&relist, child("a", "1", 10)).is_some(),
            "the cluster was restored from a backup"
        );
        cache.put(child("a", "1", 12));
        assert!(cache.listed(&relist, child("a", "1", 11)).is_none());
        cache.finish(&relist);
        assert_eq!(version(&cache, "a").as_deref(), Some("12"));
    }

    #[test]
    fn a_lost_deleted_event_is_made_up_for_by_the_next_list() {
        let cache = Cache::<Child>::default();
        cache.put(child("a", "1", 10));
        cache.forget(&key("a"), "1");
        let relist = cache.begin(None);
        cache.finish(&relist);
        assert!(cache.lock().deleted.is_empty(), "nothing is remembered for ever");
    }

    proptest! {
        /// Events of one object may be repeated and may lag behind our own writes; the newest state wins in the end.
        #[test]
        fn converges_to_the_newest_state(order in prop::collection::vec((0..4u8, 1..40u64), 1..80)) {
            let cache = Cache::default();
            let mut newest = BTreeMap::new();
            for (name, version) in order {
                let name = name.to_string();
                cache.put(child(&name, &name, version));
                let held = newest.entry(name).or_insert(version);
                *held = (*held).max(version);
            }
            for (name, expected) in &newest {
                prop_assert_eq!(version(&cache, name), Some(expected.to_string()));
            }
            prop_assert_eq!(cache.owned_by(&key("svc")).len(), newest.len());
        }
    }
}
