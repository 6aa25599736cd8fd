//! JSON text in the form Go's encoder gives it.

/// JSON text with the characters escaped that Go's encoder escapes for the sake of HTML and JavaScript.
///
/// None of them occurs in JSON outside of strings, where both forms mean the same, so they can be replaced in the
/// finished text.
pub(crate) fn as_go_writes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::as_go_writes;

    #[test]
    fn five_characters_are_escaped_and_mean_the_same() {
        let json = serde_json::json!({"a": "<b> & \u{2028}\u{2029} \u{e4}"});
        let text = as_go_writes(&json.to_string());
        assert_eq!(text, "{\"a\":\"\\u003cb\\u003e \\u0026 \\u2028\\u2029 \u{e4}\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(json));
    }
}
