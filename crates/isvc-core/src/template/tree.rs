//! The tree of a template.

/// A node of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed.
    Print(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands, each of which hands its value to the next as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) line: usize,
    pub(super) commands: Vec<Command>,
}

/// An operand, or a function with its arguments.
#[derive(Debug)]
pub(super) enum Command {
    Operand(Operand),
    Call {
        function: Function,
        arguments: Vec<Operand>,
    },
}

/// A value in a command.
#[derive(Debug)]
pub(super) enum Operand {
    /// A starting point and the fields looked up from there.
    Chain {
        start: Start,
        fields: Vec<String>,
    },
    Text(String),
    Integer(i64),
    Bool(bool),
    Nil,
    /// A function that takes no arguments there, such as `print`.
    Call(Function),
}

/// Where a chain of fields starts.
#[derive(Debug)]
pub(super) enum Start {
    /// `.`, which `with` moves.
    Dot,
    /// `$`, the whole context.
    Root,
    /// A pipeline in parentheses.
    Parentheses(Pipeline),
}

/// A supported function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Eq,
    Html,
    Index,
    Len,
    Ne,
    Not,
    Or,
    Print,
    Printf,
    UrlQuery,
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "and" => Self::And,
            "eq" => Self::Eq,
            "html" => Self::Html,
            "index" => Self::Index,
            "len" => Self::Len,
            "ne" => Self::Ne,
            "not" => Self::Not,
            "or" => Self::Or,
            "print" => Self::Print,
            "printf" => Self::Printf,
            "urlquery" => Self::UrlQuery,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Eq => "eq",
            Self::Html => "html",
            Self::Index => "index",
            Self::Len => "len",
            Self::Ne => "ne",
            Self::Not => "not",
            Self::Or => "or",
            Self::Print => "print",
            Self::Printf => "printf",
            Self::UrlQuery => "urlquery",
        }
    }
}

impl Command {
    /// The function this command calls.
    pub(super) fn function(&self) -> Option<Function> {
        match self {
            Self::Call { function, .. } => Some(*function),
            Self::Operand(_) => None,
        }
    }
}
