//! Names, labels and kinds of policies and of what they compile to.

use sha2::{Digest, Sha256};

/// The field manager of the policy controller.
pub const FIELD_MANAGER: &str = crate::names::FIELD_MANAGER;
/// The field manager of the auditor.
pub const AUDIT_FIELD_MANAGER: &str = "leanserve-audit";

/// The group of our own kinds.
pub const GROUP: &str = "leanserve.dev";
/// The version of our own kinds.
pub const VERSION: &str = "v1alpha1";
/// Group and version of our own kinds.
pub const API_VERSION: &str = "leanserve.dev/v1alpha1";
/// Kind of a template.
pub const TEMPLATE_KIND: &str = "InferencePolicyTemplate";
/// Resource of templates.
pub const TEMPLATE_RESOURCE: &str = "inferencepolicytemplates";
/// Kind of a policy.
pub const POLICY_KIND: &str = "InferencePolicy";
/// Resource of policies.
pub const POLICY_RESOURCE: &str = "inferencepolicies";

/// Group of what policies compile to.
pub const ADMISSION_GROUP: &str = "admissionregistration.k8s.io";
/// Version of what policies compile to.
pub const ADMISSION_VERSION: &str = "v1";
/// Group and version of what policies compile to.
pub const ADMISSION_API_VERSION: &str = "admissionregistration.k8s.io/v1";
/// Kind of the object with the rules.
pub const ADMISSION_POLICY_KIND: &str = "ValidatingAdmissionPolicy";
/// Resource of the objects with the rules.
pub const ADMISSION_POLICY_RESOURCE: &str = "validatingadmissionpolicies";
/// Kind of the object that puts rules in force.
pub const BINDING_KIND: &str = "ValidatingAdmissionPolicyBinding";
/// Resource of the objects that put rules in force.
pub const BINDING_RESOURCE: &str = "validatingadmissionpolicybindings";

/// Label: who made the object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`] on what policies compile to.
pub const MANAGED_BY: &str = "leanserve";
/// Label on admission policies and bindings: the uid of the template.
pub const LABEL_TEMPLATE_UID: &str = "leanserve.dev/template-uid";
/// Label on bindings: the uid of the policy.
pub const LABEL_POLICY_UID: &str = "leanserve.dev/policy-uid";
/// Label on admission policies and bindings: the hash of what was compiled.
pub const LABEL_POLICY_HASH: &str = "leanserve.dev/policy-hash";
/// Label on bindings: `enforce` or `audit`.
pub const LABEL_BINDING: &str = "leanserve.dev/binding";
/// Value of [`LABEL_BINDING`] on the binding that enforces.
pub const BINDING_ENFORCE: &str = "enforce";
/// Value of [`LABEL_BINDING`] on the binding that only warns the auditor.
pub const BINDING_AUDIT: &str = "audit";
/// Annotation on admission policies: the name of the template, for people.
pub const ANNOTATION_TEMPLATE: &str = "leanserve.dev/template";
/// Annotation on bindings: the generation of the policy they were made from.
pub const ANNOTATION_POLICY_GENERATION: &str = "leanserve.dev/policy-generation";

/// Label that the auditor adds to a service in a dry run. It is never stored.
///
/// Its value says which policies answer: [`AUDIT_ALL`] all of them, and a start of [`audit_shard`] those whose shard starts
/// with it. So a service that breaks more policies than fit into one answer is asked about in parts.
pub const LABEL_AUDIT: &str = "leanserve.dev/audit";
/// The value of [`LABEL_AUDIT`] that every audit binding selects.
pub const AUDIT_ALL: &str = "all";
/// Digits of a shard.
pub const AUDIT_SHARD_DIGITS: usize = 3;

/// The longest name of a policy that is part of a binding's name as it is.
const WHOLE: usize = 100;
/// What is kept of a longer one, before its hash.
const KEPT: usize = 80;

/// Digits of a hash: 80 bits, so that different content shares a name never in practice.
pub(super) const HASH_DIGITS: usize = 20;

/// Name of the admission policy with this hash.
#[must_use]
pub fn admission_policy(hash: &str) -> String {
    format!("leanserve-{hash}")
}

/// Name of the binding that enforces the policy of this name.
#[must_use]
pub fn binding(policy: &str) -> String {
    bounded("leanserve-policy-", policy)
}

/// Name of the binding that warns the auditor about the policy of this name.
#[must_use]
pub fn audit_binding(policy: &str) -> String {
    bounded("leanserve-audit-", policy)
}

/// The shard of an audit binding: hexadecimal digits that follow from its name.
#[must_use]
pub fn audit_shard(binding: &str) -> String {
    let mut hash = digest(binding.as_bytes());
    hash.truncate(AUDIT_SHARD_DIGITS);
    hash
}

/// Whether the names of a policy's bindings have its whole name in them, and so come in the order of policies.
#[must_use]
pub fn is_whole(policy: &str) -> bool {
    policy.len() <= WHOLE
}

/// Different policies get different names: with a hash the name is longer than any without.
fn bounded(prefix: &str, policy: &str) -> String {
    if is_whole(policy) {
        return format!("{prefix}{policy}");
    }
    let kept: String = policy.chars().take(KEPT).collect();
    format!("{prefix}{kept}-{}", digest(policy.as_bytes()))
}

/// The hash of some content, in lower-case hexadecimal digits.
pub(super) fn digest(content: &[u8]) -> String {
    let mut text = String::with_capacity(HASH_DIGITS);
    for byte in Sha256::digest(content).iter().take(HASH_DIGITS / 2) {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are one digit"));
        }
    }
    text
}
