//! The policies a run is about, and what it found, written into their status.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
};

use http::{Request, StatusCode, header};
use isvc_core::policy::{
    names,
    status::{self, AuditResult, READY},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    answer::{ListMetadata, Status},
    findings::Findings,
    requests::{Fault, Requests},
};
use crate::report::now;

/// Reads policies page by page, and keeps none.
pub(super) struct Policies {
    page_size: u32,
    hasher: RandomState,
}

/// Which policies were in force, each as a hash of what makes its verdicts what they are: eight bytes a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InForce(HashSet<u64>);

impl InForce {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
struct Page {
    metadata: ListMetadata,
    // Not by default empty: what is no list must not look like the end of one.
    items: Vec<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: PolicyStatus,
}

#[derive(Deserialize, Hash)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    generation: i64,
}

#[derive(Default, Deserialize)]
struct Spec {
    audit: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyStatus {
    observed_generation: i64,
    admission_policy: String,
    audit_binding: String,
    conditions: Vec<Condition>,
    audit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(rename = "lastTransitionTime", default)]
    since: String,
}

impl Policy {
    fn is_audited(&self) -> bool {
        self.spec.audit.unwrap_or(true) && !self.status.audit_binding.is_empty()
    }

    fn is_in_force(&self) -> bool {
        self.status.observed_generation == self.metadata.generation && self.in_force_since().is_some()
    }

    /// Moves when the rules changed and came back, too.
    fn in_force_since(&self) -> Option<&str> {
        let ready = |condition: &&Condition| condition.type_ == READY && condition.status == "True";
        let ready = self.status.conditions.iter().find(ready);
        ready.map(|condition| condition.since.as_str())
    }
}

impl Policies {
    pub(super) fn new(page_size: u32) -> Self {
        Self {
            page_size,
            hasher: RandomState::new(),
        }
    }

    /// What is in force now, of the policies that are audited.
    pub(super) async fn in_force(&self, requests: &mut Requests) -> Result<InForce, Fault> {
        let mut in_force = InForce::default();
        let mut token = None;
        while let Some(page) = self.page(requests, &mut token).await? {
            let those = page.iter().filter(|policy| policy.is_audited() && policy.is_in_force());
            in_force.0.extend(those.map(|policy| self.mark(policy)));
        }
        Ok(in_force)
    }

    /// Changes with everything that decides about verdicts.
    fn mark(&self, policy: &Policy) -> u64 {
        let status = &policy.status;
        let rules = (&status.admission_policy, &status.audit_binding);
        self.hasher.hash_one((&policy.metadata, rules, policy.in_force_since()))
    }

    /// Writes what was found into the status of every policy. `incomplete` says why the run was not complete.
    pub(super) async fn report(
        &self,
        requests: &mut Requests,
        in_force: &InForce,
        findings: &Findings,
        incomplete: Option<&str>,
    ) -> Result<(), String> {
        let mut token = None;
        let mut failed = None;
        loop {
            let page = self.page(requests, &mut token).await;
            let Some(page) = page.map_err(|fault| format!("policies cannot be listed: {fault}"))? else {
                break;
            };
            for policy in page {
                let wanted = if policy.is_audited() {
                    let steady = policy.is_in_force() && in_force.0.contains(&self.mark(&policy));
                    Some(result(&policy, findings, incomplete, steady))
                } else if policy.status.audit.is_some() {
                    None
                } else {
                    continue;
                };
                if let Err(fault) = write(requests, &policy, wanted.as_ref()).await {
                    warn!(policy = policy.metadata.name, error = %fault, "the audit's result cannot be written");
                    failed.get_or_insert_with(|| {
                        format!(
                            "the result of policy {} cannot be written: {fault}",
                            policy.metadata.name
                        )
                    });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The next page; none behind the last. A list that expired goes on behind the last name.
    async fn page(&self, requests: &mut Requests, token: &mut Option<String>) -> Result<Option<Vec<Policy>>, Fault> {
        loop {
            if token.as_deref() == Some("") {
                return Ok(None);
            }
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &self.page_size.to_string());
            if let Some(token) = token {
                query.append_pair("continue", token);
            }
            let uri = format!("{}?{}", collection(), query.finish());
            let answer = requests.send(|| Request::get(&uri).body(Vec::new())).await?;
            if answer.code == StatusCode::OK {
                let page: Page = serde_json::from_slice(&answer.body)
                    .map_err(|error| Fault::new(format!("a list cannot be read: {error}")))?;
                *token = Some(page.metadata.continue_);
                return Ok(Some(page.items));
            }
            let status: Status = serde_json::from_slice(&answer.body).unwrap_or_default();
            if answer.code != StatusCode::GONE || status.metadata.continue_.is_empty() {
                return Err(answer.said());
            }
            *token = Some(status.metadata.continue_);
        }
    }
}

fn collection() -> String {
    format!("/apis/{}/{}", names::API_VERSION, names::POLICY_RESOURCE)
}

fn result(policy: &Policy, findings: &Findings, incomplete: Option<&str>, steady: bool) -> AuditResult {
    let found = findings.of(&policy.status.audit_binding);
    let violations = found.map_or(0, |found| found.violations);
    if violations > 0 {
        info!(policy = policy.metadata.name, violations, "policy is violated");
    }
    let changed = "The policy was not in force, as it is now, during the whole run.";
    AuditResult {
        violations,
        samples: found.map(|found| found.samples.clone()).unwrap_or_default(),
        incomplete: incomplete
            .map(str::to_owned)
            .or_else(|| (!steady).then(|| changed.to_owned())),
    }
}

/// Writes the auditor's part of the status, or takes it away. A policy that is gone, or is another by now, needs none.
async fn write(requests: &mut Requests, policy: &Policy, result: Option<&AuditResult>) -> Result<(), Fault> {
    let Metadata { name, uid, generation } = &policy.metadata;
    let status = match result {
        Some(result) => json!({"audit": status::audit(result, *generation, &now())}),
        None => Value::Object(serde_json::Map::new()),
    };
    let mut patch = status::patch(names::POLICY_KIND, name, &status);
    patch["metadata"]["uid"] = json!(uid);
    let body = patch.to_string();
    let uri = format!(
        "{}/{name}/status?fieldManager={}&force=true",
        collection(),
        names::AUDIT_FIELD_MANAGER
    );
    let make = || {
        Request::patch(&uri)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(body.clone().into_bytes())
    };
    let answer = requests.send(make).await?;
    match answer.code {
        code if code.is_success() || matches!(code, StatusCode::NOT_FOUND | StatusCode::CONFLICT) => Ok(()),
        _ => Err(answer.said()),
    }
}
