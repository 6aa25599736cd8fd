//! Cuts a template into text and actions, and an action into tokens.

use std::cell::Cell;

use super::TemplateError;

/// A piece of the template.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Action { line: usize, tokens: Vec<Token> },
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// White space, which separates operands.
    Space,
    /// `.` alone.
    Dot,
    /// `.Name`; one token for each part of a chain.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    /// A keyword, a function or a boolean.
    Word(String),
    Text(String),
    Integer(i64),
    Open,
    Close,
    Pipe,
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// A position up to which lines are counted, and the line there.
    counted: Cell<(usize, usize)>,
}

/// Cuts a template.
pub(super) fn lex(source: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut lexer = Lexer {
        source,
        at: 0,
        counted: Cell::new((0, 1)),
    };
    let mut pieces = Vec::new();
    let mut trim_next = false;
    loop {
        let rest = lexer.rest();
        let (text, action) = match rest.find(LEFT) {
            Some(at) => (&rest[..at], true),
            None => (rest, false),
        };
        let mut shown = if trim_next {
            text.trim_start_matches(SPACE)
        } else {
            text
        };
        if !action {
            push_text(&mut pieces, shown);
            return Ok(pieces);
        }
        lexer.at += text.len() + LEFT.len();
        if lexer.rest().starts_with('-') && lexer.rest()[1..].starts_with(SPACE) {
            shown = shown.trim_end_matches(SPACE);
            lexer.at += 1;
        }
        push_text(&mut pieces, shown);
        trim_next = if lexer.comment_starts_here() {
            lexer.comment()?
        } else {
            let line = lexer.line();
            let (tokens, trim) = lexer.action()?;
            pieces.push(Piece::Action { line, tokens });
            trim
        };
    }
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn line(&self) -> usize {
        let (counted, line) = self.counted.get();
        let line = line + self.source[counted..self.at].matches('\n').count();
        self.counted.set((self.at, line));
        line
    }

    fn syntax(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError::Syntax {
            line: self.line(),
            problem: problem.into(),
        }
    }

    fn unsupported(&self, construct: impl Into<String>) -> TemplateError {
        TemplateError::Unsupported {
            line: self.line(),
            construct: construct.into(),
        }
    }

    /// A comment stands directly behind the delimiter, or behind the trim marker and one white-space character.
    fn comment_starts_here(&mut self) -> bool {
        let behind_trim_marker = self.source[..self.at].ends_with("{{-");
        if self.rest().starts_with("/*") {
            return true;
        }
        if behind_trim_marker && self.rest().get(1..).is_some_and(|rest| rest.starts_with("/*")) {
            self.at += 1;
            return true;
        }
        false
    }

    /// Skips a comment; says whether the text behind it is trimmed.
    fn comment(&mut self) -> Result<bool, TemplateError> {
        let end = self.rest().find("*/").ok_or_else(|| self.syntax("unclosed comment"))?;
        self.at += end + 2;
        let rest = self.rest();
        if rest.starts_with(RIGHT) {
            self.at += RIGHT.len();
            return Ok(false);
        }
        if rest.starts_with(SPACE) && rest[1..].starts_with("-}}") {
            self.at += "x-}}".len();
            return Ok(true);
        }
        Err(self.syntax("comment ends before closing delimiter"))
    }

    /// Reads the tokens of an action; says whether the text behind it is trimmed.
    fn action(&mut self) -> Result<(Vec<Token>, bool), TemplateError> {
        let mut tokens = Vec::new();
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(SPACE);
            if trimmed.len() < rest.len() {
                // The trim marker needs white space before it; all but the last of it only separates.
                let space = rest.len() - trimmed.len();
                if trimmed.starts_with("-}}") {
                    self.close(depth, space + "-}}".len())?;
                    return Ok((tokens, true));
                }
                self.at += space;
                tokens.push(Token::Space);
                continue;
            }
            if rest.starts_with(RIGHT) {
                self.close(depth, RIGHT.len())?;
                return Ok((tokens, false));
            }
            let Some(first) = rest.chars().next() else {
                return Err(self.syntax("unclosed action"));
            };
            match first {
                '(' => {
                    depth += 1;
                    self.at += 1;
                    tokens.push(Token::Open);
                }
                ')' => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or_else(|| self.syntax("unexpected right paren"))?;
                    self.at += 1;
                    tokens.push(Token::Close);
                }
                '|' => {
                    self.at += 1;
                    tokens.push(Token::Pipe);
                }
                '"' => tokens.push(self.quoted()?),
                '`' => {
                    let end = rest[1..]
                        .find('`')
                        .ok_or_else(|| self.syntax("unterminated raw quoted string"))?;
                    tokens.push(Token::Text(rest[1..=end].replace('\r', "")));
                    self.at += end + 2;
                }
                '.' => {
                    let name = word_at(&rest[1..]);
                    if name.is_empty() && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
                        return Err(self.unsupported("a number with a fraction"));
                    }
                    if name.starts_with(|c: char| c.is_numeric()) {
                        return Err(self.unsupported("a number with a fraction"));
                    }
                    self.at += 1 + name.len();
                    tokens.push(if name.is_empty() {
                        Token::Dot
                    } else {
                        Token::Field(name.to_owned())
                    });
                    self.terminator()?;
                }
                '$' => {
                    let name = word_at(&rest[1..]);
                    self.at += 1 + name.len();
                    tokens.push(Token::Variable(name.to_owned()));
                    self.terminator()?;
                }
                c if c.is_ascii_digit() || c == '+' || c == '-' => tokens.push(self.number()?),
                c if is_word(c) => {
                    let name = word_at(rest);
                    self.at += name.len();
                    tokens.push(Token::Word(name.to_owned()));
                    self.terminator()?;
                }
                ':' | '=' | ',' => return Err(self.unsupported("a variable declaration or assignment")),
                '\'' => return Err(self.unsupported("a character constant")),
                other => return Err(self.syntax(format!("unexpected {other:?} in an action"))),
            }
        }
    }

    fn close(&mut self, depth: usize, length: usize) -> Result<(), TemplateError> {
        if depth > 0 {
            return Err(self.syntax("unclosed left paren"));
        }
        self.at += length;
        Ok(())
    }

    /// Fields, variables and words end where something else can begin.
    fn terminator(&self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let ends = rest.starts_with(RIGHT)
            || rest
                .chars()
                .next()
                .is_none_or(|c| SPACE.contains(&c) || ".,|:()".contains(c));
        if ends {
            return Ok(());
        }
        let bad = rest.chars().next().unwrap_or_default();
        Err(self.syntax(format!(
            "bad character {bad:?} in a name; use index for keys that are not plain words"
        )))
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(is_word(c) || "+-.".contains(c)))
            .unwrap_or(rest.len());
        let text = &rest[..length];
        let digits = text.trim_start_matches(['+', '-']);
        let plain = text.len() - digits.len() <= 1
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        let value: Option<i64> = if plain { text.parse().ok() } else { None };
        let value = value.ok_or_else(|| self.unsupported(format!("the number {text:?}")))?;
        self.at += length;
        Ok(Token::Integer(value))
    }

    /// A string in double quotes with Go's escapes.
    fn quoted(&mut self) -> Result<Token, TemplateError> {
        let rest = self.rest();
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(Token::Text(text));
                }
                '\n' => break,
                '\\' => {
                    let escape = chars.next().map(|(_, c)| c).unwrap_or_default();
                    let length = match escape {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        '0'..='7' => return Err(self.unsupported("an octal escape in a string")),
                        _ => 0,
                    };
                    if length == 0 {
                        text.push(simple_escape(escape).ok_or_else(|| self.syntax("unknown escape in a string"))?);
                        continue;
                    }
                    let hex: String = chars.by_ref().take(length).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == length);
                    // Two hexadecimal digits name a byte, which is a character only below 128.
                    let code = code.filter(|code| length > 2 || *code < 0x80);
                    let c = code.and_then(char::from_u32);
                    text.push(c.ok_or_else(|| self.syntax("bad escape in a string"))?);
                }
                c => text.push(c),
            }
        }
        Err(self.syntax("unterminated quoted string"))
    }
}

fn simple_escape(escape: char) -> Option<char> {
    Some(match escape {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        '"' => '"',
        _ => return None,
    })
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word_at(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}
