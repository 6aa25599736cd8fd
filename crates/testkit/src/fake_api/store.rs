//! The objects, their history, and the watch cache that may lag behind them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

/// Resources that are modelled: plural name and kind.
const KINDS: [(&str, &str); 3] = [
    ("secrets", "Secret"),
    ("serviceaccounts", "ServiceAccount"),
    ("configmaps", "ConfigMap"),
];

/// The kind of a modelled resource.
pub(super) fn kind_of(resource: &str) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(plural, _)| *plural == resource)
        .map(|(_, kind)| *kind)
}

/// Which write an object is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The incarnation: another one after a delete and a create.
    pub uid: String,
    /// The revision of the whole store at this write.
    pub resource_version: u64,
}

/// Resource, namespace and name, in the order lists come in.
type Key = (&'static str, String, String);

/// One change, as a watch will tell it.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) resource: &'static str,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Which copy of the objects a read is answered from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// etcd: the latest write.
    Quorum,
    /// The watch cache: may be behind while frozen.
    Cache,
}

pub(super) struct Store {
    revision: u64,
    live: BTreeMap<Key, Value>,
    /// What the watch cache knew when it froze.
    frozen: Option<(u64, BTreeMap<Key, Value>)>,
    history: Vec<Change>,
    compacted: u64,
    /// The rest of lists that were cut by `limit`, by `continue` token.
    remainders: HashMap<String, (u64, Vec<Value>)>,
    created: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            // Not zero: a fresh cluster has had writes, and 0 has a meaning of its own in requests.
            revision: 1000,
            live: BTreeMap::new(),
            frozen: None,
            history: Vec::new(),
            compacted: 1000,
            remainders: HashMap::new(),
            created: 0,
        }
    }

    pub(super) fn put(&mut self, mut object: Value) -> Version {
        let kind = object["kind"].as_str().unwrap_or_default();
        let (resource, _) = KINDS
            .iter()
            .find(|(_, known)| *known == kind)
            .unwrap_or_else(|| panic!("the fake API server does not model kind {kind:?}"));
        let field = |name: &str| {
            object["metadata"][name]
                .as_str()
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| panic!("an object for the fake API server needs metadata.{name}"))
                .to_owned()
        };
        let key: Key = (resource, field("namespace"), field("name"));
        let before = self.live.get(&key).cloned();
        let uid = if let Some(before) = &before {
            before["metadata"]["uid"]
                .as_str()
                .expect("every stored object has a uid")
                .to_owned()
        } else {
            self.created += 1;
            format!("00000000-0000-4000-8000-{:012x}", self.created)
        };
        self.revision += 1;
        object["apiVersion"] = json!("v1");
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        object["metadata"]["creationTimestamp"] = json!("2024-01-01T00:00:00Z");
        self.history.push(Change {
            revision: self.revision,
            resource,
            before,
            after: Some(object.clone()),
        });
        self.live.insert(key, object);
        Version {
            uid,
            resource_version: self.revision,
        }
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> Option<Version> {
        let key = self.find(resource, namespace, name)?;
        let mut object = self.live.remove(&key)?;
        self.revision += 1;
        self.history.push(Change {
            revision: self.revision,
            resource: key.0,
            before: Some(object.clone()),
            after: None,
        });
        let uid = object["metadata"]["uid"].take();
        Some(Version {
            uid: uid.as_str().expect("every stored object has a uid").to_owned(),
            resource_version: self.revision,
        })
    }

    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Key> {
        let (resource, _) = KINDS.iter().find(|(plural, _)| *plural == resource)?;
        let key = (*resource, namespace.to_owned(), name.to_owned());
        self.live.contains_key(&key).then_some(key)
    }

    pub(super) fn live(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.read(Source::Quorum, resource, namespace, name)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that `source` has seen.
    pub(super) fn seen(&self, source: Source) -> u64 {
        match (source, &self.frozen) {
            (Source::Cache, Some((revision, _))) => *revision,
            _ => self.revision,
        }
    }

    fn objects(&self, source: Source) -> &BTreeMap<Key, Value> {
        match (source, &self.frozen) {
            (Source::Cache, Some((_, objects))) => objects,
            _ => &self.live,
        }
    }

    pub(super) fn read(&self, source: Source, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let (resource, _) = KINDS.iter().find(|(plural, _)| *plural == resource)?;
        self.objects(source)
            .get(&(*resource, namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Every object of the resource, ordered by namespace and name.
    pub(super) fn list(&self, source: Source, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        self.objects(source)
            .iter()
            .filter(|((held, held_in, _), _)| *held == resource && namespace.is_none_or(|wanted| wanted == held_in))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn advance(&mut self, writes: u64) {
        self.revision += writes;
    }

    pub(super) fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = Some((self.revision, self.live.clone()));
        }
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.remainders.clear();
    }

    /// Whether a watch can still start from this revision.
    pub(super) fn remembers(&self, revision: u64) -> bool {
        revision >= self.compacted
    }

    /// The changes after `revision` that the watch cache has seen. Compaction does not touch them: a watch that is
    /// open when it happens misses nothing.
    pub(super) fn changes_after(&self, revision: u64) -> Vec<Change> {
        let seen = self.seen(Source::Cache);
        self.history
            .iter()
            .filter(|change| change.revision > revision && change.revision <= seen)
            .cloned()
            .collect()
    }

    /// Keeps the rest of a list for the next page.
    pub(super) fn keep_remainder(&mut self, revision: u64, rest: Vec<Value>) -> String {
        let token = format!("page-{}-{revision}", self.remainders.len() + 1);
        self.remainders.insert(token.clone(), (revision, rest));
        token
    }

    /// The rest of a list, as it was at its first page.
    pub(super) fn remainder(&self, token: &str) -> Option<(u64, Vec<Value>)> {
        self.remainders.get(token).cloned()
    }
}
