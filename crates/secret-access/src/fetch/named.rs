//! A list and a watch of a single Secret's metadata, by its name.
//!
//! Rights that are limited by `resourceNames` allow both with exactly this field selector. The watch begins at the version
//! of the list: that of the Secret may be too old to be remembered.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Fetcher, Metadata, connection};
use crate::failure::Failure;
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;

/// JSON alone: a line is a line.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// How much longer than asked for a watch may take to end before it is taken for dead.
const GRACE: Duration = Duration::from_secs(5);

const NOT_UNDERSTOOD: &str = "a line of a watch is not an event of the Secret asked for";

/// What a list by name found.
pub(crate) struct Listed {
    /// Where the cluster's history stood.
    pub(crate) version: ResourceVersion,
    pub(crate) found: Option<Metadata>,
}

/// What a watch on one Secret tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedEvent {
    Present(Metadata),
    /// It was deleted at this point of the history.
    Deleted(ResourceVersion),
    /// Nothing happened up to here.
    Bookmark(ResourceVersion),
    /// The history that was asked for is gone: list again.
    Expired,
}

/// An open watch on one Secret.
pub(crate) struct NamedWatch {
    body: Pin<Box<Body>>,
    secret: SecretRef,
    lines: Lines,
    ends: Instant,
    lasts: Duration,
}

impl Fetcher {
    /// Lists the Secret of this name.
    pub(crate) async fn list_named(&self, secret: &SecretRef, deadline: Instant) -> Result<Listed, Failure> {
        let path = format!("{}&limit=1", collection(secret));
        let within = timeout_at(deadline, self.body_of(&path, METADATA_LIST));
        let body = within.await.unwrap_or(Err(Failure::Timeout(self.options.deadline)))?;
        listed(&body, secret).map_err(Failure::Malformed)
    }

    /// Opens a watch on the Secret of this name, for what comes after `from`. It lasts for `lasts`.
    pub(crate) async fn watch_named(
        &self,
        secret: &SecretRef,
        from: ResourceVersion,
        lasts: Duration,
    ) -> Result<NamedWatch, Failure> {
        let (path, seconds) = (collection(secret), lasts.as_secs().max(1));
        let path = format!("{path}&watch=1&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds={seconds}");
        let request = Request::get(path)
            .header(ACCEPT, METADATA)
            .body(Body::empty())
            .expect("a checked SecretRef has only characters that are valid in a path");
        let answered = timeout(self.options.deadline, async {
            let response = self.client.send(request).await.map_err(|error| connection(&error))?;
            match response.status() {
                StatusCode::OK => Ok(response),
                status => Err(self.refusal(status, response).await),
            }
        });
        let ends = Instant::now() + lasts + GRACE;
        let response = answered.await.unwrap_or(Err(Failure::Timeout(self.options.deadline)));
        let lines = Lines::new(self.options.max_body_bytes);
        let watch = |body| NamedWatch {
            body: Box::pin(body),
            secret: secret.clone(),
            lines,
            ends,
            lasts,
        };
        match response {
            Ok(response) => Ok(watch(response.into_body())),
            // Told the same way as in the middle of a watch.
            Err(failure) if super::is_status(failure, StatusCode::GONE) => {
                let mut expired = watch(Body::empty());
                expired.lines.expired = true;
                Ok(expired)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl NamedWatch {
    /// The next event; `None` when the watch has ended as it should.
    pub(crate) async fn next(&mut self) -> Result<Option<NamedEvent>, Failure> {
        if std::mem::take(&mut self.lines.expired) {
            return Ok(Some(NamedEvent::Expired));
        }
        loop {
            if let Some(line) = self.lines.next()? {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return event(&line, &self.secret).map(Some);
            }
            let frame = timeout_at(self.ends, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| Failure::Timeout(self.lasts))? else {
                return Ok(None);
            };
            // Trailers are no part of the content.
            if let Ok(data) = frame.map_err(|error| connection(&error))?.into_data() {
                self.lines.chunk = data;
            }
        }
    }
}

/// Cuts what arrives into lines, each in a buffer that is wiped: an annotation may repeat the Secret's values.
struct Lines {
    chunk: Bytes,
    begun: Zeroizing<Vec<u8>>,
    limit: usize,
    /// The watch was over before it began.
    expired: bool,
}

impl Lines {
    fn new(limit: usize) -> Self {
        Self {
            chunk: Bytes::new(),
            begun: Zeroizing::default(),
            limit,
            expired: false,
        }
    }

    /// The next whole line, if it is there.
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let end = self.chunk.iter().position(|byte| *byte == b'\n');
        let more = self.chunk.split_to(end.unwrap_or(self.chunk.len()));
        if self.begun.len() + more.len() > self.limit {
            return Err(Failure::TooLarge(self.limit));
        }
        append(&mut self.begun, &more);
        if let Ok(mut more) = more.try_into_mut() {
            more.as_mut().zeroize();
        }
        if end.is_none() {
            return Ok(None);
        }
        let _newline = self.chunk.split_to(1);
        Ok(Some(std::mem::take(&mut self.begun)))
    }
}

/// Appends without leaving an unwiped copy behind: `Vec` would free its old buffer as it is.
fn append(buffer: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = buffer.len() + more.len();
    if needed > buffer.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity(needed.max(2 * buffer.capacity())));
        grown.extend_from_slice(buffer);
        *buffer = grown;
    }
    buffer.extend_from_slice(more);
}

fn collection(secret: &SecretRef) -> String {
    let (namespace, name) = (secret.namespace(), secret.name());
    format!("/api/v1/namespaces/{namespace}/secrets?fieldSelector=metadata.name%3D{name}")
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow, rename = "type")]
    type_: Cow<'a, str>,
    #[serde(borrow)]
    object: WireObject<'a>,
}

