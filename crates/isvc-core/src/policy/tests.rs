use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

mod statuses;

#[allow(clippy::needless_pass_by_value, reason = "a literal at every call")]
fn template(spec: Value) -> Template {
    Template::parse(&json!({"metadata": {"name": "t", "uid": "tu", "generation": 3}, "spec": spec}))
        .expect("a template")
}

#[allow(clippy::needless_pass_by_value, reason = "a literal at every call")]
fn policy(spec: Value) -> Policy {
    let mut object = json!({"metadata": {"name": "p", "uid": "pu", "generation": 7}, "spec": spec});
    object["spec"]["templateRef"] = json!({"name": "t"});
    Policy::parse(&object).expect("a policy")
}

fn max_replicas() -> Template {
    template(json!({
        "parameters": [{"name": "max", "type": "integer", "required": true}],
        "variables": [{"name": "p", "expression": "object.spec.predictor"}],
        "validations": [{
            "expression": "!has(variables.p.maxReplicas) ||\n variables.p.maxReplicas <= variables.params.max",
            "message": "too many replicas",
            "messageExpression": "'at most ' + string(variables.params.max)",
        }],
    }))
}

fn compiled(template: &Template, policy: &Policy) -> Compiled {
    let parameters = check_parameters(template, policy).expect("valid parameters");
    build(template, policy, &parameters)
}

#[test]
#[allow(clippy::too_many_lines, reason = "the objects as a whole")]
fn a_policy_compiles_to_an_admission_policy_and_bindings() {
    let policy = policy(json!({
        "parameters": {"max": 8},
        "match": {
            "namespaceSelector": {"matchLabels": {"team": "a"}},
            "objectSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        },
    }));
    let built = compiled(&max_replicas(), &policy);
    let hash = &built.hash;
    assert!(
        hash.len() == 20 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{hash}"
    );
    let owner = |kind: &str, name: &str, uid: &str| {
        json!([{
            "apiVersion": "leanserve.dev/v1alpha1", "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": false,
        }])
    };
    assert_eq!(
        built.admission_policy,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {
                "name": format!("leanserve-{hash}"),
                "labels": {
                    "app.kubernetes.io/managed-by": "leanserve",
                    "leanserve.dev/template-uid": "tu",
                    "leanserve.dev/policy-hash": hash,
                },
                "annotations": {"leanserve.dev/template": "t"},
                "ownerReferences": owner("InferencePolicyTemplate", "t", "tu"),
            },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": ["serving.kserve.io"], "apiVersions": ["v1beta1"],
                        "operations": ["CREATE", "UPDATE"], "resources": ["inferenceservices"], "scope": "Namespaced",
                    }],
                    "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                },
                "matchConditions": [{
                    "name": "leanserve-not-being-deleted",
                    "expression": "!has(object.metadata.deletionTimestamp) || object.spec != oldObject.spec",
                }],
                "variables": [
                    {"name": "params", "expression": r#"{"max": dyn(8)}"#},
                    {"name": "p", "expression": "object.spec.predictor"},
                ],
                "validations": [{
                    "expression": "!has(variables.p.maxReplicas) ||  variables.p.maxReplicas <= variables.params.max",
                    "message": "too many replicas",
                    "messageExpression": r"('at most ' + string(variables.params.max)).findAll('[^\\p{Cc}]+').join(' ')",
                }],
            },
        })
    );
    let labels = |purpose: &str| {
        json!({
            "app.kubernetes.io/managed-by": "leanserve", "leanserve.dev/template-uid": "tu",
            "leanserve.dev/policy-uid": "pu", "leanserve.dev/policy-hash": hash, "leanserve.dev/binding": purpose,
        })
    };
    assert_eq!(
        built.binding,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {
                "name": "leanserve-policy-p",
                "labels": labels("enforce"),
                "annotations": {"leanserve.dev/policy-generation": "7"},
                "ownerReferences": owner("InferencePolicy", "p", "pu"),
            },
            "spec": {
                "policyName": format!("leanserve-{hash}"),
                "validationActions": ["Deny"],
                "matchResources": {
                    "matchPolicy": "Equivalent",
                    "namespaceSelector": {"matchLabels": {"team": "a"}},
                    "objectSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
                },
            },
        })
    );
    let audit = built.audit_binding.expect("audited unless the policy says otherwise");
    assert_eq!(audit["metadata"]["name"], "leanserve-audit-p");
    assert_eq!(audit["metadata"]["labels"], labels("audit"));
    assert_eq!(
        audit["metadata"]["ownerReferences"],
        owner("InferencePolicy", "p", "pu")
    );
    assert_eq!(audit["spec"]["validationActions"], json!(["Warn"]));
    assert_eq!(audit["spec"]["policyName"], format!("leanserve-{hash}"));
    let shard = names::audit_shard("leanserve-audit-p");
    assert_eq!(
        audit["spec"]["matchResources"]["objectSelector"],
        json!({"matchExpressions": [
            {"key": "tier", "operator": "Exists"},
            {"key": "leanserve.dev/audit", "operator": "In", "values": ["all", shard[..1], shard[..2], shard]},
        ]})
    );
    assert_eq!(
        audit["spec"]["matchResources"]["namespaceSelector"],
        json!({"matchLabels": {"team": "a"}})
    );
}

