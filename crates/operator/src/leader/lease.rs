//! The Lease: what is in it, and the requests for it.

use std::time::Duration;

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::ObjectReference},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Client, Resource,
    api::{GetParams, Patch, PatchParams, PostParams, Request},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::election::Record;
use crate::{
    apply::ONLY_CREATE,
    error::{Fault, FaultKind},
};

/// Name of the Lease, in the operator's namespace.
pub(crate) const LEASE: &str = "leanserve-controller";

/// Marks a request as one that the fence lets through: those for the Lease itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfenced;

/// Sends requests for the Lease, past the fence.
pub(super) struct Leases {
    client: Client,
    namespace: String,
    /// Of each request.
    deadline: Duration,
}

impl Leases {
    /// Requests for the Lease of this namespace.
    pub(super) fn new(client: Client, namespace: &str, deadline: Duration) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            deadline,
        }
    }

    /// The Lease as it is now; none where there is none.
    pub(super) async fn read(&self) -> Result<Option<Lease>, Fault> {
        let request = self.requests().get(LEASE, &GetParams::default());
        match self.send(request).await {
            Ok(lease) => Ok(Some(lease)),
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Makes the Lease, unless there is one. By apply, because that asks for the right to create with the object's name.
    pub(super) async fn create(&self, mut lease: Lease) -> Result<Lease, Fault> {
        lease.metadata.name = Some(LEASE.to_owned());
        lease.metadata.namespace = Some(self.namespace.clone());
        lease.metadata.resource_version = Some(ONLY_CREATE.to_owned());
        let parameters = PatchParams::apply(isvc_core::names::FIELD_MANAGER);
        let request = self.requests().patch(LEASE, &parameters, &Patch::Apply(&lease));
        self.send(request).await
    }

    /// Writes the Lease, unless it has changed since it was read.
    pub(super) async fn replace(&self, lease: &Lease) -> Result<Lease, Fault> {
        let parameters = PostParams {
            field_manager: Some(isvc_core::names::FIELD_MANAGER.to_owned()),
            dry_run: false,
        };
        let body = serde_json::to_vec(lease).map_err(kube::Error::SerdeError)?;
        self.send(self.requests().replace(LEASE, &parameters, body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Fault> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert(Unfenced);
        match timeout(self.deadline, self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Fault::timeout()),
        }
    }

    fn requests(&self) -> Request {
        Request::new(Lease::url_path(&(), Some(&self.namespace)))
    }
}

/// The Lease, for Events.
pub(crate) fn reference(namespace: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(Lease::api_version(&()).into_owned()),
        kind: Some(Lease::kind(&()).into_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(LEASE.to_owned()),
        ..ObjectReference::default()
    }
}

/// What a Lease says of its holder.
pub(super) fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity,
        duration: seconds.map(Duration::from_secs),
    }
}

/// Writes into a Lease that it is held from now on for this long, and that its holder is another one if it is `taken`.
pub(super) fn renew(lease: &mut Lease, identity: &str, lease_duration: Duration, taken: bool) {
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_default();
    if taken {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(lease_duration.as_secs()).ok();
    spec.renew_time = Some(now);
}
