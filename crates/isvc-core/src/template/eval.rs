//! Evaluates the tree of a template.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::Value;

use super::tree::{Command, Function, Node, Operand, Pipeline, Start};
use super::value::{
    Datum, View, basic_equal, bounded, escape, failure, index, length, printed, printf, query_escape, sprint, type_name,
};
use super::{Flavour, TemplateError};

struct Evaluator<'a> {
    context: &'a Value,
    flavour: Flavour,
    output: String,
    /// Bytes of text made so far, in the output and on the way to it.
    made: Cell<usize>,
}

/// Renders a parsed template.
pub(super) fn render(nodes: &[Node], context: &Value, flavour: Flavour) -> Result<String, TemplateError> {
    let mut evaluator = Evaluator {
        context,
        flavour,
        output: String::new(),
        made: Cell::new(0),
    };
    evaluator.nodes(nodes, &Datum::Root)?;
    Ok(evaluator.output)
}

impl<'a> Evaluator<'a> {
    /// Counts text, and fails where it becomes too much.
    fn made(&self, line: usize, text: String) -> Result<String, TemplateError> {
        self.made.set(self.made.get().saturating_add(text.len()));
        bounded(line, self.made.get())?;
        Ok(text)
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Datum<'a>) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.push_str(text),
                Node::Print(pipeline) => {
                    let printed = match self.escaper_alone(pipeline, dot)? {
                        Some(printed) => printed,
                        None => self.print(pipeline, &self.pipeline(pipeline, dot)?)?,
                    };
                    self.output.push_str(&self.made(pipeline.line, printed)?);
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
    fn escaper_alone(&self, pipeline: &Pipeline, dot: &Datum<'a>) -> Result<Option<String>, TemplateError> {
        let [Command::Call { function, arguments }] = pipeline.commands.as_slice() else {
            return Ok(None);
        };
        if self.flavour != Flavour::Html || arguments.is_empty() {
            return Ok(None);
        }
        let values = || -> Result<String, TemplateError> {
            let values: Vec<Datum<'a>> = arguments
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
    fn print(&self, pipeline: &Pipeline, value: &Datum<'_>) -> Result<String, TemplateError> {
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

    fn pipeline(&self, pipeline: &Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, TemplateError> {
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

    fn operand(&self, line: usize, operand: &Operand, dot: &Datum<'a>) -> Result<Datum<'a>, TemplateError> {
        Ok(match operand {
            Operand::Text(text) => Datum::owned(text.as_str()),
            Operand::Integer(number) => Datum::owned(*number),
            Operand::Bool(value) => Datum::owned(*value),
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

    fn field(&self, value: Datum<'a>, field: &str) -> Result<Datum<'a>, String> {
        match value.view() {
            View::Absent if matches!(value, Datum::Nil) => Err(format!("nil has no field {field}")),
            View::Absent | View::Json(Value::Null) => Ok(Datum::Missing),
            View::Root => self
                .context
                .get(field)
                .map(|value| Datum::Json(Cow::Borrowed(value)))
                .ok_or_else(|| format!("there is no field {field} here; the fields are {}", names(self.context))),
            View::Json(Value::Object(_)) => Ok(value.entry(field).unwrap_or(Datum::Missing)),
            View::Json(other) => Err(format!("can't evaluate field {field} in {}", type_name(other))),
        }
    }

    fn call(
        &self,
        line: usize,
        function: Function,
        operands: &[Operand],
        piped: Option<Datum<'a>>,
        dot: &Datum<'a>,
    ) -> Result<Datum<'a>, TemplateError> {
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
            Function::Not => Ok(Datum::owned(!arguments.iter().any(Datum::truth))),
            Function::Eq | Function::Ne => {
                let mut equal = false;
                for other in &arguments[1..] {
                    equal |= basic_equal(&arguments[0], other).map_err(fail)?;
                }
                Ok(Datum::owned(equal == (function == Function::Eq)))
            }
            Function::Len => length(&arguments[0]).map(Datum::owned).map_err(fail),
            Function::Index => index(&arguments).map_err(fail),
            Function::Print => self.made(line, sprint(line, &arguments, "<nil>")?).map(Datum::owned),
            Function::Printf => self.made(line, printf(line, &arguments)?).map(Datum::owned),
            Function::Html => {
                let text = escape(&sprint(line, &arguments, "<no value>")?, false);
                self.made(line, text).map(Datum::owned)
            }
            Function::UrlQuery => {
                let text = query_escape(&sprint(line, &arguments, "<no value>")?);
                self.made(line, text).map(Datum::owned)
            }
        }
    }
}

fn names(context: &Value) -> String {
    context
        .as_object()
        .map(|map| map.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        .unwrap_or_default()
}
