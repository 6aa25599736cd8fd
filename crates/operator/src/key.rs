//! How objects are told apart.

use std::{fmt, sync::Arc};

/// Namespace and name of an object; the namespace of a cluster-scoped object is empty.
///
/// One allocation that queue, caches and passes share: there is one for every object the operator knows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey(Arc<str>);

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    pub(crate) fn namespace(&self) -> &str {
        self.parts().0
    }

    pub(crate) fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0
            .split_once('/')
            .expect("new() puts a slash between namespace and name")
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let key = ObjectKey::new("models", "iris");
        assert_eq!((key.namespace(), key.name()), ("models", "iris"));
        assert_eq!(key.to_string(), "models/iris");
        let cluster = ObjectKey::new("", "kserve-sklearnserver");
        assert_eq!((cluster.namespace(), cluster.name()), ("", "kserve-sklearnserver"));
    }
}
