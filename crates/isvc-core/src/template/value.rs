//! Values during evaluation, and the functions that templates call on them.

use std::borrow::Cow;

use serde_json::Value;

use super::{TemplateError, quote};

/// The most text that one rendering may make, intermediate values included.
///
/// The API server takes no object of more than 3 MiB; a template that repeats a large annotation could ask for any
/// amount of memory.
pub(super) const MAX_TEXT: usize = 8 << 20;

/// A value during evaluation; what comes from the context is borrowed from there.
#[derive(Debug, Clone)]
pub(super) enum Datum<'a> {
    /// A key that is not in its map.
    Missing,
    /// The literal `nil`.
    Nil,
    /// The context itself, whose fields are fixed.
    Root,
    Json(Cow<'a, Value>),
}

/// A datum to match on.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'v> {
    /// A missing key or nil.
    Absent,
    Root,
    Json(&'v Value),
}

impl Datum<'_> {
    pub(super) fn owned(value: impl Into<Value>) -> Self {
        Self::Json(Cow::Owned(value.into()))
    }

    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Missing | Self::Nil => View::Absent,
            Self::Root => View::Root,
            Self::Json(value) => View::Json(value),
        }
    }

    /// Whether `if` takes the value for true: not empty, not zero, not false.
    pub(super) fn truth(&self) -> bool {
        match self.view() {
            View::Absent | View::Json(Value::Null) => false,
            View::Root => true,
            View::Json(Value::Bool(value)) => *value,
            View::Json(Value::Number(number)) => number.as_f64().is_none_or(|number| number != 0.0),
            View::Json(Value::String(text)) => !text.is_empty(),
            View::Json(Value::Array(items)) => !items.is_empty(),
            View::Json(Value::Object(map)) => !map.is_empty(),
        }
    }
}

impl<'a> Datum<'a> {
    /// What a map holds for a key.
    pub(super) fn entry(self, key: &str) -> Option<Self> {
        match self {
            Self::Json(Cow::Borrowed(value)) => value.get(key).map(|value| Self::Json(Cow::Borrowed(value))),
            Self::Json(Cow::Owned(mut value)) => value.get_mut(key).map(|value| Self::owned(value.take())),
            Self::Missing | Self::Nil | Self::Root => None,
        }
    }

    /// What a list holds at a place.
    fn item(self, at: usize) -> Option<Datum<'a>> {
        match self {
            Self::Json(Cow::Borrowed(value)) => value.get(at).map(|value| Self::Json(Cow::Borrowed(value))),
            Self::Json(Cow::Owned(mut value)) => value.get_mut(at).map(|value| Self::owned(value.take())),
            Self::Missing | Self::Nil | Self::Root => None,
        }
    }
}

pub(super) fn failure(line: usize, expression: impl Into<String>, problem: impl Into<String>) -> TemplateError {
    TemplateError::Evaluation {
        line,
        expression: expression.into(),
        problem: problem.into(),
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// An error where a text grows beyond what one rendering may make.
pub(super) fn bounded(line: usize, length: usize) -> Result<(), TemplateError> {
    if length > MAX_TEXT {
        let problem = format!("the result is larger than {} MiB", MAX_TEXT >> 20);
        return Err(failure(line, "...", problem));
    }
    Ok(())
}

/// Equality as Go's `eq` has it: values of basic types only, and both of the same.
pub(super) fn basic_equal(left: &Datum<'_>, right: &Datum<'_>) -> Result<bool, String> {
    let basic = |value: &Value| matches!(value, Value::String(_) | Value::Bool(_) | Value::Number(_));
    match (left.view(), right.view()) {
        (View::Json(Value::String(a)), View::Json(Value::String(b))) => Ok(a == b),
        (View::Json(Value::Bool(a)), View::Json(Value::Bool(b))) => Ok(a == b),
        (View::Json(Value::Number(a)), View::Json(Value::Number(b))) => Ok(a == b),
        (View::Absent, View::Absent) => Ok(true),
        (View::Absent, View::Json(value)) | (View::Json(value), View::Absent) if basic(value) => Ok(false),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

pub(super) fn length(value: &Datum<'_>) -> Result<usize, String> {
    match value.view() {
        View::Json(Value::String(text)) => Ok(text.len()),
        View::Json(Value::Array(items)) => Ok(items.len()),
        View::Json(Value::Object(map)) => Ok(map.len()),
        View::Json(Value::Null) => Ok(0),
        View::Json(other) => Err(format!("{} has no length", type_name(other))),
        View::Absent => Err("a missing value has no length".to_owned()),
        View::Root => Err("the context has no length".to_owned()),
    }
}

/// `index map key...`: a missing key of a map of strings is the empty string.
pub(super) fn index<'a>(arguments: &[Datum<'a>]) -> Result<Datum<'a>, String> {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        value = match (value.view(), key.view()) {
            (View::Json(Value::Object(_) | Value::Null), View::Json(Value::String(key))) => {
                value.entry(key).unwrap_or_else(|| Datum::owned(""))
            }
            (View::Json(Value::Array(_)), View::Json(Value::Number(at))) => {
                let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                at.and_then(|at| value.item(at)).ok_or("index out of range")?
            }
            (View::Absent, _) => return Err("index of a missing value".to_owned()),
            _ => return Err("only maps by strings and lists by numbers can be indexed".to_owned()),
        };
    }
    Ok(value)
}

