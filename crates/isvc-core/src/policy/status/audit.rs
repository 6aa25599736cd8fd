//! What the auditor found, as the status of a policy.

use serde_json::{Value, json};

/// Most violating services that a status names.
pub const MAX_SAMPLES: usize = 20;

/// What one run of the auditor found about one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditResult {
    /// Services that violate the policy, as far as they were evaluated.
    pub violations: u64,
    /// Some of them as `namespace/name`, at most [`MAX_SAMPLES`], each with what the rule says.
    pub samples: Vec<AuditSample>,
    /// Why it is not known of every service; none if it is.
    pub incomplete: Option<String>,
}

/// A service that violates a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditSample {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the first rule it violates says.
    pub message: String,
}

/// The `status.audit` that says so, about a run that ended at `now`, an RFC 3339 time.
#[must_use]
pub fn audit(result: &AuditResult, generation: i64, now: &str) -> Value {
    let samples: Vec<Value> = result
        .samples
        .iter()
        .take(MAX_SAMPLES)
        .map(|sample| json!({"namespace": sample.namespace, "name": sample.name, "message": super::plain(&sample.message)}))
        .collect();
    let mut audit = json!({
        "lastRun": now,
        "observedGeneration": generation,
        "complete": result.incomplete.is_none(),
        "violations": result.violations,
        "samples": samples,
    });
    if let Some(reason) = &result.incomplete {
        audit["message"] = Value::from(super::plain(reason));
    }
    audit
}
