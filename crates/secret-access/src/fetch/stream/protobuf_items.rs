//! A list as protobuf, cut into its items while it arrives: the fields of two messages are followed, one within the other,
//! and those of no other.

use super::Cut;
use super::partial::Partial;
use crate::fetch::decode::event::Piece;
use crate::fetch::decode::protobuf::MAGIC;

/// What a list has beside its items, each.
const MAX_PART: usize = 64 * 1024;

const NOT_A_LIST: &str = "it is not a list";

/// Cuts a list into its items and the rest.
pub(super) struct ProtobufItems {
    partial: Partial,
    /// `TypeMeta` of the envelope and `ListMeta` of the list.
    type_meta: Vec<u8>,
    list_meta: Vec<u8>,
    state: State,
    /// How much is left of the list within the envelope, while that is read.
    list_left: Option<u64>,
    /// Whether a list has begun.
    listed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The mark that everything begins with.
    Mark(usize),
    /// A number, as far as it has arrived.
    Number { so_far: u64, shift: u32, of: Number },
    /// Content that has so many bytes to come.
    Content { what: What, left: u64 },
}

/// What a number is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Tag,
    Value,
    LengthOf(What),
}

/// What a field is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    TypeMeta,
    List,
    ListMeta,
    Item,
    Other,
}

const TAG: State = State::Number {
    so_far: 0,
    shift: 0,
    of: Number::Tag,
};

impl ProtobufItems {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            partial: Partial::new(limit),
            type_meta: Vec::new(),
            list_meta: Vec::new(),
            state: State::Mark(0),
            list_left: None,
            listed: false,
        }
    }

    /// `TypeMeta` and `ListMeta`, once the list has ended.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.type_meta, &self.list_meta)
    }

    /// Takes account of bytes of the list, if they are.
    fn spend(&mut self, bytes: u64) -> Result<(), &'static str> {
        if let Some(left) = &mut self.list_left {
            *left = left.checked_sub(bytes).ok_or(NOT_A_LIST)?;
        }
        Ok(())
    }

    /// What follows a number that has arrived.
    fn after(&mut self, number: u64, of: Number) -> Result<State, &'static str> {
        let length_of = |what| State::Number {
            so_far: 0,
            shift: 0,
            of: Number::LengthOf(what),
        };
        let skip = |left| State::Content {
            what: What::Other,
            left,
        };
        Ok(match of {
            Number::Value => TAG,
            Number::LengthOf(What::List) => {
                if self.list_left.replace(number).is_some() || std::mem::replace(&mut self.listed, true) {
                    return Err(NOT_A_LIST);
                }
                TAG
            }
            Number::LengthOf(what) => State::Content { what, left: number },
            Number::Tag => match (number & 7, number >> 3, self.list_left) {
                (0, _, _) => State::Number {
                    so_far: 0,
                    shift: 0,
                    of: Number::Value,
                },
                (1, _, _) => skip(8),
                (5, _, _) => skip(4),
                (2, 1, None) => length_of(What::TypeMeta),
                (2, 2, None) => length_of(What::List),
                (2, 1, Some(_)) => length_of(What::ListMeta),
                (2, 2, Some(_)) => length_of(What::Item),
                (2, _, _) => length_of(What::Other),
                _ => return Err(NOT_A_LIST),
            },
        })
    }
}

impl Cut for ProtobufItems {
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        self.partial.start_afresh();
        loop {
            if self.list_left == Some(0) && self.state == TAG {
                self.list_left = None;
            }
            // Content may be empty, so it is looked at before the chunk is.
            if let State::Content { what, left } = self.state {
                let here = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
                let (content, rest) = chunk.split_at(here);
                *chunk = rest;
                self.spend(here as u64)?;
                let left = left - here as u64;
                self.state = if left == 0 { TAG } else { State::Content { what, left } };
                let part = match what {
                    What::Item if left == 0 => return self.partial.complete(content).map(Some),
                    What::Item => {
                        self.partial.add(content)?;
                        return Ok(None);
                    }
                    What::TypeMeta => Some(&mut self.type_meta),
                    What::ListMeta => Some(&mut self.list_meta),
                    What::List | What::Other => None,
                };
                if let Some(part) = part {
                    if part.len() + content.len() > MAX_PART {
                        return Err("it has too much beside its items");
                    }
                    part.extend_from_slice(content);
                }
                if left > 0 {
                    return Ok(None);
                }
                continue;
            }
            let Some((byte, rest)) = chunk.split_first() else {
                return Ok(None);
            };
            *chunk = rest;
            self.spend(1)?;
            self.state = match self.state {
                State::Mark(at) => {
                    if MAGIC.get(at) != Some(byte) {
                        return Err(NOT_A_LIST);
                    }
                    if at + 1 == MAGIC.len() {
                        TAG
                    } else {
                        State::Mark(at + 1)
                    }
                }
                State::Number { shift: 63.., .. } if *byte > 1 => return Err(NOT_A_LIST),
                State::Number { so_far, shift, of } => {
                    let so_far = so_far | u64::from(byte & 0x7f) << shift;
                    if byte & 0x80 == 0 {
                        self.after(so_far, of)?
                    } else {
                        let shift = shift + 7;
                        State::Number { so_far, shift, of }
                    }
                }
                content @ State::Content { .. } => content,
            };
        }
    }

    fn is_between_pieces(&self) -> bool {
        self.listed && self.list_left.is_none() && self.state == TAG
    }
}
