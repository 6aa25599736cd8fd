//! Label selectors as people type them.

/// The most labels a selector may be about; more are better said by one label.
const MOST_REQUIREMENTS: usize = 16;

/// Checks a label selector in the form that `kubectl get -l` takes, and gives it as the API server gets it. Empty selects
/// everything.
///
/// Source of the form: the grammar in `k8s.io/apimachinery/pkg/labels`, without `<` and `>`.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let requirements = split(text)?;
    if requirements.len() > MOST_REQUIREMENTS {
        return Err(format!(
            "{} requirements are too many; give at most {MOST_REQUIREMENTS}",
            requirements.len()
        ));
    }
    requirements.iter().try_for_each(|one| requirement(one))?;
    Ok(requirements.join(","))
}

/// Parts between commas that are not inside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (index, character) in text.char_indices() {
        match character {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("`{text}`: the parentheses do not match")),
            ',' if !inside => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("`{text}`: the parentheses do not match"));
    }
    parts.push(text[start..].trim());
    Ok(parts)
}

fn requirement(text: &str) -> Result<(), String> {
    if let Some(name) = text.strip_prefix('!') {
        return key(name.trim());
    }
    for operator in ["!=", "==", "="] {
        if let Some((name, one)) = text.split_once(operator) {
            key(name.trim())?;
            return value(one.trim());
        }
    }
    if let Some((head, rest)) = text.split_once('(') {
        let mut words = head.split_whitespace();
        let (Some(name), Some("in" | "notin"), None) = (words.next(), words.next(), words.next()) else {
            return Err(unreadable(text));
        };
        key(name)?;
        let Some(values) = rest.trim_end().strip_suffix(')') else {
            return Err(unreadable(text));
        };
        return values.split(',').try_for_each(|one| value(one.trim()));
    }
    key(text)
}

fn unreadable(text: &str) -> String {
    format!("`{text}` is no requirement; valid are KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A,B) and KEY notin (A,B)")
}

fn key(text: &str) -> Result<(), String> {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let label = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let is_domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(label);
    if is_word(name) && prefix.is_none_or(is_domain) {
        Ok(())
    } else if text.contains(char::is_whitespace) {
        Err(unreadable(text))
    } else {
        Err(format!("`{text}` is no label's key; give NAME or DOMAIN/NAME"))
    }
}

fn value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_word(text) {
        Ok(())
    } else {
        Err(format!(
            "`{text}` is no label's value: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
        ))
    }
}

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_takes_is_taken() {
        for (text, expected) in [
            ("", ""),
            ("  ", ""),
            ("team", "team"),
            ("!team", "!team"),
            ("team=a", "team=a"),
            ("team==a, tier!=b", "team==a,tier!=b"),
            (
                "team in (a, b),example.com/tier notin (c)",
                "team in (a, b),example.com/tier notin (c)",
            ),
            ("team=", "team="),
            ("serving.example.com/by=leanserve", "serving.example.com/by=leanserve"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            (",", "`` is no label's key"),
            ("team=a b", "`a b` is no label's value"),
            ("team is a", "`team is a` is no requirement"),
            ("team within (a)", "is no requirement"),
            ("team in (a", "parentheses"),
            ("team in a)", "parentheses"),
            ("Example.com/x=1", "`Example.com/x` is no label's key"),
            ("a/b/c", "no label's key"),
            ("-team", "no label's key"),
            ("team=-a", "no label's value"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = vec!["a"; MOST_REQUIREMENTS + 1].join(",");
        assert!(parse(&many).is_err_and(|error| error.contains("too many")));
        assert!(parse(&"a".repeat(64)).is_err());
    }
}
