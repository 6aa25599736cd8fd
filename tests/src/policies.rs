//! Policies for tests and benchmarks: made in numbers, looked at, and with faults in the operator's way.

pub mod faults;
pub mod ready_made;
pub mod rights;
pub mod struck;

use std::{cell::Cell, collections::BTreeSet, ops::Range, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectList, Patch, PatchParams,
        PostParams,
    },
};
use serde_json::{Value, json};
use testkit::eventually::{NotYet, try_eventually};

use crate::Failure;

/// Requests at a time.
const AT_A_TIME: usize = 16;

/// Deletions at a time: what is deleted "at once" should be gone before the operator has done much about it.
const DELETED_AT_A_TIME: usize = 64;

/// Objects of a page.
const PAGE: u32 = 500;

/// Selects what the operator has made.
const MADE: &str = "app.kubernetes.io/managed-by=leanserve";

/// The kinds that policies are made of.
#[derive(Clone, Debug)]
pub struct Policies {
    /// `InferencePolicyTemplates`.
    pub templates: Api<DynamicObject>,
    /// `InferencePolicies`.
    pub policies: Api<DynamicObject>,
    /// `ValidatingAdmissionPolicies`.
    pub admission: Api<DynamicObject>,
    /// `ValidatingAdmissionPolicyBindings`.
    pub bindings: Api<DynamicObject>,
}

/// A template that limits replicas, with one parameter.
#[must_use]
pub fn template(name: &str) -> Value {
    let expression = "!has(variables.p.maxReplicas) || variables.p.maxReplicas <= variables.params.maxReplicas";
    json!({
        "apiVersion": "leanserve.dev/v1alpha1",
        "kind": "InferencePolicyTemplate",
        "metadata": {"name": name},
        "spec": {
            "parameters": [{"name": "maxReplicas", "type": "integer", "required": true}],
            "variables": [{"name": "p", "expression": "object.spec.predictor"}],
            "validations": [{
                "expression": expression,
                "messageExpression": "'maxReplicas is more than ' + string(variables.params.maxReplicas)",
            }],
        },
    })
}

/// A policy of such a template.
#[must_use]
pub fn policy(name: &str, template: &str, max_replicas: u32) -> Value {
    json!({
        "apiVersion": "leanserve.dev/v1alpha1",
        "kind": "InferencePolicy",
        "metadata": {"name": name},
        "spec": {"templateRef": {"name": template}, "parameters": {"maxReplicas": max_replicas}},
    })
}