#[test]
fn actions_and_how_the_auditor_learns() {
    let asks = template(json!({"validations": [{
        "expression": "authorizer.group('').resource('secrets').check('get').allowed()", "message": "m",
    }]}));
    let unreadable = template(json!({"validations": [{"expression": "br'\t' == b'a'", "message": "m"}]}));
    let plain = template(json!({"validations": [{"expression": "true", "message": "m"}]}));
    let binding = |name: &str| Audit::Binding(name.to_owned());
    for (template, spec, action, audit, extra) in [
        (&plain, json!({}), "Deny", binding("leanserve-audit-p"), true),
        (
            &plain,
            json!({"enforcementAction": "deny"}),
            "Deny",
            binding("leanserve-audit-p"),
            true,
        ),
        (
            &plain,
            json!({"enforcementAction": "warn"}),
            "Warn",
            binding("leanserve-policy-p"),
            false,
        ),
        (
            &plain,
            json!({"enforcementAction": "dryrun"}),
            "Audit",
            binding("leanserve-audit-p"),
            true,
        ),
        (&plain, json!({"audit": false}), "Deny", Audit::Off, false),
        (&asks, json!({}), "Deny", Audit::AsksWho, false),
        (
            &unreadable,
            json!({"enforcementAction": "warn"}),
            "Warn",
            Audit::Unreadable,
            false,
        ),
    ] {
        let built = compiled(template, &policy(spec.clone()));
        assert_eq!(built.binding["spec"]["validationActions"], json!([action]), "{spec}");
        assert_eq!(built.audit, audit, "{spec}");
        assert_eq!(built.audit_binding.is_some(), extra, "{spec}");
    }
}

#[test]
fn control_characters_are_kept_out_of_warnings() {
    let template = template(json!({"validations": [{"expression": "true", "message": " a\tb\u{85} "}]}));
    let built = compiled(&template, &policy(json!({})));
    assert_eq!(built.admission_policy["spec"]["validations"][0]["message"], "a b");
}

/// What makes a difference to the rules makes a difference to the hash, and nothing else does.
#[test]
fn the_hash_is_of_what_decides() {
    let base = json!({
        "parameters": [
            {"name": "a", "type": "stringList"}, {"name": "b", "type": "integer", "default": 1},
        ],
        "validations": [{"expression": "true", "message": "m"}],
    });
    let with = |path: &str, value: Value| {
        let mut spec = base.clone();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        spec.pointer_mut(parent).expect("a parent")[field] = value;
        template(spec)
    };
    let hash = |template: &Template, spec: Value| compiled(template, &policy(spec)).hash;
    let plain = template(base.clone());
    let first = hash(&plain, json!({"parameters": {"a": ["x", "y"], "b": 1}}));
    for same in [
        json!({"parameters": {"b": 1, "a": ["x", "y"]}}),
        json!({"parameters": {"a": ["x", "y"]}}),
        json!({"parameters": {"a": ["x", "y"], "b": null}}),
        json!({"parameters": {"a": ["x", "y"]}, "enforcementAction": "warn", "audit": false}),
        json!({"parameters": {"a": ["x", "y"]}, "match": {"objectSelector": {"matchLabels": {"a": "b"}}}}),
    ] {
        assert_eq!(hash(&plain, same.clone()), first, "{same}");
    }
    let parameters = json!({"parameters": {"a": ["x", "y"]}});
    for different in [
        with("/failurePolicy", json!("Ignore")),
        with("/variables", json!([{"name": "v", "expression": "1"}])),
        with("/matchConditions", json!([{"name": "v", "expression": "true"}])),
        with("/validations/0/expression", json!("false")),
        with("/validations/0/message", json!("n")),
        with("/parameters/1/default", json!(2)),
        with("/parameters/1/type", json!("number")),
        Template {
            uid: "other".to_owned(),
            ..plain.clone()
        },
    ] {
        assert_ne!(hash(&different, parameters.clone()), first, "{different:?}");
    }
    for different in [
        json!({"a": ["y", "x"]}),
        json!({"a": ["x"]}),
        json!({}),
        json!({"a": ["x, y"]}),
    ] {
        assert_ne!(hash(&plain, json!({"parameters": different})), first, "{different}");
    }
    let described = with("/parameters/0/description", json!("words"));
    assert_eq!(hash(&described, parameters), first);
}

