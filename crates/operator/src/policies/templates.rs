//! A pass over one `InferencePolicyTemplate`: what the API server thinks of its rules, and how many policies use it.

use std::sync::Arc;

use isvc_core::policy::{
    Template, probe,
    status::{self, Known, TemplateFacts, TypeWarning},
};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{
    Enforcer, Work,
    kinds::{Kind, Parent},
    pass::End,
    requests::Form,
};
use crate::{
    error::{Fault, FaultKind},
    report::now,
};

const TEMPLATE: Kind = Kind::InferencePolicyTemplate;
const ADMISSION: Kind = Kind::ValidatingAdmissionPolicy;

/// What a look at all policies says of those of one template.
#[derive(Default)]
struct Users {
    policies: u64,
    /// An admission policy that was made from the template.
    admission: Option<Box<str>>,
}

impl Enforcer {
    /// Runs a pass.
    pub(super) async fn template(&self, name: &str) -> Result<End, Fault> {
        let Some(object) = self.requests.read::<Value>(TEMPLATE, name, Form::Whole).await? else {
            self.look_at_users(name, true).await?;
            self.triggers.sweep();
            return Ok(End::Settled);
        };
        let before = &object["status"];
        let metadata = &object["metadata"];
        let generation = metadata["generation"].as_i64().unwrap_or_default();
        let is_observed = before["observedGeneration"].as_i64() == Some(generation);
        let compiled = match Template::parse(&object) {
            Err(problem) => Err(problem.to_string()),
            Ok(template) => match verdict_of_before(before).filter(|_| is_observed) {
                Some(verdict) => verdict,
                None => self.ask(&template).await?,
            },
        };
        // The status is written last: should this be cut off, all of it is done again.
        let users = self.look_at_users(name, !is_observed).await?;
        let warnings = match &users.admission {
            Some(admission) if compiled.is_ok() => self.type_warnings(admission).await?,
            Some(_) | None => None,
        };
        let facts = TemplateFacts {
            generation,
            policies: users.policies,
            compiled: Known::Is(compiled.as_ref().copied().map_err(String::as_str)),
            type_warnings: warnings.as_deref().map_or(Known::NotYet, Known::Is),
        };
        let new = status::template(&facts, before, &now());
        let uid = metadata["uid"].as_str().unwrap_or_default();
        self.report(TEMPLATE, name, uid, before, &new).await?;
        if let (Err(text), false) = (&compiled, is_observed) {
            self.tell_refused_template(name, uid, text);
        }
        Ok(End::Settled)
    }

    /// Has the API server judge the rules with made-up parameters.
    async fn ask(&self, template: &Template) -> Result<Result<(), String>, Fault> {
        match self
            .requests
            .apply::<IgnoredAny>(ADMISSION, &probe(template), true)
            .await
        {
            Ok(_) => Ok(Ok(())),
            Err(fault) if fault.kind == FaultKind::Invalid => Ok(Err(fault.message)),
            Err(fault) => Err(fault),
        }
    }

    /// Goes through all policies for those of a template, and asks for a pass over each of them if the template is another
    /// one now.
    async fn look_at_users(&self, template: &str, changed: bool) -> Result<Users, Fault> {
        let mut users = Users::default();
        let mut token = String::new();
        loop {
            let page = self
                .requests
                .page::<Parent>(Kind::InferencePolicy, "", &token, Form::Whole)
                .await?;
            for policy in page.items {
                if *policy.spec.template_ref.name != *template {
                    continue;
                }
                users.policies += 1;
                if policy.is_observed() && policy.holds(status::READY) && !policy.status.admission_policy.is_empty() {
                    users.admission = Some(policy.status.admission_policy);
                }
                if changed {
                    self.triggers
                        .with_room(Work::Policy(Arc::from(policy.metadata.name)))
                        .await;
                }
            }
            token = page.metadata.token;
            if token.is_empty() {
                return Ok(users);
            }
        }
    }

    /// What the API server's controller has found out about types; none as long as it has not looked.
    async fn type_warnings(&self, admission: &str) -> Result<Option<Vec<TypeWarning>>, Fault> {
        let object = self.requests.read::<Value>(ADMISSION, admission, Form::Whole).await?;
        let object = object.unwrap_or_default();
        let status = &object["status"];
        if status["observedGeneration"].is_null() || status["observedGeneration"] != object["metadata"]["generation"] {
            return Ok(None);
        }
        let warnings = status["typeChecking"]["expressionWarnings"].as_array();
        let warning = |warning: &Value| TypeWarning {
            field: warning["fieldRef"].as_str().unwrap_or_default().to_owned(),
            text: warning["warning"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(Some(warnings.into_iter().flatten().map(warning).collect()))
    }
}

/// What the API server said of the rules when it was asked last.
fn verdict_of_before(before: &Value) -> Option<Result<(), String>> {
    let mut conditions = before["conditions"].as_array()?.iter();
    let compiled = conditions.find(|condition| condition["type"] == status::COMPILED)?;
    match compiled["status"].as_str()? {
        "True" => Some(Ok(())),
        "False" => Some(Err(compiled["message"].as_str()?.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_said_is_not_asked_again() {
        let status = |status: &str| json!({"conditions": [{"type": "Compiled", "status": status, "message": "m"}]});
        assert_eq!(verdict_of_before(&status("True")), Some(Ok(())));
        assert_eq!(verdict_of_before(&status("False")), Some(Err("m".to_owned())));
        assert_eq!(verdict_of_before(&status("Unknown")), None);
        assert_eq!(verdict_of_before(&Value::Null), None);
    }
}
