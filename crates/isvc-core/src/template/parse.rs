//! Builds the tree of a template from its pieces.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::lex::{Piece, Token, lex};
use super::tree::{Command, Function, Node, Operand, Pipeline, Start};
use super::{Flavour, TemplateError};

/// How deep blocks and parentheses may nest; a bound on recursion.
const MAX_DEPTH: usize = 64;

/// Functions and keywords of Go's language that are known and not supported.
const UNSUPPORTED: [&str; 14] = [
    "range", "define", "template", "block", "break", "continue", "call", "js", "println", "slice", "lt", "le", "gt",
    "ge",
];

/// Parses a template.
pub(super) fn parse(template: &str, flavour: Flavour) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        pieces: lex(template)?.into_iter().peekable(),
        flavour,
        line: 1,
    };
    let (nodes, end) = parser.block(0)?;
    match end {
        Ending::Template => Ok(nodes),
        Ending::End => Err(parser.syntax("unexpected {{end}}")),
        Ending::Else(_) => Err(parser.syntax("unexpected {{else}}")),
    }
}

/// What ended a list of nodes.
enum Ending {
    /// The template's own.
    Template,
    /// `end`.
    End,
    /// The tokens behind `else`, for `else if` and `else with`.
    Else(Vec<Token>),
}

struct Parser<'a> {
    pieces: Peekable<IntoIter<Piece<'a>>>,
    flavour: Flavour,
    /// Line of the action at hand.
    line: usize,
}

