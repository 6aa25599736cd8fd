use super::*;
use crate::policy::status::{self, Enforcement, Known, PolicyFacts, TemplateFacts, TemplateState, TypeWarning};

fn said(status: &Value) -> Vec<String> {
    let conditions = status["conditions"].as_array().expect("conditions");
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    conditions
        .iter()
        .map(|condition| {
            [
                text(condition, "type"),
                text(condition, "status"),
                text(condition, "reason"),
            ]
            .join(" ")
        })
        .collect()
}

#[test]
fn of_a_template() {
    let warnings = [TypeWarning {
        field: "spec.validations[0].expression".to_owned(),
        text: "undefined field".to_owned(),
    }];
    let facts = |compiled, type_warnings| TemplateFacts {
        generation: 2,
        policies: 3,
        compiled,
        type_warnings,
    };
    for (compiled, types, expected) in [
        (
            Known::NotYet,
            Known::NotYet,
            ["Compiled Unknown Pending", "TypeChecked Unknown Pending"],
        ),
        (
            Known::Is(Ok(())),
            Known::Is(&[][..]),
            ["Compiled True Accepted", "TypeChecked True NoWarnings"],
        ),
        (
            Known::Is(Err("x")),
            Known::Is(&warnings[..]),
            ["Compiled False Refused", "TypeChecked False Warnings"],
        ),
    ] {
        let status = status::template(&facts(compiled, types), &Value::Null, "t1");
        assert_eq!(said(&status), expected);
        assert_eq!(
            (&status["observedGeneration"], &status["policies"]),
            (&json!(2), &json!(3))
        );
    }
    let status = status::template(
        &facts(Known::Is(Err("the text")), Known::Is(&warnings)),
        &Value::Null,
        "t1",
    );
    assert_eq!(status["conditions"][0]["message"], "the text");
    assert_eq!(
        status["conditions"][1]["message"],
        "spec.validations[0].expression: undefined field"
    );
}

fn facts<'a>(enforcement: Enforcement<'a>, compiled: Option<&'a Compiled>) -> PolicyFacts<'a> {
    PolicyFacts {
        generation: 7,
        template_name: "t",
        template: TemplateState::Found,
        parameters: Known::Is(&[]),
        enforcement,
        compiled,
        contested: None,
    }
}

#[test]
fn of_a_policy() {
    let built = compiled(&max_replicas(), &policy(json!({"parameters": {"max": 1}})));
    let status = status::policy(&facts(Enforcement::InForce, Some(&built)), &Value::Null, "t1");
    let valid = [
        "ParametersValid True Valid",
        "TemplateFound True Found",
        "Auditable True Auditable",
    ];
    assert_eq!(said(&status), [&["Ready True InForce"][..], &valid].concat());
    assert_eq!(status["admissionPolicy"], built.admission_policy["metadata"]["name"]);
    assert_eq!(status["binding"], "leanserve-policy-p");
    assert_eq!(status["auditBinding"], "leanserve-audit-p");
    for (enforcement, reason) in [
        (Enforcement::Settling, "Ready False Settling"),
        (Enforcement::Refused("text"), "Ready False Refused"),
    ] {
        let status = status::policy(&facts(enforcement, Some(&built)), &Value::Null, "t1");
        assert_eq!(said(&status), [&[reason][..], &valid].concat());
    }
    let problems = [ParameterProblem {
        path: "spec.parameters.a".to_owned(),
        problem: "is wrong".to_owned(),
    }];
    let invalid = PolicyFacts {
        parameters: Known::Is(&problems),
        contested: Some(5),
        ..facts(Enforcement::Blocked { last_good: true }, None)
    };
    let status = status::policy(&invalid, &Value::Null, "t1");
    let expected = [
        "Ready False ParametersInvalid",
        "ParametersValid False Invalid",
        "TemplateFound True Found",
        "Contested True RepairedTooOften",
    ];
    assert_eq!(said(&status), expected);
    let message = |index: usize| status["conditions"][index]["message"].as_str().expect("a message");
    assert!(message(0).contains("stays in force"), "{}", message(0));
    assert_eq!(message(1), "spec.parameters.a: is wrong");
    let missing = PolicyFacts {
        template: TemplateState::Missing,
        parameters: Known::NotYet,
        ..facts(Enforcement::Blocked { last_good: false }, None)
    };
    let expected = [
        "Ready False TemplateMissing",
        "ParametersValid Unknown NoTemplate",
        "TemplateFound False Missing",
    ];
    assert_eq!(said(&status::policy(&missing, &Value::Null, "t1")), expected);
}

#[test]
fn the_time_of_a_condition_moves_with_its_status_only() {
    let built = compiled(&max_replicas(), &policy(json!({"parameters": {"max": 1}})));
    let first = status::policy(&facts(Enforcement::Settling, Some(&built)), &Value::Null, "t1");
    let refused = status::policy(&facts(Enforcement::Refused("x"), Some(&built)), &first, "t2");
    assert_eq!(
        refused["conditions"][0]["lastTransitionTime"], "t1",
        "False before and after"
    );
    let ready = status::policy(&facts(Enforcement::InForce, Some(&built)), &refused, "t3");
    assert_eq!(ready["conditions"][0]["lastTransitionTime"], "t3");
    assert_eq!(ready["conditions"][1]["lastTransitionTime"], "t1");
    assert_eq!(
        status::policy(&facts(Enforcement::InForce, Some(&built)), &ready, "t4"),
        ready
    );
}

#[test]
fn what_server_side_apply_would_refuse_is_in_no_message() {
    let odd = "a\u{7f}\u{85}\u{feff}\u{ffff}\nb\u{1F600}";
    let status = status::policy(&facts(Enforcement::Refused(odd), None), &Value::Null, "t1");
    assert_eq!(
        status["conditions"][0]["message"],
        "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\nb\u{1F600}"
    );
    let result = status::AuditResult {
        samples: vec![status::AuditSample {
            namespace: "n".to_owned(),
            name: "s".to_owned(),
            message: odd.to_owned(),
        }],
        incomplete: Some(odd.to_owned()),
        ..status::AuditResult::default()
    };
    let audit = status::audit(&result, 1, "t1").to_string();
    assert!(!audit.contains(['\u{7f}', '\u{85}', '\u{feff}', '\u{ffff}']), "{audit}");
}

#[test]
fn a_message_of_any_length_fits() {
    let long = "\u{e4}".repeat(status::MAX_MESSAGE + 1);
    let status = status::policy(&facts(Enforcement::Refused(&long), None), &Value::Null, "t1");
    let message = status["conditions"][0]["message"].as_str().expect("a message");
    assert_eq!(message.chars().count(), status::MAX_MESSAGE);
    assert!(message.ends_with(" ..."));
}
