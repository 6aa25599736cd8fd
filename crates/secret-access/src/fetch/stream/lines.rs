//! A watch as JSON: one event a line.

use super::Cut;
use super::partial::Partial;
use crate::fetch::decode::event::Piece;

/// Cuts a stream into lines.
pub(super) struct Lines(Partial);

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self(Partial::new(limit))
    }
}

impl Cut for Lines {
    fn cut<'a, 'c: 'a>(&'a mut self, chunk: &mut &'c [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        let Self(partial) = self;
        partial.start_afresh();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let line = &chunk[..end];
            *chunk = &chunk[end + 1..];
            // Blank lines mean nothing in JSON.
            if !(partial.is_empty() && line.trim_ascii().is_empty()) {
                return partial.complete(line).map(Some);
            }
        }
        partial.add(chunk)?;
        *chunk = &[];
        Ok(None)
    }

    fn is_between_pieces(&self) -> bool {
        self.0.is_empty()
    }
}
