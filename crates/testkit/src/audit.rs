//! The API server's own record of what was asked of it.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    ops::Deref,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

use crate::{ControlPlane, Error, try_eventually};

const DEADLINE: Duration = Duration::from_secs(30);
const MARKER: &str = "testkit-audit-mark-";

/// The audit log of a control plane that the test kit started.
#[derive(Debug)]
pub struct AuditLog<'a> {
    plane: &'a ControlPlane,
    path: PathBuf,
}

/// A moment in the log.
#[derive(Clone, Debug)]
pub struct Mark {
    offset: u64,
    /// When the server received the marking request.
    time: String,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The server's id of the request.
    pub id: String,
    /// When the server received it, RFC 3339 with microseconds.
    pub received: String,
    /// The user, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The Pod whose account it is; empty for accounts outside of Pods.
    pub pod: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or for requests about no
    /// resource the method in lower case.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// The API group; empty for core, and for requests about no resource.
    pub group: String,
    /// The resource's plural name; empty for requests about no resource.
    pub resource: String,
    /// Such as `status`; empty when there is none.
    pub subresource: String,
    /// The namespace; empty when there is none.
    pub namespace: String,
    /// The object's name; empty when there is none (lists, and creations as of the request).
    pub name: String,
    /// The HTTP status; 0 while a watch is open.
    pub code: u16,
}

impl AuditEntry {
    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }
}

impl fmt::Display for AuditEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}",
            self.received, self.user, self.verb, self.uri, self.code
        )
    }
}

impl<'a> AuditLog<'a> {
    /// The log at `path`, which the API server of `plane` writes.
    #[must_use]
    pub fn new(plane: &'a ControlPlane, path: PathBuf) -> Self {
        Self { plane, path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Marks this moment: every request whose answer is complete is before it.
    ///
    /// # Errors
    ///
    /// When the API server does not answer, or the log does not show it in time.
    pub async fn mark(&self) -> Result<Mark, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let start = File::open(&self.path)
            .and_then(|file| file.metadata())
            .map_err(Error::io("reading the audit log"))?
            .len();
        // Unique among the test processes that share a control plane, too.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{MARKER}{}-{number}", std::process::id());
        let config_maps: kube::Api<ConfigMap> = kube::Api::namespaced(self.plane.client().await?, "default");
        match config_maps.get(&marker).await {
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => {}
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let path = self.path.clone();
        let mark = try_eventually("the mark in the audit log", DEADLINE, async || {
            let (path, marker) = (path.clone(), marker.clone());
            tokio::task::spawn_blocking(move || {
                let mut found = None;
                read(&path, start, &mut |event, offset| {
                    if event.entry.name == marker {
                        found = Some(Mark {
                            offset,
                            time: event.entry.received,
                        });
                    }
                })
                .map_err(|error| error.to_string())?;
                found.ok_or_else(|| "a log without it".to_owned())
            })
            .await
            .map_err(|error| error.to_string())?
        })
        .await?;
        Ok(mark)
    }

    /// Every request received after the mark and answered by now, and every watch opened since, once each; without those
    /// that the test kit makes to mark the log.
    ///
    /// # Errors
    ///
    /// As [`mark`](Self::mark), and when the log cannot be read.
    pub async fn since(&self, mark: &Mark) -> Result<AuditEntries, Error> {
        self.mark().await?;
        let (path, mark) = (self.path.clone(), mark.clone());
        let entries = tokio::task::spawn_blocking(move || {
            let mut entries = Vec::new();
            let mut known = std::collections::HashSet::new();
            read(&path, mark.offset, &mut |event, _| {
                // A request from before the mark may end after it. The time's format sorts as text.
                let fresh = event.entry.received > mark.time;
                if fresh && !event.entry.name.starts_with(MARKER) && known.insert(event.entry.id.clone()) {
                    entries.push(event.entry);
                }
            })
            .map(|()| entries)
        })
        .await;
        let entries = entries.map_err(std::io::Error::other).and_then(|entries| entries);
        entries.map(AuditEntries).map_err(Error::io("reading the audit log"))
    }

    /// Every request since the start of the control plane.
    ///
    /// # Errors
    ///
    /// As [`since`](Self::since).
    pub async fn all(&self) -> Result<AuditEntries, Error> {
        self.since(&Mark {
            offset: 0,
            time: String::new(),
        })
        .await
    }
}

/// Requests, with filters that chain.
#[derive(Clone, Debug, Default)]
pub struct AuditEntries(Vec<AuditEntry>);

impl AuditEntries {
    /// Those that `keep` says.
    #[must_use]
    pub fn filtered(mut self, keep: impl FnMut(&AuditEntry) -> bool) -> Self {
        self.0.retain(keep);
        self
    }

    /// Those of a user.
    #[must_use]
    pub fn by_user(self, user: &str) -> Self {
        self.filtered(|entry| entry.user == user)
    }

    /// Those of a `ServiceAccount`.
    #[must_use]
    pub fn by_service_account(self, namespace: &str, name: &str) -> Self {
        self.by_user(&format!("system:serviceaccount:{namespace}:{name}"))
    }

    /// Those with a verb.
    #[must_use]
    pub fn with_verb(self, verb: &str) -> Self {
        self.filtered(|entry| entry.verb == verb)
    }

    /// Those about a resource, by its plural name.
    #[must_use]
    pub fn on_resource(self, resource: &str) -> Self {
        self.filtered(|entry| entry.resource == resource)
    }

    /// Those in a namespace.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        self.filtered(|entry| entry.namespace == namespace)
    }

    /// Those about objects of a name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.filtered(|entry| entry.name == name)
    }

