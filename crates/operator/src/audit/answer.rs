//! Pure: what an answer to a dry run means.

use http::StatusCode;
use serde::Deserialize;

/// What the API server did with a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every policy was evaluated; the warnings tell what came of it.
    Evaluated,
    /// There is no such service any more.
    Gone,
    /// Something refused before policies were evaluated, or it cannot be told whether they were.
    Refused(String),
    /// No service can be asked about.
    Hopeless(String),
}

/// The part of a `Status` that is looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) metadata: ListMetadata,
}

/// The part of a list's metadata that is looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListMetadata {
    #[serde(rename = "continue", default)]
    pub(super) continue_: String,
}

/// What an answer with this code and body means.
///
/// A refusal by an admission policy comes after all of them were evaluated, so it counts as a verdict. Everything else that
/// refuses may have come before: webhooks that change objects, the schema, the rights.
pub(super) fn verdict(code: StatusCode, body: &[u8]) -> Verdict {
    if code.is_success() {
        return Verdict::Evaluated;
    }
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let by_policy = status
        .message
        .split_once("\" is forbidden: ")
        .is_some_and(|(_, why)| why.starts_with("ValidatingAdmissionPolicy '"));
    if by_policy {
        return Verdict::Evaluated;
    }
    let said = said(code, &status.message);
    match code {
        StatusCode::NOT_FOUND => Verdict::Gone,
        StatusCode::UNAUTHORIZED => Verdict::Hopeless(said),
        StatusCode::FORBIDDEN if status.message.contains("\" cannot patch resource \"") => Verdict::Hopeless(said),
        _ => Verdict::Refused(said),
    }
}

/// An answer in few words.
pub(super) fn said(code: StatusCode, message: &str) -> String {
    const LONGEST: usize = 300;
    let message: String = message.chars().take(LONGEST).collect();
    if message.is_empty() {
        format!("the API server answered {code}")
    } else {
        format!("the API server answered {}: {message}", code.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_refusals_by_policies_are_verdicts() {
        let service = "inferenceservices.serving.kserve.io \"a\" is";
        for (code, message, evaluated) in [
            (200, String::new(), true),
            (
                422,
                format!("{service} forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: m"),
                true,
            ),
            (
                403,
                format!("{service} forbidden: ValidatingAdmissionPolicy 'p' denied request: m"),
                true,
            ),
            (422, format!("{service} invalid: spec: Required value"), false),
            (403, format!("{service} forbidden: exceeded quota"), false),
            (
                400,
                "admission webhook \"w\" denied the request: ValidatingAdmissionPolicy 'p'".to_owned(),
                false,
            ),
            (500, "Internal error occurred".to_owned(), false),
        ] {
            let status = StatusCode::from_u16(code).expect("a code");
            let body = json!({"kind": "Status", "message": message}).to_string();
            let found = verdict(status, body.as_bytes());
            assert_eq!(found == Verdict::Evaluated, evaluated, "{message}: {found:?}");
        }
    }

    #[test]
    fn what_is_gone_and_what_is_hopeless() {
        assert_eq!(verdict(StatusCode::NOT_FOUND, b"{}"), Verdict::Gone);
        assert!(matches!(verdict(StatusCode::UNAUTHORIZED, b"x"), Verdict::Hopeless(_)));
        let body = json!({"message": "inferenceservices.serving.kserve.io \"a\" is forbidden: User \"u\" cannot patch \
                                      resource \"inferenceservices\" in API group \"serving.kserve.io\""});
        let found = verdict(StatusCode::FORBIDDEN, body.to_string().as_bytes());
        assert!(matches!(found, Verdict::Hopeless(_)), "{found:?}");
        let found = verdict(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(
            found,
            Verdict::Refused("the API server answered 502 Bad Gateway".to_owned())
        );
    }
}
