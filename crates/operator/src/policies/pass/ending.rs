//! What is left of a policy that is gone or has no template, and of an admission policy that nothing refers to any more.

use std::{sync::Arc, time::Duration};

use isvc_core::policy::names;
use tokio::time::Instant;

use super::{ADMISSION, BINDING, End, POLICY, Step, Subject};
use crate::{
    error::Fault,
    policies::{
        Enforcer, TEMPLATE_PAUSE, Work,
        cleaner::{Cause, owner_uid},
        kinds::Child,
        requests::Form,
        triggers::hash_of,
    },
};

impl Enforcer {
    /// Deletes the policy's bindings: all of them, or those of another policy that had the same name. Returns whether one is
    /// left.
    pub(super) async fn disarm(&self, subject: &Subject, all: bool) -> Result<bool, Fault> {
        let (name, uid) = (&subject.policy.name, &subject.policy.uid);
        let mut left = false;
        for binding in [names::binding(name), names::audit_binding(name)] {
            let child = self.requests.read::<Child>(BINDING, &binding, Form::Metadata).await?;
            let Some(child) = child.map(|child| child.metadata) else {
                continue;
            };
            let own = owner_uid(BINDING, &child) == uid;
            if all || !own {
                let cause = if own { Cause::Unwanted } else { Cause::OwnerGone };
                let hash = child.labels.hash.clone();
                self.cleaner.delete(BINDING, child, cause).await?;
                self.retire(&names::admission_policy(&hash)).await?;
            } else {
                left = true;
            }
        }
        Ok(left)
    }

    /// There is no such policy. Its bindings were looked at before that is asked again, and so belong to nobody.
    pub(super) async fn gone(&self, name: &str) -> Result<Step, Fault> {
        self.repairs().forget(name);
        let mut children = Vec::new();
        for binding in [names::binding(name), names::audit_binding(name)] {
            let child = self.requests.read::<Child>(BINDING, &binding, Form::Metadata).await?;
            children.extend(child.map(|child| child.metadata));
        }
        if children.is_empty() {
            // Garbage collection was faster, and which admission policies they referred to is not known any more.
            self.triggers.sweep();
            return Ok(Step::End(End::Settled));
        }
        if self
            .requests
            .read::<Child>(POLICY, name, Form::Metadata)
            .await?
            .is_some()
        {
            return Ok(Step::End(End::Again(Duration::ZERO)));
        }
        for child in children {
            let hash = child.labels.hash.clone();
            self.cleaner.delete(BINDING, child, Cause::OwnerGone).await?;
            self.retire(&names::admission_policy(&hash)).await?;
        }
        Ok(Step::End(End::Settled))
    }

    /// Deletes an admission policy if no binding refers to it any more: now, or after whoever holds on to it.
    pub(super) async fn retire(&self, admission: &str) -> Result<(), Fault> {
        let Some(hash) = hash_of(admission) else {
            return Ok(());
        };
        if !self.try_retire(hash).await? {
            // Whoever holds on to it has perhaps seen a binding that is gone by now.
            self.triggers.later(Work::Users(Arc::from(hash)), TEMPLATE_PAUSE);
        }
        Ok(())
    }

    /// Deletes the admission policy with this hash if no binding refers to it. Returns whether that could be looked at: a pass
    /// may be about to use it, or another one be deleting it.
    pub(in crate::policies) async fn try_retire(&self, hash: &str) -> Result<bool, Fault> {
        let admission = names::admission_policy(hash);
        let Some(_retiring) = self.in_use.retire(&admission) else {
            return Ok(false);
        };
        let child = self
            .requests
            .read::<Child>(ADMISSION, &admission, Form::Metadata)
            .await?;
        let Some(Child { metadata: child }) = child.filter(is_ours) else {
            return Ok(true);
        };
        let labels = format!("{}={hash}", names::LABEL_POLICY_HASH);
        let users = self
            .requests
            .page_of::<Child>(BINDING, &labels, "", 1, Form::Metadata)
            .await?;
        if !users.items.is_empty() {
            return Ok(true);
        }
        if self.repairs().is_any_contested(Instant::now()) {
            // Somebody may have taken the labels of bindings away, which are left like that for a while. A search looks at what
            // they refer to.
            self.triggers.sweep();
        } else {
            self.cleaner.delete(ADMISSION, child, Cause::Unused).await?;
        }
        Ok(true)
    }
}

/// Whether an admission policy was made from a template: a name that looks so could be anybody's.
fn is_ours(admission: &Child) -> bool {
    !owner_uid(ADMISSION, &admission.metadata).is_empty()
}
