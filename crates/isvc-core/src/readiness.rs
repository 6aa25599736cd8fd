//! Whether a component serves, and if not, which Secret it may be waiting for.

use serde_json::Value;

use crate::{
    api::{ConditionStatus, Object},
    condition::Verdict,
    credential::CredentialFacts,
    named::name_of,
    observed::{LiveDeployment, Lookup, Observed},
    resolve::ResolvedComponent,
};

/// Readiness of a component, from the conditions of its Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness(pub Verdict);

impl Readiness {
    /// Whether it serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.status == ConditionStatus::True
    }
}

/// Reads the conditions Available, Progressing and `ReplicaFailure`; a Deployment that was just made has none.
#[must_use]
pub fn of(deployment: Option<&LiveDeployment>) -> Readiness {
    let conditions = deployment
        .map(|deployment| deployment.conditions.as_slice())
        .unwrap_or_default();
    let find = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let verdict = |status, condition: &crate::observed::DeploymentCondition| Verdict {
        status,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    };
    let mut result = Verdict {
        status: ConditionStatus::False,
        ..Verdict::default()
    };
    let available = find("Available");
    if let Some(condition) = available.filter(|condition| condition.status == "True") {
        result = verdict(ConditionStatus::True, condition);
    }
    if let Some(condition) = find("Progressing") {
        if condition.status == "False" && !condition.message.is_empty() {
            result = verdict(ConditionStatus::False, condition);
        } else if condition.status == "True" {
            if condition.reason == "NewReplicaSetAvailable" {
                result = verdict(ConditionStatus::True, condition);
            } else if result.status != ConditionStatus::True {
                result = verdict(ConditionStatus::Unknown, condition);
            }
        }
    }
    if let Some(condition) = available.filter(|condition| condition.status == "False") {
        result = verdict(ConditionStatus::False, condition);
    }
    if let Some(condition) = find("ReplicaFailure").filter(|condition| condition.status == "True") {
        result = verdict(ConditionStatus::False, condition);
    }
    Readiness(result)
}

/// A reference from an environment variable to a Secret that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecretReference<'a> {
    pub(crate) secret: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) variable: &'a str,
}

/// References of a container's `env` and `envFrom` that are not optional.
pub(crate) fn secret_references(container: &Object) -> impl Iterator<Item = SecretReference<'_>> {
    let list = |name: &str| container.get(name).and_then(Value::as_array).into_iter().flatten();
    let required = |reference: &&Value| reference.get("optional").and_then(Value::as_bool) != Some(true);
    let single = list("env").filter_map(move |variable| {
        let reference = variable.pointer("/valueFrom/secretKeyRef").filter(required)?;
        Some(SecretReference {
            secret: name_of(reference)?,
            key: Some(reference.get("key")?.as_str()?),
            variable: name_of(variable).unwrap_or_default(),
        })
    });
    let whole = list("envFrom").filter_map(move |source| {
        let reference = source.get("secretRef").filter(required)?;
        Some(SecretReference {
            secret: name_of(reference)?,
            key: None,
            variable: "",
        })
    });
    single.chain(whole).filter(|reference| !reference.secret.is_empty())
}

/// What refers to a Secret, for messages.
pub(crate) fn user_of(variable: &str, container: &str) -> String {
    match variable {
        "" => format!("envFrom of container {container}"),
        variable => format!("env {variable} of container {container}"),
    }
}

/// Why the Pods of an unready component cannot start, as far as Secrets go.
pub(crate) fn missing_secret(component: &ResolvedComponent, observed: &Observed) -> Option<Verdict> {
    let namespace = &observed.service.meta.namespace;
    let lists = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| component.pod.get(list)?.as_array());
    for container in lists.flatten().filter_map(Value::as_object) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        for reference in secret_references(container) {
            let SecretReference { secret, key, variable } = reference;
            let user = user_of(variable, name);
            let found = observed.by_name.secrets.get(secret);
            if let Some((reason, message)) = lacking(namespace, secret, key, &user, found) {
                return Some(Verdict::fails(reason, message));
            }
        }
    }
    None
}

/// What is missing of a Secret, or of a key in it, that `user` refers to: reason and message.
pub(crate) fn lacking(
    namespace: &str,
    secret: &str,
    key: Option<&str>,
    user: &str,
    found: Option<&Lookup<CredentialFacts>>,
) -> Option<(&'static str, String)> {
    match (found, key) {
        (Some(Lookup::Missing), key) => {
            let key = key.map(|key| format!(" with key {key}")).unwrap_or_default();
            Some((
                "SecretNotFound",
                format!("Secret {namespace}/{secret} not found ({user}); create it{key}"),
            ))
        }
        (Some(Lookup::Found(facts)), Some(key)) if !facts.keys.contains(key) => Some((
            "SecretKeyNotFound",
            format!("Secret {namespace}/{secret} has no key {key} ({user}); add it"),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::DeploymentCondition;

    #[track_caller]
    fn check(conditions: &[(&str, &str, &str)], status: ConditionStatus, reason: &str) {
        let conditions = conditions
            .iter()
            .map(|(type_, status, reason)| DeploymentCondition {
                type_: (*type_).into(),
                status: (*status).into(),
                reason: (*reason).into(),
                message: "m".into(),
            })
            .collect();
        let deployment = LiveDeployment {
            conditions,
            ..LiveDeployment::default()
        };
        let Readiness(verdict) = of(Some(&deployment));
        assert_eq!((verdict.status, verdict.reason.as_str()), (status, reason));
    }

    #[test]
    fn a_component_is_as_ready_as_its_deployment() {
        use ConditionStatus::{False, True, Unknown};
        check(&[], False, "");
        check(&[("Available", "True", "A")], True, "A");
        check(
            &[
                ("Available", "True", "A"),
                ("Progressing", "True", "NewReplicaSetAvailable"),
            ],
            True,
            "NewReplicaSetAvailable",
        );
        check(
            &[("Available", "True", "A"), ("Progressing", "True", "ReplicaSetUpdated")],
            True,
            "A",
        );
        check(
            &[("Progressing", "True", "ReplicaSetUpdated")],
            Unknown,
            "ReplicaSetUpdated",
        );
        check(
            &[
                ("Available", "False", "A"),
                ("Progressing", "True", "NewReplicaSetAvailable"),
            ],
            False,
            "A",
        );
        check(
            &[("Available", "True", "A"), ("Progressing", "False", "Deadline")],
            False,
            "Deadline",
        );
        check(
            &[("Available", "False", "A"), ("ReplicaFailure", "True", "FailedCreate")],
            False,
            "FailedCreate",
        );
    }
}
