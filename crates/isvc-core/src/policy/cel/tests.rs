use proptest::prelude::*;

use super::*;

/// What a double-quoted literal of ours means, by the escapes of the language's definition.
fn meaning(literal: &str) -> Option<String> {
    let content = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::new();
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\n' | '\r' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => text.push(c),
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                _ => return None,
            },
            c => text.push(c),
        }
    }
    Some(text)
}

#[test]
fn text_cannot_leave_its_quotes() {
    for (text, literal) in [
        ("", r#""""#),
        ("plain", r#""plain""#),
        (r#"") || true || (""#, r#""\") || true || (\"""#),
        (r"\", r#""\\""#),
        (r#"\" || true //"#, r#""\\\" || true //""#),
        ("'", r#""'""#),
        ("a\nb\tc\0", r#""a\u000ab\u0009c\u0000""#),
        ("\u{2028}\u{85}", r#""\u2028\u0085""#),
        ("\u{feff}\u{ffff}\u{7f}", r#""\ufeff\uffff\u007f""#),
        ("\u{1F600}\u{e4}", "\"\u{1F600}\u{e4}\""),
    ] {
        assert_eq!(quote(text), literal);
    }
}

#[test]
fn doubles_are_never_integers() {
    for (number, literal) in [
        (3.0, "3.0"),
        (-0.5, "-0.5"),
        (1e300, "1e300"),
        (5e-324, "5e-324"),
        (f64::MIN, "-1.7976931348623157e308"),
    ] {
        assert_eq!(double(number), literal);
    }
}

#[test]
fn names_that_expressions_can_read() {
    for good in ["a", "maxReplicas", "_x", "A1", "params", "size"] {
        assert!(is_identifier(good), "{good}");
    }
    for bad in ["", "1a", "a-b", "a.b", "true", "in", "while", "\u{e4}", "a b"] {
        assert!(!is_identifier(bad), "{bad}");
    }
}

#[test]
fn an_expression_is_put_on_one_line_without_changing_its_meaning() {
    for (expression, line) in [
        ("a && b", "a && b"),
        ("  a  ", "  a  "),
        ("a &&\n  b\n", "a &&   b"),
        ("a // first\n&& b // last", "a   && b"),
        ("a // it's\n", "a"),
        ("'// no comment'\n== a", "'// no comment' == a"),
        ("'a\tb'\n", r"'a\u0009b'"),
        ("'\u{feff}' == x", r"'\ufeff' == x"),
        ("'''a\nb'''", r"'''a\u000ab'''"),
        ("r'''a\\d\n\"b'''", r#""a\\d\u000a\"b""#),
        ("R\"a\tb\"", r#""a\u0009b""#),
        ("b'a\tb'", r"b'a\x09b'"),
        (r#""a\"b" + c"#, r#""a\"b" + c"#),
        ("\"a\\\\\"\n+ 'b'", "\"a\\\\\" + 'b'"),
        ("rr\n'x'", "rr 'x'"),
        ("for'x'\n", "for'x'"),
        // What is not valid stays as it was.
        ("'a\nb", "'a\nb"),
        ("br'a\tb'", "br'a\tb'"),
        ("'a\\\nb'", "'a\\\nb'"),
        ("a\u{b}b", "a\u{b}b"),
    ] {
        assert_eq!(on_one_line(expression), line, "{expression:?}");
    }
}

#[test]
fn asking_who_makes_the_request_is_seen_in_code_only() {
    for asks in [
        "authorizer.group('').check('get').allowed()",
        "request.userInfo.username == 'a'",
        "'x' == 'y' ||\nauthorizer.requestResource.check('get').allowed()",
        "'never ends authorizer",
    ] {
        assert!(asks_who(asks), "{asks}");
    }
    for does_not in [
        "object.metadata.name != 'authorizer'",
        "true // no authorizer here",
        "object.spec.myauthorizer == r'userInfo'",
        "has(object.metadata.annotations) && 'authorizer' in object.metadata.annotations",
    ] {
        assert!(!asks_who(does_not), "{does_not}");
    }
}

proptest! {
    #[test]
    fn a_literal_means_its_text(text in any::<String>()) {
        let literal = quote(&text);
        prop_assert_eq!(meaning(&literal), Some(text));
        prop_assert!(!literal.contains(char::is_control));
    }

    #[test]
    fn a_literal_is_one_token_wherever_it_stands(before in "[a-z &|()]{0,10}", text in any::<String>(), after in "[ &|()a-z]{0,10}") {
        let literal = quote(&text);
        let expression = format!("{before} {literal} {after}");
        let tokens = tokens(&expression).expect("every literal ends");
        let literals: Vec<_> = tokens.iter().filter(|token| matches!(token, Token::Literal { .. })).collect();
        let is_literal = Token::Literal { text: &literal, raw: false, bytes: false, quotes: 1 };
        // Two quotes and no more are the empty text, and not the start of three.
        prop_assert_eq!(literals, vec![&is_literal]);
    }

    #[test]
    fn doubles_read_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
        let literal = double(number);
        prop_assert!(literal.contains(['.', 'e']));
        prop_assert_eq!(literal.parse::<f64>().ok().map(f64::to_bits), Some(number.to_bits()));
    }

    #[test]
    fn what_is_on_one_line_stays_as_it_is(expression in any::<String>()) {
        let line = on_one_line(&expression);
        prop_assert_eq!(on_one_line(&line), line.clone());
        if !expression.contains(is_odd) {
            prop_assert_eq!(line, expression);
        }
    }
}
