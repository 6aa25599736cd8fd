//! Evaluates the tree of a template.

use serde_json::Value;

use super::parse::{Command, Function, Node, Operand, Pipeline, Start};
use super::{Flavour, TemplateError, quote};

/// A value during evaluation.
#[derive(Debug, Clone, PartialEq)]
enum Datum {
    /// A key that is not in its map.
    Missing,
    /// The literal `nil`.
    Nil,
    /// The context itself, whose fields are fixed.
    Root,
    Json(Value),
}

impl Datum {
    fn text(text: impl Into<String>) -> Self {
        Self::Json(Value::String(text.into()))
    }

    /// Whether `if` takes the value for true: not empty, not zero, not false.
    fn truth(&self) -> bool {
        match self {
            Self::Missing | Self::Nil | Self::Json(Value::Null) => false,
            Self::Root => true,
            Self::Json(Value::Bool(value)) => *value,
            Self::Json(Value::Number(number)) => number.as_f64().is_none_or(|number| number != 0.0),
            Self::Json(Value::String(text)) => !text.is_empty(),
            Self::Json(Value::Array(items)) => !items.is_empty(),
            Self::Json(Value::Object(map)) => !map.is_empty(),
        }
    }
}

struct Evaluator<'a> {
    context: &'a Value,
    flavour: Flavour,
    output: String,
}

/// Renders a parsed template.
pub(super) fn render(nodes: &[Node], context: &Value, flavour: Flavour) -> Result<String, TemplateError> {
    let mut evaluator = Evaluator {
        context,
        flavour,
        output: String::new(),
    };
    evaluator.nodes(nodes, &Datum::Root)?;
    Ok(evaluator.output)
}

fn failure(line: usize, expression: impl Into<String>, problem: impl Into<String>) -> TemplateError {
    TemplateError::Evaluation {
        line,
        expression: expression.into(),
        problem: problem.into(),
    }
}

