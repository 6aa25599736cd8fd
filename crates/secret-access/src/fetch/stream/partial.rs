//! A piece of a stream that has not arrived in one chunk: bounded, and wiped.

use zeroize::{Zeroize as _, Zeroizing};

use crate::fetch::decode::event::Piece;

/// Up to this size the buffer is kept for the next piece.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Whatever is this many times bigger than allowed is not a Secret.
const MOST_TIMES_TOO_LARGE: usize = 64;

/// What has arrived of a piece.
pub(super) struct Partial {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
    /// How much there was beyond the limit, which was dropped.
    dropped: usize,
    /// Whether the piece was handed out, so that the next one starts afresh.
    given: bool,
}

impl Partial {
    /// For pieces of at most `limit` bytes. Of bigger ones the beginning is kept.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: Zeroizing::default(),
            limit,
            dropped: 0,
            given: false,
        }
    }

    /// Forgets a piece that was handed out. To be called before anything is added.
    pub(super) fn start_afresh(&mut self) {
        if !self.given {
            return;
        }
        self.given = false;
        self.dropped = 0;
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Zeroizing::default();
        } else {
            self.bytes.zeroize();
        }
    }

    /// Whether nothing has arrived of the next piece.
    pub(super) fn is_empty(&self) -> bool {
        self.given || self.bytes.is_empty()
    }

    /// Adds a part.
    ///
    /// # Errors
    ///
    /// When the piece is so big that it is not worth waiting for its end.
    pub(super) fn add(&mut self, part: &[u8]) -> Result<(), &'static str> {
        let fits = part.len().min(self.limit - self.bytes.len());
        self.dropped = self.dropped.saturating_add(part.len() - fits);
        if self.dropped > self.limit.saturating_mul(MOST_TIMES_TOO_LARGE) {
            return Err("it is far bigger than allowed");
        }
        let needed = self.bytes.len() + fits;
        if needed > self.bytes.capacity() {
            // `Vec` would free its old buffer as it is.
            let capacity = needed.max(2 * self.bytes.capacity()).min(self.limit);
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(&part[..fits]);
        Ok(())
    }

    /// The piece that ends with `tail`. One that came in one chunk is not copied.
    ///
    /// # Errors
    ///
    /// As for [`Partial::add`].
    pub(super) fn complete<'a>(&'a mut self, tail: &'a [u8]) -> Result<Piece<'a>, &'static str> {
        if self.bytes.is_empty() {
            return Ok(match tail.get(..self.limit) {
                Some(beginning) if tail.len() > self.limit => Piece::Beginning(beginning),
                _ => Piece::Whole(tail),
            });
        }
        self.add(tail)?;
        self.given = true;
        Ok(if self.dropped > 0 {
            Piece::Beginning(&self.bytes)
        } else {
            Piece::Whole(&self.bytes)
        })
    }
}
