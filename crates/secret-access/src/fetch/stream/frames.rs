//! A watch as protobuf: one event a frame, each after its length in four bytes, most significant first.

use super::Cut;
use super::partial::Partial;
use crate::fetch::decode::event::Piece;

/// Cuts a stream into frames.
pub(super) struct Frames {
    partial: Partial,
    /// The length of the next frame, as far as it has arrived.
    length: [u8; 4],
    arrived: usize,
    /// How much of the frame is still to come, once its length is known.
    left: usize,
}

impl Frames {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            partial: Partial::new(limit),
            length: [0; 4],
            arrived: 0,
            left: 0,
        }
    }
}

impl Cut for Frames {
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        self.partial.start_afresh();
        while self.arrived < self.length.len() {
            let Some((byte, rest)) = chunk.split_first() else {
                return Ok(None);
            };
            *chunk = rest;
            self.length[self.arrived] = *byte;
            self.arrived += 1;
            if self.arrived == self.length.len() {
                self.left = usize::try_from(u32::from_be_bytes(self.length)).map_err(|_| "a frame is too long")?;
            }
        }
        let Some((frame, rest)) = chunk.split_at_checked(self.left) else {
            self.left -= chunk.len();
            self.partial.add(chunk)?;
            *chunk = &[];
            return Ok(None);
        };
        *chunk = rest;
        self.arrived = 0;
        self.left = 0;
        self.partial.complete(frame).map(Some)
    }

    fn is_between_pieces(&self) -> bool {
        self.arrived == 0
    }
}
