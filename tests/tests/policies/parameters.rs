//! What a parameter says is what the API server's rules read, whatever is in it.

use kube::api::{DynamicObject, PostParams};
use leanserve_tests::{Installation, compiled, services};
use serde_json::{Map, Value, json};
use testkit::eventually;

use crate::DEADLINE;

/// Texts that mean something to whoever reads expressions, quotes or lines.
const TEXTS: [&str; 14] = [
    "",
    "plain",
    "\"",
    "'",
    "\\",
    "\\\"",
    "\") || true || (\"",
    "'''\"\"\"",
    "a\nb\r\nc\td",
    "// no comment",
    "\\u0041\\n${x}{{y}}",
    "\u{0}\u{7}\u{1b}\u{7f}\u{85}\u{9f}",
    "\u{2028}\u{2029}\u{feff}\u{200b}\u{ffff}",
    "\u{e4}\u{4e2d}\u{1F600}",
];

/// Numbers at the ends of what there is, each as an expression.
const INTEGERS: [(i64, &str); 4] = [
    (i64::MIN, "-9223372036854775807 - 1"),
    (i64::MAX, "9223372036854775807"),
    (0, "0"),
    (-1, "-1"),
];
const NUMBERS: [(f64, &str); 6] = [
    (3.0, "double(3)"),
    (-0.5, "0.0 - 0.5"),
    (1e300, "double('1e300')"),
    (5e-324, "double('5e-324')"),
    (-1.797_693_134_862_315_7e308, "double('-1.7976931348623157e308')"),
    (0.1, "1.0 / 10.0"),
];

/// Declarations, values and the rules that only these values keep. The API server compares a text to an annotation, which
/// comes to it as JSON and never as part of an expression.
fn everything() -> (Vec<Value>, Map<String, Value>, Vec<Value>) {
    let (mut declared, mut values, mut rules) = (Vec::new(), Map::new(), Vec::new());
    let mut add = |type_: &str, value: Value, rule: &dyn Fn(&str) -> String| {
        let name = format!("p{}", declared.len());
        rules.push(json!({"expression": rule(&name), "message": format!("parameter {name} is not {value}")}));
        declared.push(json!({"name": name, "type": type_}));
        values.insert(name, value);
    };
    for (index, text) in TEXTS.iter().enumerate() {
        let rule = |name: &str| format!("variables.params.{name} == object.metadata.annotations['text-{index}']");
        add("string", json!(text), &rule);
    }
    for (number, expression) in INTEGERS {
        add("integer", json!(number), &|name| {
            format!("variables.params.{name} == {expression}")
        });
    }
    for (number, expression) in NUMBERS {
        let rule =
            |name: &str| format!("type(variables.params.{name}) == double && variables.params.{name} == {expression}");
        add("number", json!(number), &rule);
    }
    add("boolean", json!(true), &|name| {
        format!("variables.params.{name} == true")
    });
    let rule = |name: &str| {
        let all = (0..TEXTS.len()).map(|index| format!("object.metadata.annotations['text-{index}']"));
        format!("variables.params.{name} == [{}]", all.collect::<Vec<_>>().join(", "))
    };
    add("stringList", json!(TEXTS), &rule);
    add("stringList", json!([]), &|name| {
        format!("variables.params.{name}.size() == 0")
    });
    add("integerList", json!([i64::MAX, -1]), &|name| {
        format!("variables.params.{name} == [9223372036854775807, -1]")
    });
    (declared, values, rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_read_what_parameters_say() {
    let plane = Installation::shared().await.plane;
    let namespace = plane.namespace("parameters").await.expect("a namespace");
    let client = plane.client().await.expect("a client");
    let (declared, values, mut rules) = everything();
    // It tells when the rules are in force.
    rules.push(json!({"expression": "!('refuse' in object.metadata.annotations)", "message": "it is in force"}));
    let template = |name: &str, declared: &Value, rules: &Value| {
        json!({
            "apiVersion": "leanserve.dev/v1alpha1", "kind": "InferencePolicyTemplate", "metadata": {"name": name},
            "spec": {"parameters": declared, "validations": rules},
        })
    };
    let policy = |name: &str, values: &Value| {
        json!({
            "apiVersion": "leanserve.dev/v1alpha1", "kind": "InferencePolicy", "metadata": {"name": name},
            "spec": {
                "templateRef": {"name": name}, "parameters": values,
                "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}},
            },
        })
    };
    let enforced = compiled::enforce(
        &client,
        &template("every-type", &json!(declared), &json!(rules)),
        &policy("every-type", &json!(values)),
    )
    .await;
    enforced.expect("the API server takes every literal");

    let api = services::api(client.clone(), &namespace.name);
    let answer = async |refuse: bool| {
        let mut service = services::sklearn("service", &namespace.name, None);
        for (index, text) in TEXTS.iter().enumerate() {
            service["metadata"]["annotations"][format!("text-{index}")] = json!(text);
        }
        if refuse {
            service["metadata"]["annotations"]["refuse"] = json!("");
        }
        let service: DynamicObject = serde_json::from_value(service).expect("an object");
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        api.create(&dry_run, &service)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let refusal = eventually("the rules are in force", DEADLINE, async || {
        answer(true).await.err().ok_or("admitted")
    })
    .await;
    assert!(refusal.contains("it is in force"), "{refusal}");
    answer(false).await.expect("every parameter is what it was set to");

    // As big as parameters may be: the API server takes it.
    let long: Vec<String> = (0..1000).map(|index| format!("{index:0>60}")).collect();
    let enforced = compiled::enforce(
        &client,
        &template(
            "long-list",
            &json!([{"name": "list", "type": "stringList"}]),
            &json!([{"expression": "object.metadata.name in variables.params.list || true", "message": "m"}]),
        ),
        &policy("long-list", &json!({"list": long})),
    )
    .await;
    enforced.expect("the API server takes a list of that size");
}
