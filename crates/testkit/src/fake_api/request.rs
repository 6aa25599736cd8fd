//! A request, taken apart once.

use http::{HeaderMap, Method, Request};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The audit log's word: `get`, `list`, `watch` or `create`; else the method in lower case.
    pub verb: String,
    /// The plural name of the resource; empty when the path names none.
    pub resource: String,
    /// The namespace; `None` for a request across all of them.
    pub namespace: Option<String>,
    /// The object's name, when the path has one.
    pub name: Option<String>,
    /// Path and query as sent.
    pub uri: String,
    /// The headers as sent.
    pub headers: HeaderMap,
}

impl RecordedRequest {
    pub(super) fn parse<B>(request: &Request<B>) -> Self {
        let path: Vec<&str> = request
            .uri()
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        // Of /api/v1 and /apis/GROUP/VERSION, what follows.
        let rest = match path.as_slice() {
            ["api", "v1", rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let (namespace, resource, name) = match rest {
            ["namespaces", namespace, resource, name] => (Some(*namespace), *resource, Some(*name)),
            ["namespaces", namespace, resource] => (Some(*namespace), *resource, None),
            [resource, name] => (None, *resource, Some(*name)),
            [resource] => (None, *resource, None),
            _ => (None, "", None),
        };
        let mut recorded = Self {
            verb: String::new(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            uri: request
                .uri()
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: request.headers().clone(),
        };
        let watching = recorded
            .query("watch")
            .is_some_and(|value| value != "false" && value != "0");
        recorded.verb = match (request.method(), &recorded.name) {
            (&Method::GET, _) if watching => "watch".to_owned(),
            (&Method::GET, Some(_)) => "get".to_owned(),
            (&Method::GET, None) => "list".to_owned(),
            (&Method::POST, _) => "create".to_owned(),
            (method, _) => method.as_str().to_ascii_lowercase(),
        };
        recorded
    }

    /// The value of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, parameter: &str) -> Option<String> {
        let (_, query) = self.uri.split_once('?')?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == parameter)
            .map(|(_, value)| value.into_owned())
    }

    /// Whether the client asked for metadata only.
    #[must_use]
    pub fn metadata_only(&self) -> bool {
        let accept = self
            .headers
            .get(http::header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        // The first media type wins here; clients list their preference first.
        let first = accept.split(',').next().unwrap_or_default().replace(' ', "");
        first.contains(";as=PartialObjectMetadata")
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::RecordedRequest;

    #[test]
    fn requests_are_taken_apart_as_the_audit_log_does() {
        let table = [
            (
                "GET",
                "/api/v1/namespaces/n/secrets/s?resourceVersion=5",
                "get",
                Some("n"),
                Some("s"),
            ),
            ("GET", "/api/v1/namespaces/n/secrets?limit=1", "list", Some("n"), None),
            ("GET", "/api/v1/secrets?watch=true", "watch", None, None),
            ("GET", "/api/v1/secrets?watch=false", "list", None, None),
            (
                "DELETE",
                "/api/v1/namespaces/n/secrets/s",
                "delete",
                Some("n"),
                Some("s"),
            ),
        ];
        for (method, uri, verb, namespace, name) in table {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let recorded = RecordedRequest::parse(&request);
            assert_eq!(recorded.verb, verb, "{uri}");
            assert_eq!(recorded.resource, "secrets", "{uri}");
            assert_eq!(recorded.namespace.as_deref(), namespace, "{uri}");
            assert_eq!(recorded.name.as_deref(), name, "{uri}");
            assert_eq!(recorded.uri, uri);
        }
    }
}
