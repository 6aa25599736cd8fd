//! `AdmissionReview`, as far as it is read here, and the answers to it. Nothing of a review is ever logged.
//!
//! Source: `admission.k8s.io/v1` in k8s.io/api; how answers are taken is in the API server's
//! `pkg/admission/plugin/webhook`.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use isvc_core::api::{InferenceService, InferenceServiceStatus, Meta};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Of a body, where its uid is looked for without reading all of it. The API server writes it first, after some 80 bytes.
pub(super) const PREFIX: usize = 1024;

/// The longest uid that is repeated; the API server's have 36 characters.
const MOST_UID: usize = 64;

/// The most warnings of one answer, and the most bytes of one. The API server cuts them off at 4096 bytes together.
const MOST_WARNINGS: usize = 10;
const MOST_WARNING: usize = 384;

/// The most bytes of a refusal.
const MOST_MESSAGE: usize = 4096;

/// What one token of JSON takes once it is parsed, at the most: an entry of a map with its key, in nodes that are half full.
const TOKEN_BYTES: usize = 128;

/// After so many seconds a client may ask again.
pub(super) const RETRY_AFTER: u32 = 1;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Group and kind of what is reviewed.
const SERVICE: (&str, &str) = ("serving.kserve.io", "InferenceService");

/// A review whose object is not looked into yet.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    request: Head<'a>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    kind: GroupKind,
    #[serde(default, borrow)]
    namespace: Cow<'a, str>,
    #[serde(default, borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GroupKind {
    #[serde(default)]
    group: String,
    kind: String,
}

/// A review: who asks, and about what.
#[derive(Clone, Copy)]
pub(super) struct Review<'a> {
    pub(super) namespace: &'a str,
    object: &'a RawValue,
}

/// What is taken from an object. Everything else, the status among it, is passed over.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<String>,
}

/// A body, read.
pub(super) struct Received {
    pub(super) uid: String,
    body: Vec<u8>,
}

/// It is no review, or one without a usable uid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoReview;

impl Received {
    /// Finds out which review it is.
    pub(super) fn new(body: Vec<u8>) -> Result<Self, NoReview> {
        let envelope: Envelope<'_> = serde_json::from_slice(&body).map_err(|_| NoReview)?;
        let uid = usable(&envelope.request.uid).ok_or(NoReview)?;
        Ok(Self { uid, body })
    }

    /// Calls `with` with the review; none where it is about something else than an `InferenceService` that is to stay.
    pub(super) fn review<T>(&self, with: impl FnOnce(Review<'_>) -> T) -> Option<T> {
        let envelope: Envelope<'_> = serde_json::from_slice(&self.body).ok()?;
        let head = &envelope.request;
        let is_ours = head.kind.group == SERVICE.0 && head.kind.kind == SERVICE.1;
        let object = head.object.filter(|_| is_ours && !head.namespace.is_empty())?;
        Some(with(Review {
            namespace: &head.namespace,
            object,
        }))
    }
}

impl Review<'_> {
    /// What the object may take once it is parsed, in bytes. Adversaries choose what is in it: a list of numbers takes many
    /// times what it takes as text.
    pub(super) fn weight(&self) -> usize {
        let text = self.object.get().as_bytes();
        let tokens = text.iter().filter(|byte| matches!(byte, b',' | b'{' | b'[')).count();
        text.len() + tokens * TOKEN_BYTES
    }

    /// The service; none where it is on its way out, or cannot be read, which its schema and others tell.
    pub(super) fn service(&self) -> Option<InferenceService> {
        let object: Object = serde_json::from_str(self.object.get()).ok()?;
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let meta = Meta {
            // Of the request, and not of the object: nothing outside of it is read.
            namespace: self.namespace.to_owned(),
            annotations: object.metadata.annotations.unwrap_or_default(),
            ..Meta::default()
        };
        InferenceService::parse(meta, object.spec, InferenceServiceStatus::default()).ok()
    }
}

/// The uid, from the beginning of a review as API servers write it: `{"kind":..,"apiVersion":..,"request":{"uid":"..`.
pub(super) fn uid_of_prefix(prefix: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = br#""request":{"uid":""#;
    let start = prefix.windows(BEFORE.len()).position(|part| part == BEFORE)? + BEFORE.len();
    let rest = prefix.get(start..)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    usable(std::str::from_utf8(&rest[..end]).ok()?)
}

