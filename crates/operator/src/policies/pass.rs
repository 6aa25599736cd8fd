//! A pass over one `InferencePolicy`: what it compiles to is put in force, and its status says how far that has come.
//!
//! No moment may be unenforced. So what refers to a new admission policy is written only when the API server acts by the
//! admission policy, and the old one goes only when the API server acts by what refers to the new one:
//!
//! ```text
//! admission policy -> barrier -> bindings -> barrier -> status -> old admission policy deleted
//! ```
//!
//! A policy that enforced nothing before needs no first barrier. What cannot be compiled leaves what is in force as it is.
//! Nothing is kept between passes; what one needs to know of the last it reads from the status and from the live objects.

mod ending;
mod writing;

use std::{sync::Arc, time::Duration};

use isvc_core::policy::{
    Compiled, ParameterProblem, Policy, Template, build, check_parameters, names,
    status::{self, Enforcement, Known, PolicyFacts, TemplateState},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    Enforcer, Work,
    cleaner::Cause,
    in_use::Use,
    kinds::{Child, Kind, Meta},
    meant::is_as_meant,
    repairs::Verdict,
    requests::{Form, name},
};
use crate::{
    error::{Fault, FaultKind},
    report::now,
};

const POLICY: Kind = Kind::InferencePolicy;
const TEMPLATE: Kind = Kind::InferencePolicyTemplate;
const ADMISSION: Kind = Kind::ValidatingAdmissionPolicy;
const BINDING: Kind = Kind::ValidatingAdmissionPolicyBinding;

/// Until the admission policy that is being deleted is gone.
const RETIRING: Duration = Duration::from_millis(200);

/// How a pass ended that has not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is left to do until something changes.
    Settled,
    /// Something is to be looked at again, and when.
    Again(Duration),
}

/// What a pass has come to before its next wait.
enum Step {
    End(End),
    /// Everything is written, and is to be seen in force.
    Confirm(Box<Pending>),
    /// The admission policy is to be seen in force before these bindings refer to it.
    Switch(Box<Pending>, Vec<Value>),
}

/// As much as is needed after the wait: few bytes, because many passes may wait at a time.
struct Pending {
    name: String,
    uid: String,
    generation: i64,
    template: String,
    compiled: Compiled,
    /// The status, without what the auditor wrote.
    before: Value,
    /// Holds on to the admission policy.
    admission: Use,
    /// The admission policies that the bindings referred to until now.
    old: Vec<String>,
    /// It was in force before, and was to be put back at the most.
    was_in_force: bool,
    end: End,
}

/// What there is to work on.
struct Subject {
    policy: Policy,
    before: Value,
}

/// What is to be done about the bindings.
#[derive(Default)]
struct Bindings {
    apply: Vec<Value>,
    switch: Vec<Value>,
    delete: Vec<Meta>,
    old: Vec<String>,
}

impl Enforcer {
    /// Runs a pass.
    pub(super) async fn pass(&self, name: &str) -> Result<End, Fault> {
        // Boxed, so that a pass that waits takes no more memory than what it still needs.
        let step = {
            let _active = self.active.acquire().await;
            Box::pin(self.prepare(name)).await?
        };
        let pending = match step {
            Step::End(end) => return Ok(end),
            Step::Confirm(pending) => pending,
            Step::Switch(pending, bindings) => {
                self.barrier.pass().await?;
                let _active = self.active.acquire().await;
                for binding in &bindings {
                    self.apply(BINDING, binding).await?;
                }
                pending
            }
        };
        if pending.was_in_force && self.repairs().may_begin_anew(name) {
            // Who has put something back does not wait to see it in force while it is changed again.
            let work = Work::Policy(Arc::from(name));
            tokio::select! {
                passed = self.barrier.pass() => passed?,
                () = self.triggers.queue(&work).until_asked_again(&work) => {
                    self.repairs().begins_anew(name);
                    return Ok(End::Settled);
                }
            }
        } else {
            self.barrier.pass().await?;
        }
        let _active = self.active.acquire().await;
        Box::pin(self.confirm(*pending)).await
    }

    async fn prepare(&self, name: &str) -> Result<Step, Fault> {
        let Some(mut object) = self.requests.read::<Value>(POLICY, name, Form::Whole).await? else {
            return self.gone(name).await;
        };
        let before = without_audit(object["status"].take());
        let policy = match Policy::parse(&object) {
            Ok(policy) => policy,
            Err(problem) => {
                debug!(kind = POLICY.as_str(), name, error = %problem, "not a policy");
                return self.unreadable(&object, &before, &problem.to_string()).await;
            }
        };
        drop(object);
        let subject = Subject { policy, before };
        let template = self
            .requests
            .read::<Value>(TEMPLATE, &subject.policy.spec.template, Form::Whole)
            .await?;
        let Some(template) = template else {
            self.disarm(&subject, true).await?;
            return self.blocked(&subject, TemplateState::Missing, Known::NotYet).await;
        };
        let template = match Template::parse(&template) {
            Ok(template) => template,
            Err(problem) => {
                let text = problem.to_string();
                return self
                    .blocked(&subject, TemplateState::Unreadable(&text), Known::NotYet)
                    .await;
            }
        };
        let parameters = match check_parameters(&template, &subject.policy) {
            Ok(parameters) => parameters,
            Err(problems) => {
                return self.blocked(&subject, TemplateState::Found, Known::Is(&problems)).await;
            }
        };
        let compiled = build(&template, &subject.policy, &parameters);
        self.put_in_force(subject, compiled).await
    }

