//! Children: objects controlled by an `InferenceService`.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::LazyLock,
};

use isvc_core::{
    api::OwnerReference,
    compare::Proof,
    desired::ChildKind,
    names,
    observed::{DeploymentCondition, LiveDeployment, LiveObject, LiveRoute, RouteCondition},
};
use k8s_openapi::NamespaceResourceScope;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{Head, RawMeta, Stored, text_map};
use crate::key::ObjectKey;

/// A kind of child.
pub(crate) trait ChildType: Send + Sync + 'static {
    /// What decisions read of its status; `()` where they read nothing.
    type Status: DeserializeOwned + Clone + Default + PartialEq + Send + Sync;

    const KIND: ChildKind;
    const GROUP: &'static str;
    const VERSION: &'static str;
    const NAME: &'static str;
    const PLURAL: &'static str;
    /// Whether the kind comes from a CRD, so that a cluster may lack it.
    const CUSTOM: bool;
}

macro_rules! child_type {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $group:literal, $version:literal, $plural:literal, $status:ty, $custom:literal) => {
        $(#[$doc])*
        pub(crate) enum $name {}

        impl ChildType for $name {
            type Status = $status;

            const KIND: ChildKind = ChildKind::$kind;
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const NAME: &'static str = ChildKind::$kind.as_str();
            const PLURAL: &'static str = $plural;
            const CUSTOM: bool = $custom;
        }
    };
}

child_type!(
    /// core/v1 Services.
    Services, Service, "", "v1", "services", Nothing, false
);
child_type!(
    /// apps/v1 Deployments.
    Deployments, Deployment, "apps", "v1", "deployments", DeploymentStatus, false
);
child_type!(
    /// autoscaling/v2 `HorizontalPodAutoscalers`.
    Autoscalers, HorizontalPodAutoscaler, "autoscaling", "v2", "horizontalpodautoscalers", Nothing, false
);
child_type!(
    /// keda.sh/v1alpha1 `ScaledObjects`.
    ScaledObjects, ScaledObject, "keda.sh", "v1alpha1", "scaledobjects", Nothing, true
);
child_type!(
    /// networking.k8s.io/v1 Ingresses.
    Ingresses, Ingress, "networking.k8s.io", "v1", "ingresses", Nothing, false
);
child_type!(
    /// gateway.networking.k8s.io/v1 `HTTPRoutes`.
    HttpRoutes, HttpRoute, "gateway.networking.k8s.io", "v1", "httproutes", RouteStatus, true
);

/// A status nobody reads.
#[derive(Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Nothing {}

/// What a Deployment's controller says of it.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentStatus {
    observed_generation: i64,
    conditions: Vec<DeploymentCondition>,
}

