//! The kinds that policies are made of, and as much of their objects as lists and watches are read for.

use isvc_core::policy::names;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A cluster-scoped kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InferencePolicy,
    InferencePolicyTemplate,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::InferencePolicy,
        Self::InferencePolicyTemplate,
        Self::ValidatingAdmissionPolicy,
        Self::ValidatingAdmissionPolicyBinding,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InferencePolicy => names::POLICY_KIND,
            Self::InferencePolicyTemplate => names::TEMPLATE_KIND,
            Self::ValidatingAdmissionPolicy => names::ADMISSION_POLICY_KIND,
            Self::ValidatingAdmissionPolicyBinding => names::BINDING_KIND,
        }
    }

    pub(crate) const fn api_version(self) -> &'static str {
        match self {
            Self::InferencePolicy | Self::InferencePolicyTemplate => names::API_VERSION,
            Self::ValidatingAdmissionPolicy | Self::ValidatingAdmissionPolicyBinding => names::ADMISSION_API_VERSION,
        }
    }

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::InferencePolicy => "/apis/leanserve.dev/v1alpha1/inferencepolicies",
            Self::InferencePolicyTemplate => "/apis/leanserve.dev/v1alpha1/inferencepolicytemplates",
            Self::ValidatingAdmissionPolicy => "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            Self::ValidatingAdmissionPolicyBinding => {
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
            }
        }
    }
}

/// A list's answer, or a part of it.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Page<T> {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    #[serde(default = "Vec::new", deserialize_with = "or_none")]
    pub(super) items: Vec<T>,
}

/// A list of metadata that is empty has `null` for its items.
fn or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Where a list goes on.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    #[serde(rename = "continue")]
    pub(super) token: String,
    pub(super) resource_version: String,
}

/// An object of which nothing but metadata is read.
///
/// Everything is optional: an object that lacks something must not stop a list or blind a watch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Child {
    pub(super) metadata: Meta,
}

/// A binding, of which nothing is read but what it refers to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Binding {
    pub(super) spec: BindingSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BindingSpec {
    pub(super) policy_name: Box<str>,
}

/// Metadata, as far as anything here needs it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
    pub(super) resource_version: Box<str>,
    pub(super) generation: i64,
    pub(super) deletion_timestamp: Option<Box<str>>,
    pub(super) creation_timestamp: Option<Box<str>>,
    pub(super) owner_references: Vec<Owner>,
    pub(super) labels: Labels,
}

/// Our labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Labels {
    #[serde(rename = "leanserve.dev/template-uid")]
    pub(super) template_uid: Box<str>,
    #[serde(rename = "leanserve.dev/policy-uid")]
    pub(super) policy_uid: Box<str>,
    #[serde(rename = "leanserve.dev/policy-hash")]
    pub(super) hash: Box<str>,
}

/// Whom an object belongs to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: Box<str>,
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
}

impl Meta {
    /// Whether its deletion was accepted already, and somebody's finalizer holds it.
    pub(super) fn is_being_deleted(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The owner of this kind.
    pub(super) fn owner(&self, kind: Kind) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| &*owner.kind == kind.as_str())
    }
}

/// As much of an `InferencePolicy` or `InferencePolicyTemplate` as says whether it needs a pass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parent {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "lenient")]
    pub(super) spec: ParentSpec,
    #[serde(deserialize_with = "lenient")]
    pub(super) status: ParentStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ParentSpec {
    pub(super) template_ref: TemplateRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TemplateRef {
    pub(super) name: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ParentStatus {
    pub(super) observed_generation: i64,
    pub(super) admission_policy: Box<str>,
    pub(super) conditions: Vec<Told>,
}

/// A condition's type and status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    #[serde(rename = "type")]
    pub(super) type_: Box<str>,
    pub(super) status: Box<str>,
}

/// What is not as it should be counts as not there: who the object is must be known in any case, or what belongs to it
/// would seem to belong to nobody.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

impl Parent {
    /// Whether its status is about its present specification.
    pub(super) fn is_observed(&self) -> bool {
        self.status.observed_generation == self.metadata.generation
    }

    /// Whether a policy is enforced as it is written by the admission policy with this hash, or was until somebody else changed
    /// something.
    pub(super) fn is_enforced_by(&self, hash: &str) -> bool {
        *self.status.admission_policy == *names::admission_policy(hash) && self.is_observed()
    }

    /// Whether a condition is `True`.
    pub(super) fn holds(&self, condition: &str) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|told| &*told.type_ == condition && &*told.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_metadata_is_read() {
        let page: Page<Child> =
            serde_json::from_str(r#"{"metadata":{"resourceVersion":"1"},"items":null}"#).expect("a list");
        assert!(page.items.is_empty() && page.metadata.token.is_empty());
        assert_eq!(page.metadata.resource_version, "1");
    }

    #[test]
    fn metadata_is_read_leniently() {
        let child: Child = serde_json::from_str(r#"{"kind":"PartialObjectMetadata","metadata":{"name":"a","x":1}}"#)
            .expect("nothing is required");
        assert_eq!(&*child.metadata.name, "a");
        assert_eq!(child.metadata.owner(Kind::InferencePolicy), None);
        let parent: Parent = serde_json::from_str(
            r#"{"metadata":{"generation":2},"status":{"observedGeneration":2,"conditions":[{"type":"Ready","status":"True"}]}}"#,
        )
        .expect("a policy");
        assert!(parent.is_observed() && parent.holds("Ready") && !parent.holds("Contested"));
        let odd = r#"{"metadata":{"name":"odd"},"spec":{"templateRef":"a"},"status":{"conditions":{}}}"#;
        let odd: Parent = serde_json::from_str(odd).expect("its name is all that is needed");
        assert_eq!(&*odd.metadata.name, "odd");
        let bare: Parent = serde_json::from_str("{}").expect("nothing is required");
        assert!(!bare.holds("Ready"));
    }
}