    async fn put_in_force(&self, subject: Subject, compiled: Compiled) -> Result<Step, Fault> {
        let Subject { policy, before } = &subject;
        let mut now_told = None;
        let Some(admission) = self.in_use.take(name(&compiled.admission_policy)) else {
            return Ok(Step::End(End::Again(RETIRING)));
        };
        let live = self
            .requests
            .read::<Value>(ADMISSION, name(&compiled.admission_policy), Form::Whole)
            .await?;
        let admission_differs = live.is_none_or(|live| !is_as_meant(&compiled.admission_policy, &live));
        let mut bindings = self.bindings(policy, &compiled).await?;
        let differs = admission_differs || !bindings.is_empty();
        // In force as it is written, as the status has it: so the difference was made by somebody else.
        let was_in_force = is_in_force(before, policy.generation)
            && before["admissionPolicy"] == compiled.admission_policy["metadata"]["name"];
        let mut end = End::Settled;
        if differs && was_in_force {
            match self.verdict(&policy.name) {
                Verdict::Repair => self.tell_repair(policy, false),
                Verdict::RepairAndPause => self.tell_repair(policy, true),
                Verdict::Wait(wait) => {
                    let enforcement = Enforcement::Settling;
                    self.write_status(policy, before, Some(&compiled), enforcement).await?;
                    return Ok(Step::End(End::Again(wait)));
                }
            }
        }
        if let Some((_, over)) = self.contested(&policy.name) {
            end = End::Again(over);
        }
        if was_in_force && !admission_differs {
            bindings.put_back();
        }
        // Whoever waits for it to be Ready, or counts on that, is to see that it was not. Without a name where the template has
        // changed, so that a pass that fails from here on is not taken for one that repairs.
        if differs && is_told(before, policy.generation, "True") {
            let compiled = was_in_force.then_some(&compiled);
            let enforcement = Enforcement::Settling;
            now_told = Some(self.write_status(policy, before, compiled, enforcement).await?);
        }
        let before = now_told.as_ref().unwrap_or(before);
        if admission_differs {
            match self.apply(ADMISSION, &compiled.admission_policy).await {
                Ok(()) => {}
                Err(fault) if fault.kind.is_refusal() => {
                    let enforcement = Enforcement::Refused(&fault.message);
                    self.write_status(policy, before, None, enforcement).await?;
                    self.tell_refusal(policy, &fault);
                    // What the API server thinks of an expression changes with the expression, or with the API server.
                    return match fault.kind {
                        FaultKind::Invalid => Ok(Step::End(End::Settled)),
                        _ => Err(fault),
                    };
                }
                Err(fault) => return Err(fault),
            }
        }
        for binding in &bindings.apply {
            self.apply(BINDING, binding).await?;
        }
        for unwanted in bindings.delete {
            self.cleaner.delete(BINDING, unwanted, Cause::Unwanted).await?;
        }
        if !differs && is_told(before, policy.generation, "True") {
            let enforcement = Enforcement::InForce;
            self.write_status(policy, before, Some(&compiled), enforcement).await?;
            return Ok(Step::End(end));
        }
        let pending = Box::new(Pending {
            name: policy.name.clone(),
            uid: policy.uid.clone(),
            generation: policy.generation,
            template: policy.spec.template.clone(),
            compiled: names_only(compiled),
            before: now_told.unwrap_or(subject.before),
            admission,
            // What is not referred to any more is let go of at the end alone.
            was_in_force: was_in_force && bindings.old.is_empty(),
            old: bindings.old,
            end,
        });
        Ok(if bindings.switch.is_empty() {
            Step::Confirm(pending)
        } else {
            Step::Switch(pending, bindings.switch)
        })
    }

    /// Compares both bindings with what they should be.
    async fn bindings(&self, policy: &Policy, compiled: &Compiled) -> Result<Bindings, Fault> {
        let mut todo = Bindings::default();
        let admission = name(&compiled.admission_policy);
        let wanted = [
            (names::binding(&policy.name), Some(&compiled.binding)),
            (names::audit_binding(&policy.name), compiled.audit_binding.as_ref()),
        ];
        for (name, meant) in wanted {
            let live = self.requests.read::<Value>(BINDING, &name, Form::Whole).await?;
            match (meant, live) {
                (Some(meant), Some(live)) if is_as_meant(meant, &live) => {}
                (Some(meant), Some(live)) => match live["spec"]["policyName"].as_str() {
                    Some(old) if old != admission => {
                        todo.old.push(old.to_owned());
                        todo.switch.push(meant.clone());
                    }
                    _ => todo.apply.push(meant.clone()),
                },
                (Some(meant), None) => todo.apply.push(meant.clone()),
                (None, Some(live)) => todo.delete.extend(ours(&live)),
                (None, None) => {}
            }
        }
        Ok(todo)
    }

