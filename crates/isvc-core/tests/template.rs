//! Templates against a table recorded from Go's template packages.

use isvc_core::template::{Flavour, TemplateError, render, render_json};
use proptest::prelude::*;
use serde_json::{Value, json};

const TABLE: &str = include_str!("oracle/template.jsonl");

fn rendered(flavour: &str, template: &str, context: &Value) -> Result<String, TemplateError> {
    match flavour {
        "text" => render(template, context, Flavour::Text),
        "html" => render(template, context, Flavour::Html),
        "document" => {
            let document = json!({"args": ["--first", template], "image": "reg.test/a:1"});
            let document = render_json(&document, context, Flavour::Html)?;
            assert_eq!(document["image"], "reg.test/a:1");
            Ok(document["args"][1].as_str().expect("arguments stay strings").to_owned())
        }
        other => panic!("unknown flavour {other}"),
    }
}

#[test]
fn agrees_with_the_recorded_table() {
    let mut lines = TABLE
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("the table holds JSON"));
    let context = lines.next().expect("the first line is the context");
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in lines {
        count += 1;
        let text = |field: &str| row[field].as_str();
        let (flavour, template) = (
            text("flavour").expect("a flavour"),
            text("template").expect("a template"),
        );
        let got = rendered(flavour, template, &context);
        let agrees = match (&got, text("output")) {
            (
                Err(
                    TemplateError::Unsupported { .. } | TemplateError::Evaluation { .. } | TemplateError::Syntax { .. },
                ),
                _,
            ) if row["unsupported"] == true => true,
            (Ok(got), Some(output)) => got == output,
            (Err(_), None) => true,
            _ => false,
        };
        if !agrees {
            wrong.push(format!("{row}\n    got {got:?}"));
        }
    }
    assert!(count > 350, "only {count} rows");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let check = |template: &str, construct: &str| {
        let error = render(template, &json!({"Name": "m", "Labels": {}}), Flavour::Text).expect_err(template);
        assert!(
            matches!(error, TemplateError::Unsupported { .. }),
            "{template}: {error}"
        );
        assert!(error.to_string().contains(construct), "{template}: {error}");
    };
    check("{{range .Labels}}{{.}}{{end}}", "range");
    check("{{ $x := .Name }}", "a variable declaration");
    check("{{ $x }}", "$x");
    check("{{define \"a\"}}{{end}}", "define");
    check("{{template \"a\"}}", "template");
    check("{{println .Name}}", "println");
    check("{{ printf \"%5s\" .Name }}", "%5");
    check("{{ 1.5 }}", "1.5");
    check("{{ . }}", "the whole context");
}

#[test]
fn errors_name_line_and_expression() {
    let error = render(
        "a\nb{{ .Labels.x }}\n{{ .Nope.x }}",
        &json!({"Name": "m", "Labels": {}}),
        Flavour::Html,
    );
    let error = error.expect_err("there is no field Nope").to_string();
    assert_eq!(
        error,
        "template line 3: at <.Nope>: there is no field Nope here; the fields are Labels, Name"
    );
}

#[test]
fn markup_in_a_template_is_refused_for_html() {
    // Behind a tag html/template escapes by the grammar of HTML, which is not followed here.
    let context = json!({"Name": "m"});
    let error = render("<a href={{ .Name }}>", &context, Flavour::Html).expect_err("markup");
    assert!(error.to_string().contains("a literal <"), "{error}");
    assert_eq!(render("<{{ .Name }}>", &context, Flavour::Text).as_deref(), Ok("<m>"));
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}x{}", "{{if .Name}}".repeat(100_000), "{{end}}".repeat(100_000));
    let error = render(&deep, &json!({"Name": "m"}), Flavour::Text).expect_err("too deep");
    assert!(error.to_string().contains("nesting deeper than"), "{error}");
    let deep = format!("{{{{ {}.Name{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    render(&deep, &json!({"Name": "m"}), Flavour::Text).expect_err("too deep");
    let deep = format!("{{{{if .Name}}}}a{}{{{{end}}}}", "{{else if .Name}}b".repeat(100_000));
    render(&deep, &json!({"Name": "m"}), Flavour::Text).expect_err("too deep");
}

#[test]
fn the_result_is_bounded() {
    // A large annotation, repeated in the text and inside of one placeholder.
    let context = json!({"Annotations": {"a": "x".repeat(200_000)}});
    for template in [
        "{{ .Annotations.a }}".repeat(1000),
        "{{ .Annotations }}".repeat(1000),
        format!("{{{{ print{} }}}}", " .Annotations.a".repeat(1000)),
        format!(
            "{{{{ if and{} }}}}x{{{{ end }}}}",
            " (print .Annotations.a)".repeat(1000)
        ),
        format!(
            "{{{{ with .Annotations }}}}{}{{{{ end }}}}",
            "{{ .a | html }}".repeat(1000)
        ),
    ] {
        for flavour in [Flavour::Text, Flavour::Html] {
            let error = render(&template, &context, flavour).expect_err("too large").to_string();
            assert!(error.contains("the result is larger than 8 MiB"), "{error}");
        }
    }
    let few = render(&"{{ .Annotations.a }}".repeat(10), &context, Flavour::Text);
    assert_eq!(few.map(|text| text.len()), Ok(2_000_000));
}

#[test]
fn a_document_without_placeholders_is_left_alone() {
    let document = json!({"a": [1, 2.5, null, true, "<&>\u{2028}"], "b": {"c": "}}"}});
    assert_eq!(render_json(&document, &json!({}), Flavour::Html), Ok(document));
}

#[test]
fn keys_of_a_document_are_rendered_too() {
    let document = json!({"{{ .Name }}": {"x": "{{ .Name }}"}});
    assert_eq!(
        render_json(&document, &json!({"Name": "m"}), Flavour::Html),
        Ok(json!({"m": {"x": "m"}}))
    );
}

proptest! {
    #[test]
    fn any_template_renders_or_is_refused(template in "([a-z <>\"`(){}|.$-]|\\{\\{|\\}\\}|if |else|end|with |\\.Name|\\.Labels\\.a|printf ){0,24}") {
        let context = json!({"Name": "m", "Labels": {"a": "b"}});
        for flavour in [Flavour::Text, Flavour::Html] {
            if let Err(error) = render(&template, &context, flavour) {
                prop_assert!(error.to_string().contains("line 1"));
            }
        }
    }

    #[test]
    fn text_without_delimiters_is_itself(text in "[^{]{0,40}") {
        prop_assert_eq!(render(&text, &json!({}), Flavour::Text), Ok(text));
    }

    #[test]
    fn values_survive_a_document(value in "[^\\\\\"&'+<>\\x00-\\x1f]{0,20}") {
        let context = json!({"Labels": {"a": value}});
        let document = render_json(&json!({"args": ["{{ .Labels.a }}"]}), &context, Flavour::Html);
        prop_assert_eq!(document, Ok(json!({"args": [value]})));
    }
}