/// What Gateways say of an `HTTPRoute`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(from = "RawRouteStatus")]
pub(crate) struct RouteStatus {
    has_parents: bool,
    refused: Option<RouteCondition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRouteStatus {
    parents: Option<Vec<RawParent>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawParent {
    conditions: Option<Vec<RawRouteCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRouteCondition {
    status: String,
    reason: String,
    message: String,
}

impl From<RawRouteStatus> for RouteStatus {
    fn from(raw: RawRouteStatus) -> Self {
        let parents = raw.parents.unwrap_or_default();
        Self {
            has_parents: !parents.is_empty(),
            refused: parents
                .into_iter()
                .flat_map(|parent| parent.conditions.unwrap_or_default())
                .find(|condition| condition.status == "False")
                .map(|condition| RouteCondition {
                    reason: condition.reason,
                    message: condition.message,
                }),
        }
    }
}

/// A child as it is kept.
pub(crate) struct StoredChild<K: ChildType> {
    head: Head,
    deleting: bool,
    /// The service it belongs to, if it belongs to one.
    owner: Option<ObjectKey>,
    /// Digest of `content` as it came, see [`KEYS`].
    facts: u64,
    content: Content,
    /// How many replicas it is to have, where that is what we applied.
    owned_replicas: Option<i32>,
    status: Option<Box<K::Status>>,
}

/// What a child holds.
///
/// That is most of what the operator would have to keep, and it is needed once: to find out whether the child is as it
/// should be. After that two digests are enough. A watch event with the same facts changes nothing; any other brings the
/// whole content again.
enum Content {
    /// To be compared by the next pass.
    Whole(Box<Whole>),
    /// It was as the desired object with this digest.
    Confirmed {
        /// Of the service that controls it.
        uid: Box<str>,
        desired: u64,
    },
}

#[derive(Hash)]
struct Whole {
    controller: Option<OwnerReference>,
    labels: Text,
    annotations: Text,
    spec: Text,
    /// The fields we own by server-side apply.
    owned: Text,
}

/// Of all digests of children. Nobody outside the process knows them, so nobody can look for a change that leaves a digest
/// as it is; by chance one change in 2^64 does.
pub(crate) static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// JSON that is parsed when it is needed.
struct Text(Option<Box<RawValue>>);

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_deref().map(RawValue::get).hash(state);
    }
}

impl Text {
    fn as_deref(&self) -> Option<&RawValue> {
        self.0.as_deref()
    }
}

#[derive(Deserialize)]
pub(crate) struct RawChild {
    metadata: RawMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl<K: ChildType> Stored for StoredChild<K> {
    type Raw = RawChild;
    type Scope = NamespaceResourceScope;

    const GROUP: &'static str = K::GROUP;
    const VERSION: &'static str = K::VERSION;
    const KIND: &'static str = K::NAME;
    const PLURAL: &'static str = K::PLURAL;
    const CUSTOM: bool = K::CUSTOM;

    fn from_raw(mut raw: RawChild) -> Self {
        let controller = raw
            .metadata
            .owner_references
            .take()
            .into_iter()
            .flatten()
            .find(|owner| owner.controller);
        let owner = controller
            .as_ref()
            .filter(|owner| is_inference_service(owner))
            .map(|owner| ObjectKey::new(&raw.metadata.namespace, &owner.name));
        let applied = raw.metadata.managed_fields.take().into_iter().flatten().find(|entry| {
            entry.manager == names::FIELD_MANAGER && entry.operation == "Apply" && entry.subresource.is_empty()
        });
        let status = raw
            .status
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .filter(|status| *status != K::Status::default())
            .map(Box::new);
        let whole = Whole {
            controller,
            annotations: Text(raw.metadata.take_annotations()),
            labels: Text(raw.metadata.labels.take()),
            spec: Text(raw.spec),
            owned: Text(applied.and_then(|entry| entry.fields_v1)),
        };
        Self {
            head: raw.metadata.head(),
            deleting: raw.metadata.deletion_timestamp.is_some(),
            owner,
            owned_replicas: whole.owned_replicas(),
            facts: KEYS.hash_one(&whole),
            content: Content::Whole(Box::new(whole)),
            status,
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn owner(&self) -> Option<&ObjectKey> {
        self.owner.as_ref()
    }

    fn concerns_us(&self) -> bool {
        self.owner.is_some()
    }

    fn same_facts(&self, other: &Self) -> bool {
        self.head.uid == other.head.uid
            && self.deleting == other.deleting
            && self.status == other.status
            && self.facts == other.facts
    }

    fn follow(&mut self, old: &Self) {
        if self.head.uid == old.head.uid
            && self.facts == old.facts
            && let Content::Confirmed { uid, desired } = &old.content
        {
            self.content = Content::Confirmed {
                uid: uid.clone(),
                desired: *desired,
            };
        }
    }
}

fn is_inference_service(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == names::INFERENCE_SERVICE_KIND && group == "serving.kserve.io"
}

impl<K: ChildType> StoredChild<K> {
    /// Whether its deletion was asked for.
    pub(crate) fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// The owner that controls it; none once it is confirmed, when it is a service.
    pub(crate) fn controller(&self) -> Option<&OwnerReference> {
        match &self.content {
            Content::Whole(whole) => whole.controller.as_ref(),
            Content::Confirmed { .. } => None,
        }
    }

    /// Identity of the owner that controls it.
    pub(crate) fn controller_uid(&self) -> Option<&str> {
        match &self.content {
            Content::Whole(whole) => whole.controller.as_ref().map(|owner| owner.uid.as_str()),
            Content::Confirmed { uid, .. } => Some(uid),
        }
    }

    /// The child as a decision reads it.
    pub(crate) fn live(&self) -> LiveObject {
        let live = LiveObject {
            name: self.head.key.name().to_owned(),
            uid: self.head.uid.to_string(),
            facts: self.facts,
            ..LiveObject::default()
        };
        match &self.content {
            Content::Whole(whole) => LiveObject {
                controller: whole.controller.clone(),
                labels: text_map(whole.labels.as_deref()),
                annotations: text_map(whole.annotations.as_deref()),
                spec: parse(whole.spec.as_deref()).unwrap_or(Value::Null),
                owned: parse(whole.owned.as_deref()),
                ..live
            },
            Content::Confirmed { uid, desired } => LiveObject {
                controller: Some(OwnerReference {
                    uid: uid.to_string(),
                    ..OwnerReference::default()
                }),
                confirmed: Some(*desired),
                ..live
            },
        }
    }

    /// The child without its content, if a pass has proved that with these facts it is as desired. `None` when it holds
    /// other facts by now, or nothing to leave out.
    pub(crate) fn confirmed(&self, proof: &Proof<'_>) -> Option<Self> {
        let uid = self.controller_uid()?.into();
        let is_whole = matches!(self.content, Content::Whole(_));
        (is_whole && self.facts == proof.facts).then(|| Self {
            owned_replicas: self.owned_replicas,
            head: self.head.clone(),
            deleting: self.deleting,
            owner: self.owner.clone(),
            facts: self.facts,
            content: Content::Confirmed {
                uid,
                desired: proof.desired,
            },
            status: self.status.clone(),
        })
    }
}

impl StoredChild<Deployments> {
    /// The Deployment as a decision reads it.
    pub(crate) fn live_deployment(&self) -> LiveDeployment {
        let status = self.status.as_deref();
        LiveDeployment {
            object: self.live(),
            observed_generation: status.map_or(0, |status| status.observed_generation),
            conditions: status.map(|status| status.conditions.clone()).unwrap_or_default(),
            owned_replicas: self.owned_replicas,
        }
    }
}

impl Whole {
    fn owned_replicas(&self) -> Option<i32> {
        /// As much of a specification as is needed.
        #[derive(Deserialize)]
        struct Scaled {
            replicas: Option<i32>,
        }
        let owned = self.owned.0.as_deref()?.get();
        if !owned.contains("\"f:replicas\"") {
            return None;
        }
        serde_json::from_str::<Scaled>(self.spec.0.as_deref()?.get())
            .ok()?
            .replicas
    }
}

impl StoredChild<HttpRoutes> {
    /// The route as a decision reads it.
    pub(crate) fn live_route(&self) -> LiveRoute {
        let status = self.status.as_deref();
        LiveRoute {
            object: self.live(),
            has_parents: status.is_some_and(|status| status.has_parents),
            refused: status.and_then(|status| status.refused.clone()),
        }
    }
}

fn parse(raw: Option<&RawValue>) -> Option<Value> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::stored::Wire;

    /// A child as the API server would send it.
    pub(crate) fn stored<K: ChildType>(value: &Value) -> Arc<StoredChild<K>> {
        serde_json::from_str::<Wire<StoredChild<K>>>(&value.to_string())
            .expect("a child")
            .object
    }

    /// A child controlled by the service `owner`.
    pub(crate) fn owned_by(owner: &str, name: &str, version: &str) -> Value {
        json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": version,
                "ownerReferences": [{
                    "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": owner,
                    "uid": format!("uid-{owner}"), "controller": true,
                }],
            },
            "spec": {"replicas": 1},
        })
    }