    /// Everything is in force: says so, and lets go of what was in force before.
    async fn confirm(&self, pending: Pending) -> Result<End, Fault> {
        let Pending {
            name,
            uid,
            generation,
            template,
            compiled,
            before,
            admission,
            old,
            was_in_force: _,
            end,
        } = pending;
        drop(admission);
        let facts = PolicyFacts {
            generation,
            template_name: &template,
            template: TemplateState::Found,
            parameters: Known::Is(&[]),
            enforcement: Enforcement::InForce,
            compiled: Some(&compiled),
            contested: self.contested(&name).map(|(repairs, _)| repairs),
        };
        let new = status::policy(&facts, &before, &now());
        if !self.report(POLICY, &name, &uid, &before, &new).await? {
            // It was deleted after its bindings were looked at, which may have been made after that.
            return Ok(End::Again(Duration::ZERO));
        }
        if !is_told(&before, generation, "True") {
            info!(kind = POLICY.as_str(), name, generation, "in force");
        }
        for old in old {
            self.retire(&old).await?;
        }
        self.look_at_template(&template);
        Ok(end)
    }

    /// Nothing can be compiled. What is in force stays so, unless it is of another policy of the same name.
    async fn blocked(
        &self,
        subject: &Subject,
        template: TemplateState<'_>,
        parameters: Known<&[ParameterProblem]>,
    ) -> Result<Step, Fault> {
        let last_good = template != TemplateState::Missing && self.disarm(subject, false).await?;
        let Subject { policy, before } = subject;
        let facts = PolicyFacts {
            generation: policy.generation,
            template_name: &policy.spec.template,
            template,
            parameters,
            enforcement: Enforcement::Blocked { last_good },
            compiled: None,
            contested: None,
        };
        let new = status::policy(&facts, before, &now());
        self.report(POLICY, &policy.name, &policy.uid, before, &new).await?;
        Ok(Step::End(End::Settled))
    }

    /// The definition refuses such objects; one from before the definition may be there.
    async fn unreadable(&self, object: &Value, before: &Value, problem: &str) -> Result<Step, Fault> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let facts = PolicyFacts {
            generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
            template_name: text("/spec/templateRef/name"),
            template: TemplateState::Found,
            parameters: Known::NotYet,
            enforcement: Enforcement::Refused(problem),
            compiled: None,
            contested: None,
        };
        let new = status::policy(&facts, before, &now());
        self.report(POLICY, name(object), text("/metadata/uid"), before, &new)
            .await?;
        Ok(Step::End(End::Settled))
    }

    fn verdict(&self, policy: &str) -> Verdict {
        self.repairs().found(policy, Instant::now())
    }

    fn contested(&self, policy: &str) -> Option<(u32, Duration)> {
        self.repairs().contested(policy, Instant::now())
    }

    /// The number of its policies, and what the API server found out about types, may have changed.
    fn look_at_template(&self, template: &str) {
        let work = Work::Template(Arc::from(template));
        self.triggers.later(work, super::TEMPLATE_PAUSE);
    }
}

impl Bindings {
    /// What a binding refers to was changed by somebody else, and what it should refer to is in force: there is nothing to wait for,
    /// and what it refers to now is not ours to delete.
    fn put_back(&mut self) {
        self.apply.append(&mut self.switch);
        self.old.clear();
    }

    fn is_empty(&self) -> bool {
        self.apply.is_empty() && self.switch.is_empty() && self.delete.is_empty()
    }
}

/// What the auditor writes has a writer of its own.
fn without_audit(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("audit");
    }
    status
}

/// As much as a status is made of.
fn names_only(compiled: Compiled) -> Compiled {
    let named = |object: &Value| json!({"metadata": {"name": object["metadata"]["name"]}});
    Compiled {
        admission_policy: named(&compiled.admission_policy),
        binding: named(&compiled.binding),
        audit_binding: None,
        ..compiled
    }
}

/// Whether a status says of this generation that the policy is in force, or was but for somebody else: it is being put back, or
/// fought over.
fn is_in_force(status: &Value, generation: i64) -> bool {
    is_told(status, generation, "True")
        || is_told(status, generation, "False")
        || has(status, status::CONTESTED, "True")
}

fn is_told(status: &Value, generation: i64, ready: &str) -> bool {
    status["observedGeneration"].as_i64() == Some(generation) && has(status, status::READY, ready)
}

fn has(status: &Value, type_: &str, value: &str) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == value)
}

/// The metadata of a live object that we have made.
fn ours(live: &Value) -> Option<Meta> {
    let child: Child = serde_json::from_value(live.clone()).ok()?;
    let managed_by = &live["metadata"]["labels"][names::LABEL_MANAGED_BY];
    (*managed_by == names::MANAGED_BY).then_some(child.metadata)
}