#[test]
fn all_problems_of_parameters_are_told_at_once() {
    let template = template(json!({
        "parameters": [
            {"name": "s", "type": "string", "required": true}, {"name": "i", "type": "integer"},
            {"name": "n", "type": "number"}, {"name": "b", "type": "boolean"},
            {"name": "sl", "type": "stringList"}, {"name": "il", "type": "integerList"},
            {"name": "d", "type": "integer", "default": "x"},
        ],
        "validations": [{"expression": "true", "message": "m"}],
    }));
    let policy = policy(json!({"parameters": {
        "i": 1.5, "n": "1", "b": "true", "sl": ["a", 1], "il": 3, "S": "x", "other": 1,
    }}));
    let problems = check_parameters(&template, &policy).expect_err("all are wrong");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "spec.parameters.S: template t has no such parameter; it has s, and case matters",
            "spec.parameters.other: template t has no such parameter; it has s, i, n, b, sl, il, d; remove it",
            "spec.parameters.s: is required by template t; set it to a value of type string",
            "spec.parameters.i: must be a 64-bit integer, not 1.5",
            "spec.parameters.n: must be a number, not \"1\"",
            "spec.parameters.b: must be true or false, not \"true\"",
            "spec.parameters.sl: entry 1 must be a string, not 1; quote it",
            "spec.parameters.il: must be a list, not 3",
            "spec.parameters.d: must be a 64-bit integer, not \"x\"",
        ]
    );
}

#[test]
fn sizes_are_bounded() {
    let template = template(json!({
        "parameters": [{"name": "s", "type": "string"}, {"name": "l", "type": "stringList"}],
        "validations": [{"expression": "true", "message": "m"}],
    }));
    let check = |parameters: Value| check_parameters(&template, &policy(json!({"parameters": parameters})));
    assert!(check(json!({"s": "x".repeat(4096), "l": vec!["x"; 1000]})).is_ok());
    assert!(check(json!({"s": "x".repeat(4097)})).is_err());
    assert!(check(json!({"l": vec!["x"; 1001]})).is_err());
    let problems = check(json!({"l": vec!["x".repeat(100); 1000]})).expect_err("too much together");
    assert_eq!(problems[0].path, "spec.parameters");
}

#[test]
fn what_cannot_be_read_is_told_with_its_field() {
    let valid = json!({"expression": "true", "message": "m"});
    for (spec, told) in [
        (json!({}), "spec.validations: must have at least one entry"),
        (
            json!({"validations": [{"message": "m"}]}),
            "spec.validations[0].expression: must be set",
        ),
        (
            json!({"validations": [valid], "parameters": [{"name": "in", "type": "string"}]}),
            "spec.parameters[0].name: must be letters, digits and underscores, not begin with a digit, and be no word of the \
             expression language",
        ),
        (
            json!({"validations": [valid], "parameters": [{"name": "a", "type": "text"}]}),
            "spec.parameters[0].type: must be one of string, integer, number, boolean, stringList, integerList",
        ),
        (
            json!({"validations": [valid], "parameters": [{"name": "a", "type": "string"}, {"name": "a", "type": "string"}]}),
            "spec.parameters: has two entries named a",
        ),
        (
            json!({"validations": [valid], "variables": [{"name": "params", "expression": "1"}]}),
            "spec.variables[0].name: is taken by the parameters; choose another",
        ),
        (
            json!({"validations": [valid], "failurePolicy": "No"}),
            "spec.failurePolicy: must be one of Fail, Ignore",
        ),
        (
            json!({"validations": "x"}),
            "spec.validations: invalid type: string \"x\", expected a sequence",
        ),
    ] {
        let error = Template::parse(&json!({"metadata": {"name": "t"}, "spec": spec})).expect_err(told);
        assert_eq!(error.to_string(), told);
    }
    for (spec, told) in [
        (json!({}), "spec.templateRef.name: must be set"),
        (
            json!({"templateRef": {"name": "t"}, "enforcementAction": "no"}),
            "spec.enforcementAction: must be one of deny, warn, dryrun",
        ),
        (
            json!({"templateRef": {"name": "t"}, "match": {"objectSelector": "x"}}),
            "spec.match.objectSelector: must be a label selector",
        ),
    ] {
        let error = Policy::parse(&json!({"metadata": {"name": "p"}, "spec": spec})).expect_err(told);
        assert_eq!(error.to_string(), told);
    }
    assert!(Policy::parse(&json!({})).is_err());
}