/// Status, reason and message of a condition.
#[must_use]
pub fn condition(object: &DynamicObject, type_: &str) -> Option<(String, String, String)> {
    let mut conditions = object.data["status"]["conditions"].as_array()?.iter();
    let condition = conditions.find(|condition| condition["type"] == type_)?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Whether a policy's status says of its present generation that it is in force.
#[must_use]
pub fn is_in_force(policy: &DynamicObject) -> bool {
    let observed = policy.data["status"]["observedGeneration"].as_i64();
    observed == policy.metadata.generation && condition(policy, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// How many of what is selected `counts`, page by page.
async fn count<K: Clone>(
    selected: ListParams,
    list: impl AsyncFn(ListParams) -> Result<ObjectList<K>, kube::Error>,
    counts: impl Fn(&K) -> bool,
) -> Result<usize, kube::Error> {
    let mut page = selected.limit(PAGE);
    let mut found = 0;
    loop {
        let listed = list(page.clone()).await?;
        found += listed.items.iter().filter(|object| counts(object)).count();
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

impl Policies {
    /// By this client.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        let api = |group, version, kind| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            Api::all_with(client.clone(), &resource)
        };
        let plural = |kind, plural| {
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
        };
        Self {
            templates: api("leanserve.dev", "v1alpha1", "InferencePolicyTemplate"),
            policies: api("leanserve.dev", "v1alpha1", "InferencePolicy"),
            admission: plural("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            bindings: plural("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        }
    }

    /// Makes or changes an object.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    ///
    /// # Panics
    ///
    /// When it has no name.
    pub async fn apply(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let api = match object["kind"].as_str() {
            Some("InferencePolicyTemplate") => &self.templates,
            _ => &self.policies,
        };
        let name = object["metadata"]["name"].as_str().expect("a name");
        let parameters = PatchParams::apply("test").force();
        api.patch(name, &parameters, &Patch::Apply(object)).await
    }

    /// Makes so many policies of a template, `p0000` and so on, with so many distinct parameters.
    ///
    /// # Errors
    ///
    /// When the API server refuses one.
    pub async fn create_many(&self, template: &str, count: usize, distinct: usize) -> Result<(), Failure> {
        self.create(template, 0..count, |number| number % distinct + 1).await
    }

    /// Makes the policies of a template with these numbers, `p0000` and so on; `most` says how many replicas each allows.
    ///
    /// # Errors
    ///
    /// When the API server refuses one.
    pub async fn create(
        &self,
        template: &str,
        numbers: Range<usize>,
        most: impl Fn(usize) -> usize,
    ) -> Result<(), Failure> {
        let create = async |number: usize| {
            let most = u32::try_from(most(number)).map_err(std::io::Error::other)?;
            self.create_one(template, number, most).await.map(drop)
        };
        stream::iter(numbers.map(create))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await
    }

    /// Makes the policy of a template with this number.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn create_one(&self, template: &str, number: usize, most: u32) -> Result<DynamicObject, Failure> {
        let object = serde_json::from_value(policy(&format!("p{number:04}"), template, most));
        let object: DynamicObject = object.map_err(std::io::Error::other)?;
        Ok(self.policies.create(&PostParams::default(), &object).await?)
    }

    /// How many policies say that they are in force, and how many there are.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn in_force(&self) -> Result<(usize, usize), kube::Error> {
        let all = Cell::new(0);
        let counts = |policy: &DynamicObject| {
            all.set(all.get() + 1);
            is_in_force(policy)
        };
        let in_force = count(
            ListParams::default(),
            async |page| self.policies.list(&page).await,
            counts,
        )
        .await?;
        Ok((in_force, all.get()))
    }

    /// How many bindings there are of policies that are there or were.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn bindings_of_policies(&self) -> Result<usize, kube::Error> {
        let selected = ListParams::default().labels("leanserve.dev/policy-uid");
        count(
            selected,
            async |page| self.bindings.list_metadata(&page).await,
            |_| true,
        )
        .await
    }

    /// Waits until so many policies, and these are all, say that they are in force.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn all_in_force(&self, count: usize, deadline: Duration) -> Result<(), NotYet> {
        try_eventually(&format!("{count} policies are in force"), deadline, async || match self
            .in_force()
            .await
            .map_err(|error| error.to_string())?
        {
            (enough, all) if enough == count && all == count => Ok(()),
            (some, all) => Err(format!("{some} of {all}")),
        })
        .await
    }

    /// Deletes all policies, many at a time: one request for thousands of them takes longer than the API server gives it.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn delete_all(&self) -> Result<(), Failure> {
        loop {
            let page = self.policies.list_metadata(&ListParams::default().limit(PAGE)).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            let deleted = stream::iter(page.items).map(|policy| async move {
                let name = policy.name_any();
                self.policies.delete(&name, &DeleteParams::default()).await.map(drop)
            });
            deleted.buffer_unordered(DELETED_AT_A_TIME).try_collect::<()>().await?;
        }
    }

    /// The names of bindings and admission policies of the operator's making whose owner is gone, and of admission policies
    /// that no binding refers to.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn left_behind(&self) -> Result<Vec<String>, kube::Error> {
        let made = ListParams::default().labels(MADE);
        // Children before parents: what is made meanwhile is no orphan.
        let (bindings, admission) = (self.bindings.list(&made).await?, self.admission.list(&made).await?);
        let mut alive = BTreeSet::new();
        for parents in [&self.policies, &self.templates] {
            alive.extend(
                parents
                    .list(&ListParams::default())
                    .await?
                    .iter()
                    .filter_map(ResourceExt::uid),
            );
        }
        let used: BTreeSet<&str> = bindings
            .iter()
            .filter_map(|binding| binding.data["spec"]["policyName"].as_str())
            .collect();
        let is_orphan = |object: &&DynamicObject| {
            let mut owners = object.owner_references().iter();
            !owners.any(|owner| alive.contains(&owner.uid))
        };
        let unused = admission
            .iter()
            .filter(|admission| !used.contains(admission.name_any().as_str()));
        let mut left: Vec<String> = bindings
            .iter()
            .chain(&admission.items)
            .filter(is_orphan)
            .chain(unused)
            .map(ResourceExt::name_any)
            .collect();
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }

    /// Waits until nothing is left behind.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn nothing_left_behind(&self, deadline: Duration) -> Result<(), NotYet> {
        try_eventually("nothing without an owner is left", deadline, async || {
            let left = self.left_behind().await.map_err(|error| error.to_string())?;
            match left.first() {
                None => Ok(()),
                Some(first) => Err(format!("{} are left, such as {first}", left.len())),
            }
        })
        .await
    }
}
