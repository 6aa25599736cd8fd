//! What a pass writes: objects, and the status that says what came of them.

use isvc_core::policy::{
    Compiled, Policy,
    status::{self, Enforcement, Known, PolicyFacts, TemplateState},
};
use serde_json::{Value, json};

use super::POLICY;
use crate::{
    error::{Fault, FaultKind},
    policies::{Enforcer, kinds::Kind, meant::is_as_meant},
    report::now,
};

impl Enforcer {
    /// Says how far a policy has come whose template and parameters are fine. Returns its status.
    pub(super) async fn write_status(
        &self,
        policy: &Policy,
        before: &Value,
        compiled: Option<&Compiled>,
        enforcement: Enforcement<'_>,
    ) -> Result<Value, Fault> {
        let facts = PolicyFacts {
            generation: policy.generation,
            template_name: &policy.spec.template,
            template: TemplateState::Found,
            parameters: Known::Is(&[]),
            enforcement,
            compiled,
            contested: self.contested(&policy.name).map(|(repairs, _)| repairs),
        };
        let new = status::policy(&facts, before, &now());
        self.report(POLICY, &policy.name, &policy.uid, before, &new).await?;
        Ok(new)
    }

    /// Writes a status, unless it is there already. Returns whether there is still an object to have one.
    pub(in crate::policies) async fn report(
        &self,
        kind: Kind,
        name: &str,
        uid: &str,
        before: &Value,
        new: &Value,
    ) -> Result<bool, Fault> {
        if before == new {
            return Ok(true);
        }
        let mut object = status::patch(kind.as_str(), name, new);
        // Refused, should it be another object of the same name by now.
        object["metadata"]["uid"] = json!(uid);
        match self.requests.apply_status(kind, &object).await {
            Ok(written) => {
                self.recent.wrote(&written.uid, &written.resource_version);
                Ok(true)
            }
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Makes an object what it should be.
    pub(super) async fn apply(&self, kind: Kind, object: &Value) -> Result<(), Fault> {
        let mut live = self.requests.apply::<Value>(kind, object, false).await?;
        self.wrote(&live);
        if !is_as_meant(object, &live) {
            // Server-side apply merges variables and conditions by name and the actions of a binding as a set: what others have
            // added survives it.
            let mut whole = object.clone();
            whole["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].take();
            live = self.requests.replace(kind, &whole).await?;
            self.wrote(&live);
        }
        self.metrics.applied(kind.as_str());
        Ok(())
    }

    fn wrote(&self, live: &Value) {
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.recent
            .wrote(text("/metadata/uid"), text("/metadata/resourceVersion"));
    }
}
