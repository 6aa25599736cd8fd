//! How many groups were active lately.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// How many groups were active lately, whether or not they have entries: a bitmap of two generations. Two groups may share a
/// bit, so it may count too few, never too many: shares are rather too big than too small.
pub(crate) struct Active {
    current: Vec<u64>,
    previous: Vec<u64>,
    /// Bits set in either.
    count: usize,
    /// Uses until the next generation.
    left: usize,
    generation: usize,
}

impl Active {
    const BITS: usize = 1 << 15;
    const WORDS: usize = Self::BITS / 64;

    pub(crate) fn new(entries: usize) -> Self {
        let generation = entries.saturating_mul(4).clamp(1 << 12, 1 << 20);
        Self {
            current: Vec::new(),
            previous: Vec::new(),
            count: 0,
            left: generation,
            generation,
        }
    }

    /// The bit of a group.
    pub(crate) fn mark(group: &str) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(group);
        usize::try_from(hash % Self::BITS as u64).unwrap_or_default()
    }

    pub(crate) fn record(&mut self, mark: usize) {
        if self.left == 0 {
            self.previous = std::mem::take(&mut self.current);
            self.count = self.previous.iter().map(|word| word.count_ones() as usize).sum();
            self.left = self.generation;
        }
        self.left -= 1;
        if self.current.is_empty() {
            self.current = vec![0; Self::WORDS];
        }
        let (word, bit) = (mark / 64, 1 << (mark % 64));
        if self.current[word] & bit == 0 {
            self.current[word] |= bit;
            if self.previous.get(word).is_none_or(|previous| previous & bit == 0) {
                self.count += 1;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