impl Evaluator<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Datum) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.push_str(text),
                Node::Print(pipeline) => {
                    let printed = match self.escaper_alone(pipeline, dot)? {
                        Some(printed) => printed,
                        None => self.print(pipeline, &self.pipeline(pipeline, dot)?)?,
                    };
                    self.output.push_str(&printed);
                }
                Node::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let branch = if self.pipeline(condition, dot)?.truth() {
                        then
                    } else {
                        otherwise
                    };
                    self.nodes(branch, dot)?;
                }
                Node::With { value, then, otherwise } => {
                    let value = self.pipeline(value, dot)?;
                    if value.truth() {
                        self.nodes(then, &value)?;
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A pipeline that is nothing but a call of `html` or `urlquery`.
    ///
    /// html/template evaluates the arguments of such a call itself, and to it a missing value is nil.
    fn escaper_alone(&self, pipeline: &Pipeline, dot: &Datum) -> Result<Option<String>, TemplateError> {
        let [Command::Call { function, arguments }] = pipeline.commands.as_slice() else {
            return Ok(None);
        };
        if self.flavour != Flavour::Html || arguments.is_empty() {
            return Ok(None);
        }
        let values = || -> Result<String, TemplateError> {
            let values: Vec<Datum> = arguments
                .iter()
                .map(|argument| self.operand(pipeline.line, argument, dot))
                .collect::<Result<_, _>>()?;
            sprint(pipeline.line, &values, "<nil>")
        };
        Ok(match function {
            Function::Html => Some(escape(&values()?, false)),
            Function::UrlQuery => Some(escape(&query_escape(&values()?), true)),
            _ => None,
        })
    }

    /// The printed form of a pipeline's value.
    fn print(&self, pipeline: &Pipeline, value: &Datum) -> Result<String, TemplateError> {
        let unescaped = match (value, self.flavour) {
            (Datum::Missing, Flavour::Text) => "<no value>".to_owned(),
            (Datum::Missing, Flavour::Html) => String::new(),
            (Datum::Nil | Datum::Root | Datum::Json(_), _) => printed(pipeline.line, value)?,
        };
        // html at the end of a pipeline replaces the escaper that html/template would add.
        let escaped = pipeline.commands.last().and_then(Command::function) == Some(Function::Html);
        Ok(if self.flavour == Flavour::Text || escaped {
            unescaped
        } else {
            escape(&unescaped, true)
        })
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Datum) -> Result<Datum, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(match command {
                Command::Operand(operand) => self.operand(pipeline.line, operand, dot)?,
                Command::Call { function, arguments } => {
                    self.call(pipeline.line, *function, arguments, value.take(), dot)?
                }
            });
        }
        Ok(value.unwrap_or(Datum::Missing))
    }

    fn operand(&self, line: usize, operand: &Operand, dot: &Datum) -> Result<Datum, TemplateError> {
        Ok(match operand {
            Operand::Text(text) => Datum::text(text.as_str()),
            Operand::Integer(number) => Datum::Json(Value::from(*number)),
            Operand::Bool(value) => Datum::Json(Value::Bool(*value)),
            Operand::Nil => Datum::Nil,
            Operand::Call(function) => self.call(line, *function, &[], None, dot)?,
            Operand::Chain { start, fields } => {
                let mut value = match start {
                    Start::Dot => dot.clone(),
                    Start::Root => Datum::Root,
                    Start::Parentheses(pipeline) => self.pipeline(pipeline, dot)?,
                };
                for (index, field) in fields.iter().enumerate() {
                    value = self
                        .field(value, field)
                        .map_err(|problem| failure(line, format!(".{}", fields[..=index].join(".")), problem))?;
                }
                value
            }
        })
    }

    fn field(&self, value: Datum, field: &str) -> Result<Datum, String> {
        match value {
            Datum::Missing | Datum::Json(Value::Null) => Ok(Datum::Missing),
            Datum::Nil => Err(format!("nil has no field {field}")),
            Datum::Root => self
                .context
                .get(field)
                .map(|value| Datum::Json(value.clone()))
                .ok_or_else(|| format!("there is no field {field} here; the fields are {}", names(self.context))),
            Datum::Json(Value::Object(mut map)) => Ok(map.remove(field).map_or(Datum::Missing, Datum::Json)),
            Datum::Json(other) => Err(format!("can't evaluate field {field} in {}", type_name(&other))),
        }
    }

    fn call(
        &self,
        line: usize,
        function: Function,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: &Datum,
    ) -> Result<Datum, TemplateError> {
        let fail = |problem: String| failure(line, function.name(), problem);
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        let count = operands.len() + usize::from(piped.is_some());
        for operand in operands {
            let value = self.operand(line, operand, dot)?;
            // `and` and `or` stop at the argument that decides.
            let decided = match function {
                Function::And => !value.truth(),
                Function::Or => value.truth(),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        let (least, most) = match function {
            Function::Not | Function::Len => (1, 1),
            Function::Ne => (2, 2),
            Function::Eq => (2, usize::MAX),
            Function::And | Function::Or | Function::Printf | Function::Index => (1, usize::MAX),
            Function::Html | Function::Print | Function::UrlQuery => (0, usize::MAX),
        };
        if count < least || count > most {
            return Err(fail(format!("wrong number of arguments: {count}")));
        }
        match function {
            Function::And | Function::Or => Ok(arguments.pop().unwrap_or(Datum::Missing)),
            Function::Not => Ok(Datum::Json(Value::Bool(!arguments.iter().any(Datum::truth)))),
            Function::Eq | Function::Ne => {
                let mut equal = false;
                for other in &arguments[1..] {
                    equal |= basic_equal(&arguments[0], other).map_err(fail)?;
                }
                Ok(Datum::Json(Value::Bool(equal == (function == Function::Eq))))
            }
            Function::Len => length(&arguments[0]).map(|n| Datum::Json(Value::from(n))).map_err(fail),
            Function::Index => index(&arguments).map_err(fail),
            Function::Print => sprint(line, &arguments, "<nil>").map(Datum::text),
            Function::Printf => printf(line, &arguments).map(Datum::text),
            Function::Html => Ok(Datum::text(escape(&sprint(line, &arguments, "<no value>")?, false))),
            Function::UrlQuery => Ok(Datum::text(query_escape(&sprint(line, &arguments, "<no value>")?))),
        }
    }
}

fn names(context: &Value) -> String {
    context
        .as_object()
        .map(|map| map.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        .unwrap_or_default()
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Equality as Go's `eq` has it: values of basic types only, and both of the same.
fn basic_equal(left: &Datum, right: &Datum) -> Result<bool, String> {
    match (left, right) {
        (Datum::Json(Value::String(a)), Datum::Json(Value::String(b))) => Ok(a == b),
        (Datum::Json(Value::Bool(a)), Datum::Json(Value::Bool(b))) => Ok(a == b),
        (Datum::Json(Value::Number(a)), Datum::Json(Value::Number(b))) => Ok(a == b),
        (Datum::Missing | Datum::Nil, Datum::Missing | Datum::Nil) => Ok(true),
        (Datum::Missing | Datum::Nil, Datum::Json(Value::String(_) | Value::Bool(_) | Value::Number(_)))
        | (Datum::Json(Value::String(_) | Value::Bool(_) | Value::Number(_)), Datum::Missing | Datum::Nil) => Ok(false),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn length(value: &Datum) -> Result<usize, String> {
    match value {
        Datum::Json(Value::String(text)) => Ok(text.len()),
        Datum::Json(Value::Array(items)) => Ok(items.len()),
        Datum::Json(Value::Object(map)) => Ok(map.len()),
        Datum::Json(Value::Null) => Ok(0),
        Datum::Json(other) => Err(format!("{} has no length", type_name(other))),
        Datum::Missing | Datum::Nil => Err("a missing value has no length".to_owned()),
        Datum::Root => Err("the context has no length".to_owned()),
    }
}

/// `index map key...`: a missing key of a map of strings is the empty string.
fn index(arguments: &[Datum]) -> Result<Datum, String> {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        value = match (value, key) {
            (Datum::Json(Value::Object(mut map)), Datum::Json(Value::String(key))) => {
                Datum::Json(map.remove(key).unwrap_or_else(|| Value::String(String::new())))
            }
            (Datum::Json(Value::Null), Datum::Json(Value::String(_))) => Datum::text(""),
            (Datum::Json(Value::Array(mut items)), Datum::Json(Value::Number(at))) => {
                let at = at
                    .as_u64()
                    .and_then(|at| usize::try_from(at).ok())
                    .filter(|at| *at < items.len());
                Datum::Json(items.swap_remove(at.ok_or("index out of range")?))
            }
            (Datum::Missing | Datum::Nil, _) => return Err("index of a missing value".to_owned()),
            _ => return Err("only maps by strings and lists by numbers can be indexed".to_owned()),
        };
    }
    Ok(value)
}

/// A value as `%v` writes it.
fn printed(line: usize, value: &Datum) -> Result<String, TemplateError> {
    match value {
        Datum::Missing | Datum::Nil => Ok("<nil>".to_owned()),
        Datum::Root => Err(TemplateError::Unsupported {
            line,
            construct: "printing the whole context".to_owned(),
        }),
        Datum::Json(value) => printed_json(line, value),
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
fn sprint(line: usize, arguments: &[Datum], missing: &str) -> Result<String, TemplateError> {
    let mut text = String::new();
    let mut after_string = true;
    for (position, argument) in arguments.iter().enumerate() {
        let (shown, is_string) = match argument {
            // An escaper gets the text in place of a missing value, `print` the nil itself.
            Datum::Missing | Datum::Nil => (missing.to_owned(), missing == "<no value>"),
            Datum::Json(Value::String(text)) => (text.clone(), true),
            other => (printed(line, other)?, false),
        };
        if position > 0 && !is_string && !after_string {
            text.push(' ');
        }
        text.push_str(&shown);
        after_string = is_string;
    }
    Ok(text)
}

/// `printf` with the verbs `%s`, `%v`, `%d`, `%q` and `%%`, without flags.
fn printf(line: usize, arguments: &[Datum]) -> Result<String, TemplateError> {
    let unsupported = |construct: String| TemplateError::Unsupported { line, construct };
    let Some((Datum::Json(Value::String(format)), values)) = arguments.split_first() else {
        return Err(failure(line, "printf", "the first argument must be a string"));
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
        match (verb, value) {
            ('s' | 'v', Datum::Json(Value::String(value))) => text.push_str(value),
            ('q', Datum::Json(Value::String(value))) => text.push_str(&quote(value)),
            ('d' | 'v', Datum::Json(Value::Number(_))) | ('v', _) => text.push_str(&printed(line, value)?),
            ('s', Datum::Missing | Datum::Nil) => text.push_str("%!s(<nil>)"),
            ('s' | 'd' | 'q', _) => return Err(unsupported(format!("%{verb} for this type of value"))),
            _ => return Err(unsupported(format!("the format verb %{verb}"))),
        }
    }
    if values.next().is_some() {
        return Err(unsupported("more arguments than format verbs".to_owned()));
    }
    Ok(text)
}

/// Escapes for HTML text. html/template escapes `+` as well, the function `html` does not.
fn escape(text: &str, plus: bool) -> String {
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
fn query_escape(text: &str) -> String {
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