/// A value as `%v` writes it.
pub(super) fn printed(line: usize, value: &Datum<'_>) -> Result<String, TemplateError> {
    match value.view() {
        View::Absent => Ok("<nil>".to_owned()),
        View::Root => Err(TemplateError::Unsupported {
            line,
            construct: "printing the whole context".to_owned(),
        }),
        View::Json(value) => printed_json(line, value),
    }
}

fn printed_json(line: usize, value: &Value) -> Result<String, TemplateError> {
    Ok(match value {
        Value::Null => "map[]".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if number.is_f64() => {
            return Err(TemplateError::Unsupported {
                line,
                construct: "printing a fraction".to_owned(),
            });
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| printed_json(line, item))
                .collect::<Result<_, _>>()?;
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map {
                entries.push(format!("{key}:{}", printed_json(line, value)?));
            }
            format!("map[{}]", entries.join(" "))
        }
    })
}

/// Values side by side; a space only between two that are both no strings.
pub(super) fn sprint(line: usize, arguments: &[Datum<'_>], missing: &str) -> Result<String, TemplateError> {
    let mut text = String::new();
    let mut after_string = true;
    for (position, argument) in arguments.iter().enumerate() {
        let (shown, is_string) = match argument.view() {
            // An escaper gets the text in place of a missing value, `print` the nil itself.
            View::Absent => (Cow::Borrowed(missing), missing == "<no value>"),
            View::Json(Value::String(text)) => (Cow::Borrowed(text.as_str()), true),
            _ => (Cow::Owned(printed(line, argument)?), false),
        };
        if position > 0 && !is_string && !after_string {
            text.push(' ');
        }
        text.push_str(&shown);
        bounded(line, text.len())?;
        after_string = is_string;
    }
    Ok(text)
}

/// `printf` with the verbs `%s`, `%v`, `%d`, `%q` and `%%`, without flags.
pub(super) fn printf(line: usize, arguments: &[Datum<'_>]) -> Result<String, TemplateError> {
    let unsupported = |construct: String| TemplateError::Unsupported { line, construct };
    let no_format = || failure(line, "printf", "the first argument must be a string");
    let (format, values) = arguments.split_first().ok_or_else(no_format)?;
    let View::Json(Value::String(format)) = format.view() else {
        return Err(no_format());
    };
    let mut values = values.iter();
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = chars
            .next()
            .ok_or_else(|| unsupported("a format that ends in %".to_owned()))?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| unsupported(format!("%{verb} without an argument")))?;
        match (verb, value.view()) {
            ('s' | 'v', View::Json(Value::String(value))) => text.push_str(value),
            ('q', View::Json(Value::String(value))) => text.push_str(&quote(value)),
            ('d' | 'v', View::Json(Value::Number(_))) | ('v', _) => text.push_str(&printed(line, value)?),
            ('s', View::Absent) => text.push_str("%!s(<nil>)"),
            ('s' | 'd' | 'q', _) => return Err(unsupported(format!("%{verb} for this type of value"))),
            _ => return Err(unsupported(format!("the format verb %{verb}"))),
        }
        bounded(line, text.len())?;
    }
    if values.next().is_some() {
        return Err(unsupported("more arguments than format verbs".to_owned()));
    }
    Ok(text)
}

/// Escapes for HTML text. html/template escapes `+` as well, the function `html` does not.
pub(super) fn escape(text: &str, plus: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => escaped.push('\u{fffd}'),
            '"' => escaped.push_str("&#34;"),
            '&' => escaped.push_str("&amp;"),
            '\'' => escaped.push_str("&#39;"),
            '+' if plus => escaped.push_str("&#43;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes for the query of a URL: a space becomes `+`.
pub(super) fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            other => escaped.extend(format!("%{other:02X}").chars()),
        }
    }
    escaped
}