impl Parser<'_> {
    fn syntax(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError::Syntax {
            line: self.line,
            problem: problem.into(),
        }
    }

    fn unsupported(&self, construct: impl Into<String>) -> TemplateError {
        TemplateError::Unsupported {
            line: self.line,
            construct: construct.into(),
        }
    }

    fn bounded(&self, depth: usize) -> Result<(), TemplateError> {
        if depth > MAX_DEPTH {
            Err(self.unsupported(format!("nesting deeper than {MAX_DEPTH}")))
        } else {
            Ok(())
        }
    }

    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Ending), TemplateError> {
        self.bounded(depth)?;
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text(text) => {
                    if self.flavour == Flavour::Html && text.contains('<') {
                        // Escaping would have to follow the HTML grammar from there on.
                        return Err(self.unsupported("a literal < outside of placeholders"));
                    }
                    nodes.push(Node::Text(text.to_owned()));
                }
                Piece::Action { line, tokens } => {
                    self.line = line;
                    match keyword(&tokens) {
                        Some(("end", rest)) if is_blank(rest) => return Ok((nodes, Ending::End)),
                        Some(("else", rest)) => return Ok((nodes, Ending::Else(rest.to_vec()))),
                        Some(("if" | "with", _)) => nodes.push(self.conditional(&tokens, depth)?),
                        _ => nodes.push(Node::Print(self.printed(tokens)?)),
                    }
                }
            }
        }
        Ok((nodes, Ending::Template))
    }

    /// `if` or `with` up to its `end`; the tokens are those of the opening action.
    fn conditional(&mut self, tokens: &[Token], depth: usize) -> Result<Node, TemplateError> {
        self.bounded(depth)?;
        let Some((word @ ("if" | "with"), rest)) = keyword(tokens) else {
            return Err(self.syntax("expected if or with behind else"));
        };
        let with = word == "with";
        let condition = self.pipeline(rest.to_vec())?;
        let (then, end) = self.block(depth + 1)?;
        let otherwise = match end {
            Ending::Template => return Err(self.syntax("unexpected end of the template: {{end}} is missing")),
            Ending::End => Vec::new(),
            Ending::Else(rest) if is_blank(&rest) => match self.block(depth + 1)? {
                (nodes, Ending::End) => nodes,
                _ => return Err(self.syntax("expected {{end}} behind {{else}}")),
            },
            // `else if` and `else with` share the one `end`.
            Ending::Else(rest) if keyword(&rest).is_some_and(|(next, _)| next == word) => {
                vec![self.conditional(&rest, depth + 1)?]
            }
            Ending::Else(_) => return Err(self.syntax("unexpected tokens behind else")),
        };
        Ok(if with {
            Node::With {
                value: condition,
                then,
                otherwise,
            }
        } else {
            Node::If {
                condition,
                then,
                otherwise,
            }
        })
    }

    /// A pipeline that is printed, with the rules `html/template` has for its own escapers.
    fn printed(&mut self, tokens: Vec<Token>) -> Result<Pipeline, TemplateError> {
        let mut pipeline = self.pipeline(tokens)?;
        if self.flavour == Flavour::Html {
            let last = pipeline.commands.len().saturating_sub(1);
            for command in &pipeline.commands[..last] {
                if let Some(function @ (Function::Html | Function::UrlQuery)) = command.function() {
                    return Err(self.syntax(format!("{} must be the last command of its pipeline", function.name())));
                }
            }
            // html/template puts its own escaper in the place of a final html, and its arguments are gone.
            if last > 0
                && let Some(Command::Call {
                    function: Function::Html,
                    arguments,
                }) = pipeline.commands.last_mut()
            {
                arguments.clear();
            }
        }
        Ok(pipeline)
    }

    fn pipeline(&self, tokens: Vec<Token>) -> Result<Pipeline, TemplateError> {
        let mut tokens = tokens.into_iter().peekable();
        let pipeline = self.commands(&mut tokens, 0)?;
        if tokens.next().is_some() {
            return Err(self.syntax("unexpected right paren"));
        }
        Ok(pipeline)
    }

    /// Commands up to the end or to a closing parenthesis, which is left in place.
    fn commands(&self, tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Pipeline, TemplateError> {
        self.bounded(depth)?;
        let mut commands = Vec::new();
        loop {
            let operands = self.operands(tokens, depth)?;
            commands.push(self.command(operands, commands.is_empty())?);
            if tokens.peek() != Some(&Token::Pipe) {
                return Ok(Pipeline {
                    line: self.line,
                    commands,
                });
            }
            tokens.next();
            while tokens.next_if_eq(&Token::Space).is_some() {}
            // Go's parser lets a pipeline end in a pipe.
            if matches!(tokens.peek(), None | Some(Token::Close)) {
                return Ok(Pipeline {
                    line: self.line,
                    commands,
                });
            }
        }
    }

    fn command(&self, operands: Vec<Operand>, first: bool) -> Result<Command, TemplateError> {
        let mut operands = operands.into_iter();
        match operands.next() {
            None => Err(self.syntax("missing value for command")),
            Some(Operand::Call(function)) => Ok(Command::Call {
                function,
                arguments: operands.collect(),
            }),
            Some(_) if !first => Err(self.syntax("only a function can take the value of a pipeline")),
            Some(Operand::Nil) => Err(self.syntax("nil is not a command")),
            Some(operand) if operands.next().is_none() => Ok(Command::Operand(operand)),
            Some(_) => Err(self.syntax("cannot give arguments to something that is not a function")),
        }
    }

    fn operands(&self, tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        let mut separated = true;
        loop {
            match tokens.peek() {
                None | Some(Token::Pipe | Token::Close) => return Ok(operands),
                Some(Token::Space) => {
                    tokens.next();
                    separated = true;
                }
                Some(_) if !separated => return Err(self.syntax("operands must be separated by a space")),
                Some(_) => {
                    operands.push(self.operand(tokens, depth)?);
                    separated = false;
                }
            }
        }
    }

    fn operand(&self, tokens: &mut Peekable<IntoIter<Token>>, depth: usize) -> Result<Operand, TemplateError> {
        let start = match tokens.next() {
            Some(Token::Text(text)) => return Ok(Operand::Text(text)),
            Some(Token::Integer(number)) => return Ok(Operand::Integer(number)),
            Some(Token::Word(word)) => return self.word(&word),
            Some(Token::Variable(name)) if name.is_empty() => Start::Root,
            Some(Token::Variable(name)) => return Err(self.unsupported(format!("the variable ${name}"))),
            Some(Token::Dot) => {
                return Ok(Operand::Chain {
                    start: Start::Dot,
                    fields: Vec::new(),
                });
            }
            Some(Token::Field(name)) => {
                let fields = std::iter::once(name).chain(field_chain(tokens)).collect();
                return Ok(Operand::Chain {
                    start: Start::Dot,
                    fields,
                });
            }
            Some(Token::Open) => {
                let pipeline = self.commands(tokens, depth + 1)?;
                if tokens.next() != Some(Token::Close) {
                    return Err(self.syntax("unclosed left paren"));
                }
                Start::Parentheses(pipeline)
            }
            Some(Token::Space | Token::Close | Token::Pipe) | None => {
                return Err(self.syntax("missing operand"));
            }
        };
        Ok(Operand::Chain {
            start,
            fields: field_chain(tokens),
        })
    }

    fn word(&self, word: &str) -> Result<Operand, TemplateError> {
        match word {
            "true" => return Ok(Operand::Bool(true)),
            "false" => return Ok(Operand::Bool(false)),
            "nil" => return Ok(Operand::Nil),
            "if" | "else" | "end" | "with" => return Err(self.syntax(format!("unexpected {word}"))),
            _ => {}
        }
        if UNSUPPORTED.contains(&word) {
            return Err(self.unsupported(word));
        }
        Function::named(word)
            .map(Operand::Call)
            .ok_or_else(|| self.syntax(format!("function {word:?} not defined")))
    }
}

fn field_chain(tokens: &mut Peekable<IntoIter<Token>>) -> Vec<String> {
    let mut fields = Vec::new();
    while let Some(Token::Field(_)) = tokens.peek() {
        if let Some(Token::Field(name)) = tokens.next() {
            fields.push(name);
        }
    }
    fields
}

/// The keyword an action begins with, and the tokens behind it.
fn keyword(tokens: &[Token]) -> Option<(&str, &[Token])> {
    let start = tokens.iter().position(|token| *token != Token::Space)?;
    match &tokens[start] {
        Token::Word(word) if ["if", "else", "end", "with"].contains(&word.as_str()) => {
            Some((word, &tokens[start + 1..]))
        }
        _ => None,
    }
}

fn is_blank(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| *token == Token::Space)
}