#[derive(Deserialize)]
struct WireObject<'a> {
    #[serde(borrow, default)]
    metadata: WireMetadata<'a>,
    /// Of a `Status`.
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireMetadata<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WireList<'a> {
    #[serde(borrow)]
    metadata: WireMetadata<'a>,
    #[serde(borrow)]
    items: Option<Vec<WireObject<'a>>>,
}

impl WireMetadata<'_> {
    fn version(&self) -> Option<ResourceVersion> {
        self.resource_version.parse().ok()
    }

    fn of(&self, secret: &SecretRef) -> Option<Metadata> {
        let asked = self.namespace == secret.namespace() && self.name == secret.name() && !self.uid.is_empty();
        let version = self.version().filter(|_| asked)?;
        let uid = self.uid.as_ref().into();
        Some(Metadata { uid, version })
    }
}

fn listed(body: &[u8], secret: &SecretRef) -> Result<Listed, &'static str> {
    const NO_LIST: &str = "it is not a list of the Secret asked for";
    let list: WireList<'_> = serde_json::from_slice(body).map_err(|_| NO_LIST)?;
    let version = list.metadata.version().ok_or(NO_LIST)?;
    let mut items = list.items.unwrap_or_default().into_iter();
    let found = items.next().map(|item| item.metadata.of(secret).ok_or(NO_LIST));
    Ok(Listed {
        version,
        found: found.transpose()?,
    })
}

