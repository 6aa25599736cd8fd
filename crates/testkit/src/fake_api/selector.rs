//! Label and field selectors, as far as core objects support them.

use serde_json::Value;

/// What a list or watch is narrowed to.
#[derive(Clone, Default)]
pub(super) struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Clone)]
struct LabelRule {
    key: String,
    /// The accepted (or refused) values; empty means "whatever the value".
    values: Vec<String>,
    negated: bool,
}

#[derive(Clone)]
struct FieldRule {
    path: String,
    value: String,
    negated: bool,
}

impl Selector {
    /// Parses the two query parameters; the error is what a 400 should say.
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            labels: split(labels.unwrap_or_default())
                .map(label_rule)
                .collect::<Result<_, _>>()?,
            fields: split(fields.unwrap_or_default())
                .map(field_rule)
                .collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|rule| {
            let holds = labels[&rule.key]
                .as_str()
                .is_some_and(|value| rule.values.is_empty() || rule.values.iter().any(|wanted| wanted == value));
            holds != rule.negated
        }) && self.fields.iter().all(|rule| {
            let value = match rule.path.as_str() {
                "type" => &object["type"],
                "metadata.namespace" => &object["metadata"]["namespace"],
                _ => &object["metadata"]["name"],
            };
            (value.as_str() == Some(rule.value.as_str())) != rule.negated
        })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn label_rule(text: &str) -> Result<LabelRule, String> {
    let rule = |key: &str, values: Vec<String>, negated| LabelRule {
        key: key.trim().to_owned(),
        values,
        negated,
    };
    if let Some((key, set)) = text.split_once('(') {
        let values = set
            .trim_end_matches(')')
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        return match key.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => Ok(rule(key, values, false)),
            Some((key, "notin")) => Ok(rule(key, values, true)),
            _ => Err(format!("unable to parse requirement: {text}")),
        };
    }
    Ok(if let Some((key, value)) = text.split_once("!=") {
        rule(key, vec![value.trim().to_owned()], true)
    } else if let Some((key, value)) = text.split_once('=') {
        rule(key, vec![value.trim_start_matches('=').trim().to_owned()], false)
    } else if let Some(key) = text.strip_prefix('!') {
        rule(key, Vec::new(), true)
    } else {
        rule(text, Vec::new(), false)
    })
}

fn field_rule(text: &str) -> Result<FieldRule, String> {
    let (path, value, negated) = if let Some((path, value)) = text.split_once("!=") {
        (path, value, true)
    } else if let Some((path, value)) = text.split_once('=') {
        (path, value.trim_start_matches('='), false)
    } else {
        return Err(format!("invalid selector: '{text}'; can't understand '{text}'"));
    };
    if !["metadata.name", "metadata.namespace", "type"].contains(&path) {
        return Err(format!("field label not supported: {path}"));
    }
    Ok(FieldRule {
        path: path.to_owned(),
        value: value.to_owned(),
        negated,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selector;

    #[test]
    fn selectors_select_as_the_server_does() {
        let object = json!({
            "type": "Opaque",
            "metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "tier": "web"}},
        });
        let table = [
            (Some("app=x"), None, true),
            (Some("app==x,tier=web"), None, true),
            (Some("app=y"), None, false),
            (Some("app!=y"), None, true),
            (Some("missing!=y"), None, true),
            (Some("app in (x, y),tier"), None, true),
            (Some("app notin (x,y)"), None, false),
            (Some("missing"), None, false),
            (Some("!missing"), None, true),
            (Some("!app"), None, false),
            (None, Some("type!=helm.sh/release.v1"), true),
            (None, Some("type=Opaque,metadata.name=a"), true),
            (None, Some("metadata.name=b"), false),
            (None, Some("metadata.namespace=n"), true),
        ];
        for (labels, fields, expected) in table {
            let selector = Selector::parse(labels, fields).unwrap();
            assert_eq!(selector.matches(&object), expected, "{labels:?} {fields:?}");
        }
        assert!(Selector::parse(None, Some("data.x=1")).is_err());
        assert!(Selector::parse(Some("a near (b)"), None).is_err());
    }
}