#[test]
fn a_probe_has_a_value_of_every_type() {
    let types = ParameterType::ALL.map(|type_| json!({"name": type_.as_str(), "type": type_.as_str()}));
    let mut spec = json!({"parameters": types, "validations": [{"expression": "true", "message": "m"}]});
    spec["parameters"][1]["default"] = json!(5);
    let probe = probe(&template(spec));
    assert_eq!(
        probe["spec"]["variables"][0]["expression"],
        r#"{"boolean": dyn(true), "integer": dyn(5), "integerList": dyn([1]), "number": dyn(1.5), "string": dyn("probe"), "stringList": dyn(["probe"])}"#
    );
    assert_eq!(probe["metadata"]["ownerReferences"], Value::Null);
}

#[test]
fn names_of_bindings_are_short_enough_for_a_warning_that_is_cut() {
    let long = "a".repeat(253);
    let warning = format!(
        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': ",
        names::admission_policy(&names::digest(b"")),
        names::binding(&long)
    );
    assert!(warning.len() <= 256, "{}", warning.len());
    assert!(names::audit_binding(&long).len() <= names::binding(&long).len());
}

/// Values of a type, as JSON.
fn value(type_: ParameterType) -> BoxedStrategy<Value> {
    match type_ {
        ParameterType::String => any::<String>().prop_map(Value::from).boxed(),
        ParameterType::Integer => any::<i64>().prop_map(Value::from).boxed(),
        ParameterType::Number => any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(Value::from)
            .boxed(),
        ParameterType::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        ParameterType::StringList => prop::collection::vec(any::<String>(), 0..4)
            .prop_map(Value::from)
            .boxed(),
        ParameterType::IntegerList => prop::collection::vec(any::<i64>(), 0..4).prop_map(Value::from).boxed(),
    }
}

/// Parameters of up to three names with values of any type.
fn given() -> impl Strategy<Value = Vec<(String, ParameterType, Value)>> {
    let one = prop::sample::select(ParameterType::ALL.to_vec()).prop_flat_map(|type_| (Just(type_), value(type_)));
    prop::collection::btree_map("[a-c]", one, 0..3).prop_map(|all| {
        all.into_iter()
            .map(|(name, (type_, value))| (name, type_, value))
            .collect()
    })
}

/// An empty list is one of texts and of integers.
fn meant(given: Vec<(String, ParameterType, Value)>) -> Vec<(String, ParameterType, Value)> {
    let meant = given.into_iter().map(|(name, type_, value)| {
        let type_ = if value == json!([]) {
            ParameterType::StringList
        } else {
            type_
        };
        (name, type_, value)
    });
    meant.collect()
}

fn declaring(given: &[(String, ParameterType, Value)]) -> (Template, Policy) {
    let declared: Vec<Value> = given
        .iter()
        .map(|(name, type_, _)| json!({"name": name, "type": type_.as_str()}))
        .collect();
    let values: Map<String, Value> = given
        .iter()
        .map(|(name, _, value)| (name.clone(), value.clone()))
        .collect();
    (
        template(json!({"parameters": declared, "validations": [{"expression": "true", "message": "m"}]})),
        policy(json!({"parameters": values})),
    )
}

proptest! {
    #[test]
    fn any_value_of_its_type_is_accepted_and_shares_its_hash_with_equal_ones_only(one in given(), other in given()) {
        let (template, policy) = declaring(&one);
        let first = compiled(&template, &policy);
        let mut reversed = policy.clone();
        reversed.spec.parameters = policy.spec.parameters.clone().into_iter().rev().collect();
        let second = compiled(&template, &reversed);
        prop_assert_eq!(&first.hash, &second.hash);
        let (other_template, other_policy) = declaring(&other);
        let third = compiled(&other_template, &other_policy);
        prop_assert_eq!(first.hash == third.hash, meant(one) == meant(other));
    }

    #[test]
    fn different_policies_have_bindings_of_different_names(one in "[a-z0-9.-]{1,253}", other in "[a-z0-9.-]{1,253}") {
        prop_assert_eq!(names::binding(&one) == names::binding(&other), one == other);
        prop_assert_eq!(names::audit_binding(&one) == names::audit_binding(&other), one == other);
        prop_assert_ne!(names::binding(&one), names::audit_binding(&other));
        prop_assert!(names::binding(&one).len() <= 253);
    }
}