fn event(line: &[u8], secret: &SecretRef) -> Result<NamedEvent, Failure> {
    const BAD: Failure = Failure::Malformed(NOT_UNDERSTOOD);
    let WireEvent { type_, object } = serde_json::from_slice(line).map_err(|_| BAD)?;
    match type_.as_ref() {
        "ADDED" | "MODIFIED" => object.metadata.of(secret).map(NamedEvent::Present).ok_or(BAD),
        "DELETED" => {
            let metadata = object.metadata.of(secret).ok_or(BAD)?;
            Ok(NamedEvent::Deleted(metadata.version))
        }
        "BOOKMARK" => object.metadata.version().map(NamedEvent::Bookmark).ok_or(BAD),
        "ERROR" => match object.code {
            410 => Ok(NamedEvent::Expired),
            403 => Err(Failure::Forbidden),
            code => Err(Failure::Unavailable(crate::error::UnavailableCause::Status(code), None)),
        },
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secret() -> SecretRef {
        SecretRef::new("ns", "s").expect("valid")
    }

    fn metadata(version: u64) -> Metadata {
        Metadata {
            uid: "u".into(),
            version: ResourceVersion::new(version),
        }
    }

    #[test]
    fn events_are_told_apart() {
        let object = json!({"kind": "PartialObjectMetadata", "metadata": {
            "namespace": "ns", "name": "s", "uid": "u", "resourceVersion": "7", "annotations": {"a": "x \"y\""},
        }});
        let mut other = object.clone();
        other["metadata"]["name"] = json!("t");
        for (type_, object, expected) in [
            ("ADDED", &object, Ok(NamedEvent::Present(metadata(7)))),
            ("MODIFIED", &object, Ok(NamedEvent::Present(metadata(7)))),
            ("DELETED", &object, Ok(NamedEvent::Deleted(ResourceVersion::new(7)))),
            (
                "BOOKMARK",
                &json!({"metadata": {"resourceVersion": "9", "creationTimestamp": null}}),
                Ok(NamedEvent::Bookmark(ResourceVersion::new(9))),
            ),
            (
                "ERROR",
                &json!({"kind": "Status", "code": 410}),
                Ok(NamedEvent::Expired),
            ),
            (
                "ERROR",
                &json!({"kind": "Status", "metadata": {}, "code": 403}),
                Err(Failure::Forbidden),
            ),
            ("ADDED", &other, Err(Failure::Malformed(NOT_UNDERSTOOD))),
            ("DELETED", &other, Err(Failure::Malformed(NOT_UNDERSTOOD))),
            ("PUZZLING", &object, Err(Failure::Malformed(NOT_UNDERSTOOD))),
        ] {
            let line = json!({"type": type_, "object": object}).to_string();
            assert_eq!(event(line.as_bytes(), &secret()), expected, "{line}");
        }
    }

    #[test]
    fn a_list_has_a_version_and_at_most_that_secret() {
        let list = |items: serde_json::Value| {
            let body =
                json!({"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "12"}, "items": items});
            listed(body.to_string().as_bytes(), &secret()).map(|listed| (listed.version.number(), listed.found))
        };
        let item =
            |name: &str| json!({"metadata": {"namespace": "ns", "name": name, "uid": "u", "resourceVersion": "7"}});
        assert_eq!(list(json!(null)), Ok((12, None)));
        assert_eq!(list(json!([])), Ok((12, None)));
        assert_eq!(list(json!([item("s")])), Ok((12, Some(metadata(7)))));
        assert!(list(json!([item("t")])).is_err());
        assert!(listed(b"{}", &secret()).is_err());
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            lines in prop::collection::vec("[a-z]{0,12}", 0..8),
            cuts in prop::collection::vec(1_usize..7, 1..40),
        ) {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            let mut left = text.as_bytes();
            let mut cutter = Lines::new(12);
            let mut found = Vec::new();
            for cut in cuts.into_iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (chunk, rest) = left.split_at(cut.min(left.len()));
                left = rest;
                cutter.chunk = Bytes::copy_from_slice(chunk);
                while let Some(line) = cutter.next().expect("none is too long") {
                    found.push(String::from_utf8(line.to_vec()).expect("text"));
                }
            }
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn nothing_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = event(&line, &secret());
            let _ = listed(&line, &secret());
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let mut lines = Lines::new(10);
        lines.chunk = Bytes::from_static(b"0123456789");
        assert_eq!(lines.next(), Ok(None));
        lines.chunk = Bytes::from_static(b"0");
        assert_eq!(lines.next(), Err(Failure::TooLarge(10)));
    }
}
