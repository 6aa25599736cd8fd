//! Pure: what is watched, as the addresses of requests.

use form_urlencoded::Serializer;

use crate::options::{TypeSelector, WatchOptions};
use crate::snapshot::ResourceVersion;

/// One selection of Secrets that is listed and watched by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    namespace: Option<Box<str>>,
    labels: Option<Box<str>>,
    /// A field selector on the type.
    types: Option<Box<str>>,
}

impl Scope {
    /// All that `options` select: one for each namespace, or one for all of them.
    pub(crate) fn all_of(options: &WatchOptions) -> Vec<Self> {
        let types = match &options.types {
            TypeSelector::Only(only) => Some(format!("type={only}")),
            TypeSelector::Except(except) => {
                let terms: Vec<String> = except.iter().map(|type_| format!("type!={type_}")).collect();
                Some(terms.join(",")).filter(|terms| !terms.is_empty())
            }
        };
        let scope = |namespace: Option<&str>| Self {
            namespace: namespace.map(Box::from),
            labels: options.labels.as_deref().map(Box::from),
            types: types.as_deref().map(Box::from),
        };
        if options.namespaces.is_empty() {
            vec![scope(None)]
        } else {
            let mut namespaces: Vec<&str> = options.namespaces.iter().map(String::as_str).collect();
            namespaces.sort_unstable();
            namespaces.dedup();
            namespaces.into_iter().map(|namespace| scope(Some(namespace))).collect()
        }
    }

    /// The namespace, or `None` for all of them.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The first list as a stream, which goes on as a watch until `seconds` have passed. Without a `resourceVersion` it is
    /// as new as a quorum read.
    pub(super) fn streamed_list(&self, seconds: u64) -> String {
        self.address(&[
            ("watch", "1"),
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds.to_string()),
        ])
    }

    /// A page of the first list: the first one, which is as new as a quorum read, or what follows another one.
    pub(super) fn page(&self, limit: u32, continue_: Option<&str>) -> String {
        let limit = limit.to_string();
        let mut parameters = vec![("limit", limit.as_str())];
        parameters.extend(continue_.map(|token| ("continue", token)));
        self.address(&parameters)
    }

    /// A watch of what happens after `from`, for `seconds`.
    pub(super) fn watch(&self, from: ResourceVersion, seconds: u64) -> String {
        self.address(&[
            ("watch", "1"),
            ("resourceVersion", &from.to_string()),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &seconds.to_string()),
        ])
    }

    fn address(&self, parameters: &[(&str, &str)]) -> String {
        let mut address = match &self.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/secrets?"),
            None => "/api/v1/secrets?".to_owned(),
        };
        let begin = address.len();
        let mut query = Serializer::for_suffix(&mut address, begin);
        query.extend_pairs(parameters);
        if let Some(labels) = &self.labels {
            query.append_pair("labelSelector", labels);
        }
        if let Some(types) = &self.types {
            query.append_pair("fieldSelector", types);
        }
        query.finish();
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_scope_a_namespace_or_one_for_all() {
        let all = Scope::all_of(&WatchOptions::default());
        assert_eq!(all.iter().map(Scope::namespace).collect::<Vec<_>>(), [None]);
        let some = Scope::all_of(&WatchOptions {
            namespaces: vec!["b".into(), "a".into(), "b".into()],
            ..WatchOptions::default()
        });
        assert_eq!(
            some.iter().map(Scope::namespace).collect::<Vec<_>>(),
            [Some("a"), Some("b")]
        );
    }

    #[test]
    fn addresses_carry_the_selectors_encoded() {
        let scopes = Scope::all_of(&WatchOptions {
            namespaces: vec!["team".into()],
            labels: Some("app in (a, b),!x&y".into()),
            types: TypeSelector::Except(vec!["helm.sh/release.v1".into(), "t".into()]),
            ..WatchOptions::default()
        });
        let selectors = "&labelSelector=app+in+%28a%2C+b%29%2C%21x%26y\
                         &fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2Ctype%21%3Dt";
        assert_eq!(
            scopes[0].watch(ResourceVersion::new(7), 30),
            format!(
                "/api/v1/namespaces/team/secrets?watch=1&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=30{selectors}"
            )
        );
        assert_eq!(
            scopes[0].page(5, Some("a+b=")),
            format!("/api/v1/namespaces/team/secrets?limit=5&continue=a%2Bb%3D{selectors}")
        );
    }

    #[test]
    fn nothing_to_select_by_is_left_out() {
        let with = |types| {
            let scopes = Scope::all_of(&WatchOptions {
                types,
                ..WatchOptions::default()
            });
            scopes[0].page(500, None)
        };
        let none = TypeSelector::Except(Vec::new());
        assert_eq!(with(none), "/api/v1/secrets?limit=500");
        let only = TypeSelector::Only("kubernetes.io/tls".into());
        assert_eq!(
            with(only),
            "/api/v1/secrets?limit=500&fieldSelector=type%3Dkubernetes.io%2Ftls"
        );
    }

    #[test]
    fn a_streamed_list_names_no_version() {
        let scope = &Scope::all_of(&WatchOptions::default())[0];
        assert_eq!(
            scope.streamed_list(300),
            "/api/v1/secrets?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
             &allowWatchBookmarks=true&timeoutSeconds=300&fieldSelector=type%21%3Dhelm.sh%2Frelease.v1"
        );
    }
}
