//! The Common Expression Language, as far as text has to be put into it or read from it.

/// What is read of an expression: enough to tell code from strings and comments.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A name, a keyword or the start of a number.
    Word(&'a str),
    /// A string or bytes literal with its prefix and quotes.
    Literal {
        text: &'a str,
        raw: bool,
        bytes: bool,
        quotes: usize,
    },
    Comment,
    /// Any other character.
    Other(char),
}

/// Words that cannot name anything in an expression, by the grammar of the language.
pub(crate) const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Whether a variable or parameter may have this name.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !RESERVED.contains(&name)
}

/// A string literal of exactly this text.
pub(super) fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            c if is_odd(c) || is_line_end(c) => literal.push_str(&escape(c)),
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// A character of the basic plane by its number.
fn escape(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// A double literal. It has a point or an exponent, because `3` would be an integer.
pub(super) fn double(number: f64) -> String {
    format!("{number:?}")
}

/// Line ends that are no control characters.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Control characters, with which warnings are dropped; and the mark of the order of bytes and what is no character, which
/// server-side apply takes as escapes only, because it takes its body for YAML.
pub(super) fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The same expression without odd characters, and so on one line. An expression that is not valid may come back as it
/// is: the API server says what is wrong with it.
pub(super) fn on_one_line(expression: &str) -> String {
    if !expression.contains(is_odd) {
        return expression.to_owned();
    }
    let Some(tokens) = tokens(expression) else {
        return expression.to_owned();
    };
    let mut line = String::with_capacity(expression.len());
    for token in tokens {
        match token {
            Token::Word(word) => line.push_str(word),
            Token::Literal {
                text,
                raw,
                bytes,
                quotes,
            } => match literal_on_one_line(text, raw, bytes, quotes) {
                Some(text) => line.push_str(&text),
                None => return expression.to_owned(),
            },
            Token::Comment | Token::Other('\t' | '\n' | '\r' | '\u{c}') => line.push(' '),
            Token::Other(c) => line.push(c),
        }
    }
    line.trim().to_owned()
}

/// Whether an expression asks who makes the request. An audit makes its requests itself, and its answer would be about
/// nobody else.
pub(super) fn asks_who(expression: &str) -> bool {
    match tokens(expression) {
        Some(tokens) => tokens
            .iter()
            .any(|token| matches!(token, Token::Word("authorizer" | "userInfo"))),
        None => expression.contains("authorizer") || expression.contains("userInfo"),
    }
}

/// `None` where a literal does not end.
fn tokens(expression: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_ascii_alphanumeric() || c == '_' {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let word = &rest[..end];
            let prefix = word.to_ascii_lowercase();
            if rest[end..].starts_with(['"', '\'']) && matches!(prefix.as_str(), "r" | "b" | "br") {
                let literal = literal(rest, end, prefix.contains('r'), prefix.contains('b'))?;
                let length = literal_length(&literal);
                tokens.push(literal);
                length
            } else {
                tokens.push(Token::Word(word));
                end
            }
        } else if c == '"' || c == '\'' {
            let literal = literal(rest, 0, false, false)?;
            let length = literal_length(&literal);
            tokens.push(literal);
            length
        } else if rest.starts_with("//") {
            tokens.push(Token::Comment);
            rest.find('\n').unwrap_or(rest.len())
        } else {
            tokens.push(Token::Other(c));
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    Some(tokens)
}

fn literal_length(token: &Token<'_>) -> usize {
    match token {
        Token::Literal { text, .. } => text.len(),
        Token::Word(_) | Token::Comment | Token::Other(_) => 0,
    }
}

/// The literal at the start of `text`, whose quotes begin after `prefix` bytes.
fn literal(text: &str, prefix: usize, raw: bool, bytes: bool) -> Option<Token<'_>> {
    let quote = if text[prefix..].starts_with('"') { "\"" } else { "'" };
    let triple = quote.repeat(3);
    let quotes = if text[prefix..].starts_with(&triple) { 3 } else { 1 };
    let end_mark = if quotes == 3 { triple.as_str() } else { quote };
    let mut at = prefix + quotes;
    while !text[at..].starts_with(end_mark) {
        let mut chars = text[at..].chars();
        let c = chars.next()?;
        at += c.len_utf8();
        if c == '\\' && !raw {
            at += chars.next()?.len_utf8();
        }
    }
    Some(Token::Literal {
        text: &text[..at + quotes],
        raw,
        bytes,
        quotes,
    })
}

fn literal_on_one_line(text: &str, raw: bool, bytes: bool, quotes: usize) -> Option<String> {
    if !text.contains(is_odd) {
        return Some(text.to_owned());
    }
    let start = text.find(['"', '\'']).expect("a literal has quotes") + quotes;
    let content = &text[start..text.len() - quotes];
    if raw && !bytes {
        return Some(quote(content));
    }
    if raw {
        return None;
    }
    let mut line = text[..start].to_owned();
    let mut escaped = false;
    for c in content.chars() {
        if !is_odd(c) {
            line.push(c);
        } else if escaped || (bytes && !c.is_ascii()) {
            return None;
        } else if bytes {
            let escape = format!("\\x{:02x}", u32::from(c));
            line.push_str(&escape);
        } else {
            line.push_str(&escape(c));
        }
        escaped = c == '\\' && !escaped;
    }
    line.push_str(&text[text.len() - quotes..]);
    Some(line)
}

#[cfg(test)]
mod tests;
