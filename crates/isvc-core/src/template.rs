//! The part of Go's template language that runtimes and platform settings use.
//!
//! Serving runtimes carry placeholders such as `{{.Name}}` in their containers, and platform settings carry a domain
//! and a path template. Both were written for Go's template packages, so this module follows those: white-space trim
//! markers, pipelines, parentheses, string and number literals, `if`, `else`, `with`, `end` and a few functions
//! (`index`, `printf`, `print`, `len`, `html`, `urlquery`, `eq`, `ne`, `and`, `or`, `not`).
//!
//! Whatever else the language has (`range`, variables, nested templates, formatting flags) is an error that names it;
//! the output is never quietly different from Go's. `tests/oracle/template.jsonl` was recorded from Go 1.26.
//!
//! The context is a JSON object. Its own fields are like those of a Go struct: naming one that does not exist is an
//! error. Objects inside it are maps: a missing key has no value, and so has a key of a missing value. JSON null
//! stands for an empty map.

use serde_json::Value;
use thiserror::Error;

use crate::json::as_go_writes;

mod eval;
mod lex;
mod parse;
mod tree;
mod value;

/// Which of Go's template packages to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// `text/template`: values as they are, a missing key prints `<no value>`. Used for domains and paths.
    Text,
    /// `html/template`: values escaped for HTML text, a missing key prints nothing. Used for containers.
    Html,
}

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template is not one.
    #[error("template line {line}: {problem}")]
    Syntax {
        /// Line in the template, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The template uses a part of the language that is not supported.
    #[error("template line {line}: {construct} is not supported; {SUPPORTED}")]
    Unsupported {
        /// Line in the template, from 1.
        line: usize,
        /// What is not supported.
        construct: String,
    },
    /// The template cannot be evaluated with this context.
    #[error("template line {line}: at <{expression}>: {problem}")]
    Evaluation {
        /// Line in the template, from 1.
        line: usize,
        /// The expression that failed.
        expression: String,
        /// Why.
        problem: String,
    },
    /// A rendered document is no longer valid JSON, because a value brought in a character that JSON text cannot hold.
    #[error("the document is not valid JSON after replacing placeholders: {problem}")]
    Json {
        /// What the JSON reader said, with a position in the rendered text.
        problem: String,
    },
}

const SUPPORTED: &str =
    "use fields such as {{ .Name }}, index, if, with, printf, print, len, html, urlquery, eq, ne, and, or, not";

/// Renders a template.
///
/// ```
/// use isvc_core::template::{Flavour, render};
///
/// let context = serde_json::json!({"Name": "m", "Labels": {"team": "a&b"}});
/// assert_eq!(render("{{ .Name }}-{{ .Labels.team }}", &context, Flavour::Text).as_deref(), Ok("m-a&b"));
/// assert_eq!(render("{{ .Labels.team }}", &context, Flavour::Html).as_deref(), Ok("a&amp;b"));
/// assert_eq!(render("{{ .Labels.none }}", &context, Flavour::Text).as_deref(), Ok("<no value>"));
/// ```
///
/// # Errors
///
/// A [`TemplateError`] with the line and the expression.
pub fn render(template: &str, context: &Value, flavour: Flavour) -> Result<String, TemplateError> {
    let nodes = parse::parse(template, flavour)?;
    eval::render(&nodes, context, flavour)
}

/// Checks that a template can be parsed.
///
/// # Errors
///
/// A [`TemplateError`] with the line.
pub fn check(template: &str, flavour: Flavour) -> Result<(), TemplateError> {
    parse::parse(template, flavour).map(|_| ())
}

/// Replaces the placeholders in the strings and keys of a JSON document.
///
/// The document is written as JSON text, that text is rendered as one template, and the result is read back. This is
/// what `KServe` does with a container, and three of its effects are kept: text inside a placeholder stands in JSON
/// text, so a double quote there is written `\"` and does not parse (a raw string in backquotes does); backslashes
/// in a value are JSON escapes; a line break in a value is not valid JSON and fails.
///
/// # Errors
///
/// A [`TemplateError`]; [`TemplateError::Json`] if the rendered text cannot be read back.
pub fn render_json(value: &Value, context: &Value, flavour: Flavour) -> Result<Value, TemplateError> {
    let text = as_go_writes(&value.to_string());
    if !text.contains("{{") {
        return Ok(value.clone());
    }
    let rendered = render(&text, context, flavour)?;
    serde_json::from_str(&rendered).map_err(|cause| TemplateError::Json {
        problem: cause.to_string(),
    })
}

/// A text in double quotes as Go's `%q` writes it.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => quoted.extend(format!("\\x{:02x}", u32::from(c)).chars()),
            // Rust and Go agree on what can be printed but for a few recent additions to Unicode.
            c if c.is_ascii() || c.escape_debug().count() == 1 => quoted.push(c),
            c if u32::from(c) < 0x1_0000 => quoted.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => quoted.extend(format!("\\U{:08x}", u32::from(c)).chars()),
        }
    }
    quoted.push('"');
    quoted
}