    /// Those that ask for a change.
    #[must_use]
    pub fn writes(self) -> Self {
        self.filtered(AuditEntry::is_write)
    }

    /// Those that ask for no change.
    #[must_use]
    pub fn reads(self) -> Self {
        self.filtered(|entry| !entry.is_write())
    }

    /// Those that count as work of a pass: no Lease, no Event, and only requests about resources.
    #[must_use]
    pub fn without_leases_and_events(self) -> Self {
        self.filtered(|entry| !["", "leases", "events"].contains(&entry.resource.as_str()))
    }
}

impl Deref for AuditEntries {
    type Target = [AuditEntry];

    fn deref(&self) -> &[AuditEntry] {
        &self.0
    }
}

/// One line an entry, for the message of an assertion.
impl fmt::Display for AuditEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} requests", self.0.len())?;
        self.0.iter().try_for_each(|entry| writeln!(f, "  {entry}"))
    }
}

/// A line of the log, as the audit.k8s.io/v1 Event it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    audit_id: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// Where the API server notes the Pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    subresource: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

struct Event {
    entry: AuditEntry,
}

impl From<Line> for Event {
    fn from(line: Line) -> Self {
        Self {
            entry: AuditEntry {
                id: line.audit_id,
                received: line.request_received_timestamp,
                pod: line
                    .user
                    .extra
                    .get(POD_NAME)
                    .and_then(|names| names.first().cloned())
                    .unwrap_or_default(),
                user: line.user.username,
                user_agent: line.user_agent,
                verb: line.verb,
                uri: line.request_uri,
                group: line.object_ref.api_group,
                resource: line.object_ref.resource,
                subresource: line.object_ref.subresource,
                namespace: line.object_ref.namespace,
                name: line.object_ref.name,
                code: line.response_status.code,
            },
        }
    }
}

/// Gives every whole line from `offset` on, with the offset after it.
fn read(path: &Path, offset: u64, each: &mut dyn FnMut(Event, u64)) -> std::io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut offset = file.seek(SeekFrom::Start(offset))?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            // The end, or a line that is being written.
            return Ok(());
        }
        offset += length as u64;
        let event: Line = serde_json::from_slice(&line)?;
        each(event.into(), offset);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{AuditEntries, read};

    #[test]
    fn lines_are_read_whole_and_filtered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let lines = [
            r#"{"kind":"Event","auditID":"1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets/x","verb":"get","user":{"username":"system:serviceaccount:a:op","groups":["g"]},"objectRef":{"resource":"secrets","namespace":"a","name":"x","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2024-01-01T00:00:00.000001Z","annotations":{"x":"y"}}"#,
            r#"{"auditID":"2","requestURI":"/readyz","verb":"get","user":{"username":"admin"},"userAgent":"kubectl","requestReceivedTimestamp":"2024-01-01T00:00:00.000002Z"}"#,
            r#"{"auditID":"3","requestURI":"/apis/apps/v1/namespaces/a/deployments/d","verb":"patch","user":{"username":"system:serviceaccount:a:op"},"objectRef":{"resource":"deployments","apiGroup":"apps","namespace":"a","name":"d"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2024-01-01T00:00:00.000003Z"}"#,
        ];
        fs::write(&path, format!("{}\n{{\"auditID\":\"half", lines.join("\n"))).unwrap();
        let mut entries = Vec::new();
        let mut offsets = Vec::new();
        read(&path, 0, &mut |event, offset| {
            entries.push(event.entry);
            offsets.push(offset);
        })
        .unwrap();
        let entries = AuditEntries(entries);
        assert_eq!(entries.len(), 3);
        let of = |entries: AuditEntries| entries.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>();
        assert_eq!(of(entries.clone().by_service_account("a", "op")), ["1", "3"]);
        assert_eq!(of(entries.clone().writes()), ["3"]);
        assert_eq!(of(entries.clone().reads().without_leases_and_events()), ["1"]);
        assert_eq!(
            of(entries
                .clone()
                .on_resource("secrets")
                .with_verb("get")
                .in_namespace("a")
                .named("x")),
            ["1"]
        );
        assert_eq!((entries[2].group.as_str(), entries[1].code), ("apps", 0));

        let mut rest = Vec::new();
        read(&path, offsets[1], &mut |event, _| rest.push(event.entry.id)).unwrap();
        assert_eq!(rest, ["3"]);
    }
}