fn usable(uid: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((1..=MOST_UID).contains(&uid.len()) && uid.bytes().all(plain)).then(|| uid.to_owned())
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The write goes on; its author is told this.
    Allow(Vec<String>),
    /// The write is refused.
    Deny { message: String, warnings: Vec<String> },
    /// The write is refused for now: its author's client tries again.
    Later(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    #[serde(rename = "status")]
    result: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

impl Verdict {
    /// The answer to the review of this uid.
    pub(super) fn answer(self, uid: &str) -> Bytes {
        let (allowed, warnings, status) = match self {
            Self::Allow(warnings) => (true, bounded(warnings), None),
            Self::Deny { message, warnings } => (
                false,
                bounded(warnings),
                Some(Status::new(403, "Forbidden", &message, None)),
            ),
            Self::Later(message) => {
                let details = Details {
                    retry_after_seconds: RETRY_AFTER,
                };
                let status = Status::new(429, "TooManyRequests", &message, Some(details));
                (false, Vec::new(), Some(status))
            }
        };
        let answer = Answer {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid,
                allowed,
                warnings,
                status,
            },
        };
        Bytes::from(serde_json::to_vec(&answer).expect("texts and numbers can be written"))
    }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: &str, details: Option<Details>) -> Self {
        Self {
            result: "Failure",
            code,
            reason,
            message: crate::error::excerpt(message, MOST_MESSAGE),
            details,
        }
    }
}

fn bounded(warnings: Vec<String>) -> Vec<String> {
    let further = warnings.len().saturating_sub(MOST_WARNINGS);
    let mut bounded: Vec<_> = warnings
        .into_iter()
        .take(MOST_WARNINGS)
        .map(|warning| crate::error::excerpt(&format!("leanserve: {warning}"), MOST_WARNING))
        .collect();
    if further > 0 {
        bounded.push(format!("leanserve: and {further} more"));
    }
    bounded
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn received(review: &Value) -> Result<Received, NoReview> {
        Received::new(review.to_string().into_bytes())
    }

    fn review(object: Value) -> Value {
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": {"group": "serving.kserve.io", "version": "v1beta1", "kind": "InferenceService"},
                "namespace": "n", "operation": "UPDATE", "oldObject": {"spec": [[[]]]},
            },
        });
        review["request"]["object"] = object;
        review
    }

    #[test]
    fn the_namespace_is_that_of_the_request() {
        let object = json!({
            "metadata": {"name": "m", "namespace": "other", "creationTimestamp": null, "annotations": {"a": "b"}},
            "spec": {"predictor": {"model": {"storageUri": "s3://b/m"}}},
        });
        let received = received(&review(object)).expect("a review");
        let service = received.review(|review| review.service()).flatten().expect("a service");
        assert_eq!(service.meta.namespace, "n");
        assert_eq!(service.meta.annotation("a"), Some("b"));
    }

    #[test]
    fn what_is_no_service_to_check_is_told_apart_from_what_is_no_review() {
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"predictor": {}}});
        let unreadable = json!({"metadata": {}, "spec": {"predictor": 5}});
        for object in [deleted, unreadable, json!("text")] {
            let received = received(&review(object.clone())).expect("a review");
            assert!(
                received.review(|review| review.service()).flatten().is_none(),
                "{object}"
            );
        }
        let mut pod = review(json!({}));
        pod["request"]["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"});
        assert!(received(&pod).expect("a review").review(|_| ()).is_none());
        let mut spoiled = review(json!({}));
        spoiled["request"]["uid"] = json!("a\"b");
        for no_review in [json!({}), json!([]), json!({"request": {}}), spoiled] {
            assert_eq!(received(&no_review).err(), Some(NoReview), "{no_review}");
        }
    }

    #[test]
    fn the_uid_is_found_before_the_rest_has_come() {
        let text =
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"70-ab","kind":{"gro"#;
        assert_eq!(uid_of_prefix(text.as_bytes()).as_deref(), Some("70-ab"));
        for text in ["", "{}", r#"{"request":{"uid":"70-"#, r#"{"request":{"uid":"a b"}}"#] {
            assert_eq!(uid_of_prefix(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_list_of_numbers_weighs_what_it_will_take() {
        let object = json!({"spec": {"predictor": {"list": vec![0; 10_000]}}});
        let received = received(&review(object)).expect("a review");
        let weight = received.review(|review| review.weight()).expect("a service");
        assert!(weight > 10_000 * 32, "{weight}");
    }

    #[test]
    fn answers_are_as_api_servers_take_them() {
        let parse = |answer: Bytes| serde_json::from_slice::<Value>(&answer).expect("JSON");
        let warned = parse(Verdict::Allow(vec!["Secret n/s not found".to_owned()]).answer("u"));
        let expected = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "u", "allowed": true, "warnings": ["leanserve: Secret n/s not found"]},
        });
        assert_eq!(warned, expected);
        let later = parse(Verdict::Later("busy".to_owned()).answer("u"));
        assert_eq!(later["response"]["allowed"], false);
        assert_eq!(later["response"]["status"]["code"], 429);
        assert_eq!(later["response"]["status"]["details"]["retryAfterSeconds"], 1);
        let many = parse(Verdict::Allow(vec!["é".repeat(1000); 30]).answer("u"));
        let many = many["response"]["warnings"].as_array().expect("a list");
        assert_eq!(many.len(), MOST_WARNINGS + 1);
        assert!(
            many.iter()
                .all(|warning| warning.as_str().is_some_and(|text| text.len() <= MOST_WARNING))
        );
    }
}