    #[test]
    fn only_what_an_inference_service_controls_concerns_us() {
        let mut value = owned_by("a", "a-predictor", "1");
        assert!(stored::<Ingresses>(&value).concerns_us());
        assert_eq!(stored::<Ingresses>(&value).owner(), Some(&ObjectKey::new("ns", "a")));
        value["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        assert!(!stored::<Ingresses>(&value).concerns_us());
        value["metadata"]["ownerReferences"][0]["controller"] = json!(true);
        value["metadata"]["ownerReferences"][0]["apiVersion"] = json!("example.com/v1beta1");
        assert!(
            !stored::<Ingresses>(&value).concerns_us(),
            "another group's InferenceService"
        );
        value["metadata"]["ownerReferences"] = json!([]);
        assert!(!stored::<Ingresses>(&value).concerns_us());
    }

    #[test]
    fn only_our_own_apply_entry_is_kept() {
        let mut value = owned_by("a", "a-predictor", "1");
        value["metadata"]["managedFields"] = json!([
            {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:kubectl": {}}},
            {"manager": "leanserve", "operation": "Update", "fieldsV1": {"f:update": {}}},
            {"manager": "leanserve", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
            {"manager": "leanserve", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let live = stored::<Deployments>(&value).live();
        assert_eq!(live.owned, Some(json!({"f:spec": {"f:replicas": {}}})));
        assert_eq!(live.spec, json!({"replicas": 1}));
    }

    #[test]
    fn a_deployments_status_counts_and_an_autoscalers_does_not() {
        let mut value = owned_by("a", "a-predictor", "1");
        value["status"] = json!({
            "observedGeneration": 2, "replicas": 1,
            "conditions": [{"type": "Available", "status": "True", "reason": "r", "message": "m", "lastUpdateTime": "t"}],
        });
        let mut later = value.clone();
        later["status"]["conditions"][0]["status"] = json!("False");
        let deployment = stored::<Deployments>(&value);
        assert!(!deployment.same_facts(&stored(&later)));
        assert_eq!(deployment.live_deployment().observed_generation, 2);
        assert_eq!(deployment.live_deployment().conditions[0].type_, "Available");
        assert!(stored::<Autoscalers>(&value).same_facts(&stored(&later)));
        later = value.clone();
        later["metadata"]["resourceVersion"] = json!("2");
        later["status"]["conditions"][0]["lastUpdateTime"] = json!("u");
        assert!(deployment.same_facts(&stored(&later)));
    }

    #[test]
    fn a_route_is_refused_by_the_first_condition_that_is_false() {
        let mut value = owned_by("a", "a", "1");
        let route = |value: &Value| stored::<HttpRoutes>(value).live_route();
        assert!(!route(&value).has_parents);
        value["status"] = json!({"parents": null});
        assert!(!route(&value).has_parents);
        value["status"] = json!({"parents": [
            {"parentRef": {"name": "g"}, "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}]},
            {"conditions": [{"type": "ResolvedRefs", "status": "False", "reason": "RefNotPermitted", "message": "no"}]},
        ]});
        let refused = route(&value);
        assert!(refused.has_parents);
        let said = refused.refused.map(|condition| (condition.reason, condition.message));
        assert_eq!(said, Some(("RefNotPermitted".to_owned(), "no".to_owned())));
        let mut later = value.clone();
        later["status"]["parents"][1]["conditions"][0]["status"] = json!("True");
        assert!(!stored::<HttpRoutes>(&value).same_facts(&stored(&later)));
        assert_eq!(route(&later).refused, None);
    }

    #[test]
    fn a_confirmed_child_keeps_digests_until_its_facts_change() {
        let mut value = owned_by("a", "a-predictor", "1");
        value["metadata"]["labels"] = json!({"l": "1"});
        let whole = stored::<Deployments>(&value);
        let proof = |child: &StoredChild<Deployments>| Proof {
            name: "a-predictor",
            facts: child.live().facts,
            desired: 5,
        };
        let confirmed = whole.confirmed(&proof(&whole)).expect("it was whole");
        let live = confirmed.live();
        assert_eq!((live.confirmed, live.spec.is_null()), (Some(5), true));
        assert_eq!(live.controller.map(|owner| owner.uid).as_deref(), Some("uid-a"));
        assert!(confirmed.same_facts(&whole));
        assert!(
            confirmed.confirmed(&proof(&whole)).is_none(),
            "there is nothing to leave out"
        );

        let next = |value: &Value| {
            let mut next = Arc::into_inner(stored::<Deployments>(value)).expect("nobody else has it");
            next.follow(&confirmed);
            next
        };
        value["metadata"]["resourceVersion"] = json!("2");
        value["status"] = json!({"observedGeneration": 1});
        assert_eq!(next(&value).live().confirmed, Some(5), "only the status is new");
        assert_eq!(next(&value).live_deployment().observed_generation, 1);
        for (field, change) in [
            ("labels", json!({"l": "2"})),
            ("annotations", json!({"x": "y"})),
            ("uid", json!("other")),
        ] {
            let mut changed = value.clone();
            changed["metadata"][field] = change;
            assert_eq!(next(&changed).live().confirmed, None, "{field}");
            assert_eq!(next(&changed).live().spec, json!({"replicas": 1}), "{field}");
        }
        value["spec"]["replicas"] = json!(2);
        let edited = next(&value);
        assert_eq!(edited.live().confirmed, None);
        assert!(
            edited.confirmed(&proof(&whole)).is_none(),
            "the proof is about other facts"
        );
    }
}
