//! What the API server says about one service.

use std::collections::HashMap;

use http::{Request, header};
use isvc_core::policy::names::{AUDIT_ALL, AUDIT_FIELD_MANAGER, AUDIT_SHARD_DIGITS, LABEL_AUDIT};
use serde_json::json;

use super::{
    answer::{Verdict, verdict},
    findings::merge,
    requests::Requests,
    services::Service,
    warnings::Warnings,
};

/// Asks for no more of the object than its metadata, which nobody looks at either.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Most questions about one service. One is enough for about 25 violations; each more asks about a part of the policies.
const MOST_QUESTIONS: usize = 300;

/// Why a service was not evaluated.
pub(super) struct Unasked {
    pub(super) reason: String,
    /// It would be the same with every other service.
    pub(super) hopeless: bool,
}

/// Asks about a service: which bindings say that it breaks their policy, each with the first thing it breaks. None if it is
/// gone.
///
/// Warnings that do not fit into one answer are asked for again in parts, each of them by the digit with which the shard of
/// a binding begins.
pub(super) async fn about(
    requests: &mut Requests,
    service: &Service,
) -> Result<Option<HashMap<String, String>>, Unasked> {
    let mut broken = HashMap::new();
    let mut parts = vec![AUDIT_ALL.to_owned()];
    let mut asked = 0;
    while let Some(part) = parts.pop() {
        asked += 1;
        if asked > MOST_QUESTIONS {
            return Err(too_many());
        }
        let Some(warnings) = once(requests, service, &part).await? else {
            return Ok(None);
        };
        merge(&mut broken, warnings.broken);
        if warnings.cut {
            let parent = if part == AUDIT_ALL { "" } else { part.as_str() };
            if parent.len() >= AUDIT_SHARD_DIGITS {
                return Err(too_many());
            }
            parts.extend((0..16).map(|digit| format!("{parent}{digit:x}")));
        }
    }
    Ok(Some(broken))
}

async fn once(requests: &mut Requests, service: &Service, part: &str) -> Result<Option<Warnings>, Unasked> {
    let uri = format!(
        "{}?dryRun=All&fieldManager={AUDIT_FIELD_MANAGER}&fieldValidation=Ignore",
        service.path()
    );
    let patch = json!({"metadata": {"labels": {(LABEL_AUDIT): part}}}).to_string();
    let make = || {
        Request::patch(&uri)
            .header(header::ACCEPT, METADATA)
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.clone().into_bytes())
    };
    let answer = requests.send(make).await.map_err(|fault| Unasked {
        reason: fault.to_string(),
        hopeless: true,
    })?;
    match verdict(answer.code, &answer.body) {
        Verdict::Evaluated => match Warnings::read(&answer.headers) {
            Some(warnings) => Ok(Some(warnings)),
            None => Err(refused("the warnings cannot be read".to_owned())),
        },
        Verdict::Gone => Ok(None),
        Verdict::Refused(reason) => Err(refused(reason)),
        Verdict::Hopeless(reason) => Err(Unasked { reason, hopeless: true }),
    }
}

fn refused(reason: String) -> Unasked {
    Unasked {
        reason,
        hopeless: false,
    }
}

fn too_many() -> Unasked {
    refused("it breaks more policies than the API server's warnings can name".to_owned())
}
