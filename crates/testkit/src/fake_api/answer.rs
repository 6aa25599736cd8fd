//! Answers to requests that nothing interferes with.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    State,
    request::RecordedRequest,
    selector::Selector,
    store::{Source, kind_of},
};

/// An answer before it becomes an HTTP response.
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self {
            code: StatusCode::OK,
            headers: Vec::new(),
            body,
        }
    }
}

/// What the server does with a request.
pub(super) enum Reaction {
    /// Answers it now.
    Answer(Answer),
    /// Answers when the watch cache has seen this revision, or with a 504 after a while.
    WaitFor(u64),
    /// Opens a watch from this revision.
    Watch {
        from: u64,
        selector: Selector,
        /// Objects to send first, for a watch without a start or one that asks for initial events.
        initial: Vec<Value>,
    },
}

/// A `Status` answer as kube-apiserver words it.
pub(super) fn status(code: StatusCode, reason: &str, message: &str, details: &Value) -> Answer {
    let mut body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    if !details.is_null() {
        body["details"] = details.clone();
    }
    Answer {
        code,
        headers: Vec::new(),
        body,
    }
}

/// The `Status` that goes with a bare code.
pub(super) fn status_for(code: StatusCode) -> Answer {
    let reason = match code.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    status(
        code,
        reason,
        code.canonical_reason().unwrap_or("injected fault"),
        &Value::Null,
    )
}

/// The 504 for a resourceVersion that the watch cache has not reached.
pub(super) fn too_large(wanted: u64, seen: u64) -> Answer {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {seen}");
    let details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    let mut answer = status(StatusCode::GATEWAY_TIMEOUT, "Timeout", &message, &details);
    answer.headers.push(("retry-after".to_owned(), "1".to_owned()));
    answer
}

/// What kube-apiserver says to a resourceVersion that is no number: a bare 500 to a GET, a 400 to the others.
fn not_a_version(request: &RecordedRequest, text: &str) -> Answer {
    let cause =
        format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax");
    if request.verb != "get" {
        let message = format!("invalid resource version: {cause}");
        return status(StatusCode::BAD_REQUEST, "BadRequest", &message, &Value::Null);
    }
    let mut answer = status(StatusCode::INTERNAL_SERVER_ERROR, "", &cause, &Value::Null);
    if let Some(fields) = answer.body.as_object_mut() {
        fields.remove("reason");
    }
    answer
}

/// The 410 for history that is gone.
pub(super) fn expired(message: &str) -> Answer {
    status(StatusCode::GONE, "Expired", message, &Value::Null)
}

fn bad_request(message: &str) -> Reaction {
    Reaction::Answer(status(StatusCode::BAD_REQUEST, "BadRequest", message, &Value::Null))
}

