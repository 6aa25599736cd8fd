//! A list as JSON, cut into its items while it arrives. Nothing is decoded here; brackets and quotes are followed.

use super::Cut;
use super::partial::Partial;
use crate::fetch::decode::event::Piece;

/// What a list has beside its items: its kind, and metadata with a `continue` token of some hundred bytes.
const MAX_REST: usize = 64 * 1024;

const NOT_A_LIST: &str = "it is not a list";

/// Cuts a list into its items and the rest.
pub(super) struct JsonItems {
    partial: Partial,
    /// Everything but the items.
    rest: Vec<u8>,
    /// How many brackets are open.
    depth: usize,
    /// Within a text, and there behind a backslash.
    text: bool,
    escaped: bool,
    /// The last text of the outermost object, as far as it can matter.
    name: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of the items.
    Rest,
    /// Among them.
    Items,
    /// In one of them.
    Item,
}

const ITEMS: &[u8] = b"items";

impl JsonItems {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            partial: Partial::new(limit),
            rest: Vec::new(),
            depth: 0,
            text: false,
            escaped: false,
            name: Vec::new(),
            place: Place::Rest,
        }
    }

    /// The list without its items, once it has ended.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Follows one byte; says whether an item ends with it.
    fn follow(&mut self, byte: u8) -> Result<bool, &'static str> {
        let place = self.place;
        if self.text {
            self.follow_text(byte);
        } else {
            match byte {
                b'"' => {
                    self.text = true;
                    if self.depth == 1 {
                        self.name.clear();
                    }
                    if place == Place::Items {
                        return Err(NOT_A_LIST);
                    }
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if place == Place::Rest && self.depth == 2 && byte == b'[' && self.name == ITEMS {
                        self.place = Place::Items;
                    } else if place == Place::Items {
                        self.place = Place::Item;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or(NOT_A_LIST)?;
                    if place == Place::Item && self.depth == 2 {
                        self.place = Place::Items;
                        return Ok(true);
                    }
                    if place == Place::Items {
                        self.place = Place::Rest;
                        return self.keep(byte).map(|()| false);
                    }
                }
                // What separates items. Anything else there is none.
                b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if place == Place::Items => return Err(NOT_A_LIST),
                _ => {}
            }
        }
        if place == Place::Rest {
            self.keep(byte)?;
        }
        Ok(false)
    }

    fn follow_text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.text = false;
                return;
            }
            _ => {}
        }
        if self.depth == 1 && self.name.len() <= ITEMS.len() {
            self.name.push(byte);
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.rest.len() == MAX_REST {
            return Err("it has too much beside its items");
        }
        self.rest.push(byte);
        Ok(())
    }
}

impl Cut for JsonItems {
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        self.partial.start_afresh();
        let bytes = *chunk;
        let mut begin = 0;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let was = self.place;
            let ends = self.follow(*byte)?;
            if was == Place::Items && self.place == Place::Item {
                begin = at;
            }
            at += 1;
            if ends {
                let (consumed, rest) = bytes.split_at(at);
                *chunk = rest;
                return self.partial.complete(&consumed[begin..]).map(Some);
            }
            // Most of an item is values.
            if self.text && !self.escaped && self.place == Place::Item {
                let values = bytes[at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\'));
                at += values.count();
            }
        }
        if self.place == Place::Item {
            self.partial.add(&bytes[begin..])?;
        }
        *chunk = &[];
        Ok(None)
    }

    fn is_between_pieces(&self) -> bool {
        self.depth == 0
    }
}