/// Decides what to do with a request.
pub(super) fn react(state: &mut State, request: &RecordedRequest) -> Reaction {
    if request.verb == "create" && request.resource == "selfsubjectaccessreviews" {
        // Its answer depends on the body, which the service supplies.
        return Reaction::Answer(status_for(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let Some(kind) = kind_of(&request.resource) else {
        let message = "the server could not find the requested resource";
        return Reaction::Answer(status(StatusCode::NOT_FOUND, "NotFound", message, &Value::Null));
    };
    if !["get", "list", "watch"].contains(&request.verb.as_str()) {
        let message = "the fake API server takes writes through its methods only";
        return Reaction::Answer(status(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            &Value::Null,
        ));
    }
    if state
        .forbidden
        .contains(&(request.verb.clone(), request.resource.clone()))
    {
        return Reaction::Answer(forbidden(request));
    }
    let revision = match request.query("resourceVersion").filter(|value| !value.is_empty()) {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(revision) => Some(revision),
            Err(_) => return Reaction::Answer(not_a_version(request, &text)),
        },
    };
    match request.verb.as_str() {
        "get" => get(state, request, kind, revision),
        "list" => list(state, request, kind, revision),
        _ => watch(state, request, revision),
    }
}

fn forbidden(request: &RecordedRequest) -> Answer {
    let RecordedRequest { verb, resource, .. } = request;
    let place = request.namespace.as_ref().map_or_else(
        || "at the cluster scope".to_owned(),
        |namespace| format!("in the namespace \"{namespace}\""),
    );
    let object = request
        .name
        .as_ref()
        .map_or_else(String::new, |name| format!(" \"{name}\""));
    let mut details = json!({"kind": resource});
    if let Some(name) = &request.name {
        details["name"] = json!(name);
    }
    let message = format!(
        "{resource}{object} is forbidden: User \"system:serviceaccount:test:test\" cannot {verb} resource \
         \"{resource}\" in API group \"\" {place}"
    );
    status(StatusCode::FORBIDDEN, "Forbidden", &message, &details)
}

fn get(state: &State, request: &RecordedRequest, kind: &str, revision: Option<u64>) -> Reaction {
    let name = request.name.as_deref().unwrap_or_default();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    // Without a version the answer is etcd's; with one it is the watch cache's, once that is new enough.
    let source = if revision.is_some() {
        Source::Cache
    } else {
        Source::Quorum
    };
    if let Some(wanted) = revision
        && wanted > state.store.seen(Source::Cache)
    {
        return Reaction::WaitFor(wanted);
    }
    Reaction::Answer(match state.store.read(source, &request.resource, namespace, name) {
        Some(object) => Answer::ok(shape(object, request.metadata_only(), kind)),
        None => status(
            StatusCode::NOT_FOUND,
            "NotFound",
            &format!("{} \"{name}\" not found", request.resource),
            &json!({"name": name, "kind": request.resource}),
        ),
    })
}

fn list(state: &mut State, request: &RecordedRequest, kind: &str, revision: Option<u64>) -> Reaction {
    let selector = match selector(request) {
        Ok(selector) => selector,
        Err(message) => return bad_request(&message),
    };
    if let Some(wanted) = revision
        && wanted > state.store.seen(Source::Cache)
    {
        return Reaction::WaitFor(wanted);
    }
    let token = request.query("continue").filter(|token| !token.is_empty());
    let (seen, mut items) = if let Some(token) = token {
        match state.store.remainder(&token) {
            Some(rest) => rest,
            None => return Reaction::Answer(expired("The provided continue parameter is too old")),
        }
    } else {
        let source = if revision.is_some() {
            Source::Cache
        } else {
            Source::Quorum
        };
        let mut items = state
            .store
            .list(source, &request.resource, request.namespace.as_deref());
        items.retain(|object| selector.matches(object));
        (state.store.seen(source), items)
    };
    // kube-apiserver ignores the limit for resourceVersion=0: the whole collection comes back.
    let limit = request
        .query("limit")
        .and_then(|limit| limit.parse::<usize>().ok())
        .filter(|limit| *limit > 0 && revision != Some(0));
    let mut metadata = json!({"resourceVersion": seen.to_string()});
    if let Some(limit) = limit
        && items.len() > limit
    {
        let rest = items.split_off(limit);
        // The server cannot count what a selector would leave out, so it does not.
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(rest.len());
        }
        metadata["continue"] = json!(state.store.keep_remainder(seen, rest));
    }
    let metadata_only = request.metadata_only();
    let items: Vec<Value> = items
        .into_iter()
        .map(|object| {
            let mut item = shape(object, metadata_only, kind);
            // Items of a typed list carry no kind of their own.
            if !metadata_only && let Some(fields) = item.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            item
        })
        .collect();
    let (kind, version) = if metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1")
    } else {
        (format!("{kind}List"), "v1")
    };
    // The server makes a list of metadata from nothing, and nothing is null there.
    let items = if metadata_only && items.is_empty() {
        Value::Null
    } else {
        json!(items)
    };
    Reaction::Answer(Answer::ok(
        json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}),
    ))
}

fn watch(state: &State, request: &RecordedRequest, revision: Option<u64>) -> Reaction {
    let selector = match selector(request) {
        Ok(selector) => selector,
        Err(message) => return bad_request(&message),
    };
    let wants_initial = request.query("sendInitialEvents").is_some_and(|value| value == "true");
    let from_start = revision.unwrap_or(0) == 0;
    let seen = state.store.seen(Source::Cache);
    if wants_initial || from_start {
        let mut initial = state
            .store
            .list(Source::Cache, &request.resource, request.namespace.as_deref());
        initial.retain(|object| selector.matches(object));
        return Reaction::Watch {
            from: seen,
            selector,
            initial,
        };
    }
    let from = revision.unwrap_or(seen);
    Reaction::Watch {
        from,
        selector,
        initial: Vec::new(),
    }
}

fn selector(request: &RecordedRequest) -> Result<Selector, String> {
    let mut fields = request.query("fieldSelector").unwrap_or_default();
    // A watch on one object by path is a watch with its name as field selector.
    if let Some(name) = &request.name {
        fields = format!("metadata.name={name},{fields}");
    }
    Selector::parse(request.query("labelSelector").as_deref(), Some(&fields))
}

/// The object as asked for: whole, or its metadata.
pub(super) fn shape(mut object: Value, metadata_only: bool, kind: &str) -> Value {
    if metadata_only {
        return json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"].take(),
        });
    }
    object["kind"] = json!(kind);
    object["apiVersion"] = json!("v1");
    object
}
