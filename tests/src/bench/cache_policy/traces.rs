//! What is read, in which order: made from a seed, so that every policy and every run on any machine gets the same.

use std::ops::Range;

/// Bytes that fit into the cache.
pub(super) const CAPACITY: u64 = 16 * 1024 * 1024;

/// Requests in a trace that is no loop.
const REQUESTS: usize = 200_000;

/// Times each key of a loop is read.
const ROUNDS: usize = 20;

/// A sequence of reads.
pub(super) struct Trace {
    /// What the reads are like.
    pub(super) name: String,
    /// The key of each read.
    pub(super) reads: Vec<u32>,
    /// The reads that count: not those that fill the cache at first, and not those of a scan.
    pub(super) counted: Range<usize>,
    /// The bytes of each key.
    pub(super) sizes: Vec<u32>,
    /// In a loop, how many times the cache it is.
    pub(super) times: Option<f64>,
}

/// All traces of a seed.
pub(super) fn all(seed: u64) -> Vec<Trace> {
    let mut traces: Vec<Trace> = [0.5, 0.9, 1.1, 1.5, 2.0, 4.0].map(|times| repeated(times, seed)).into();
    traces.extend([0.8, 1.0, 1.2].map(|exponent| skewed(exponent, seed)));
    traces.push(scanned(seed));
    traces.push(moving(seed));
    traces.push(jumping(seed));
    traces
}

/// Sizes of Secrets: one in a hundred has 100 to 500 kB, the others 1 to 8 kB.
fn sizes(rng: &mut fastrand::Rng, count: usize) -> Vec<u32> {
    let size = |_| match rng.u32(0..100) {
        0 => rng.u32(100_000..=500_000),
        _ => rng.u32(1_000..=8_000),
    };
    (0..count).map(size).collect()
}

/// Sizes of as many keys as make up so many times the cache.
fn sizes_of(rng: &mut fastrand::Rng, times: f64) -> Vec<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few times a capacity of megabytes"
    )]
    let total = (CAPACITY as f64 * times) as u64;
    let mut left = total;
    let mut sizes = sizes(rng, usize::try_from(total / 1_000).unwrap_or(usize::MAX));
    let fitting = sizes.iter().take_while(|size| {
        let fits = left >= u64::from(**size);
        left = left.saturating_sub(u64::from(**size));
        fits
    });
    let count = fitting.count();
    sizes.truncate(count);
    sizes
}

fn keys(sizes: &[u32]) -> Vec<u32> {
    (0..u32::try_from(sizes.len()).unwrap_or(u32::MAX)).collect()
}

/// A resync: all keys in one order, again and again.
fn repeated(times: f64, seed: u64) -> Trace {
    let mut rng = fastrand::Rng::with_seed(seed);
    let sizes = sizes_of(&mut rng, times);
    let mut keys = keys(&sizes);
    rng.shuffle(&mut keys);
    let counted = keys.len()..keys.len() * ROUNDS;
    Trace {
        name: format!("loop of {times} times the cache"),
        reads: keys.repeat(ROUNDS),
        counted,
        sizes,
        times: Some(times),
    }
}

/// Independent reads, the key of rank `r` with a probability in proportion to `r` to the power of `-exponent`.
struct Zipf {
    cumulated: Vec<f64>,
    keys: Vec<u32>,
}

impl Zipf {
    fn new(rng: &mut fastrand::Rng, mut keys: Vec<u32>, exponent: f64) -> Self {
        // Or small keys would be the frequent ones in every trace.
        rng.shuffle(&mut keys);
        let mut sum = 0.0;
        let cumulated = (1..=u32::try_from(keys.len()).unwrap_or(u32::MAX)).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self {
            cumulated: cumulated.collect(),
            keys,
        }
    }

    fn next(&self, rng: &mut fastrand::Rng) -> u32 {
        let at = rng.f64() * self.cumulated.last().copied().unwrap_or_default();
        let rank = self.cumulated.partition_point(|sum| *sum <= at);
        self.keys[rank.min(self.keys.len() - 1)]
    }
}

fn skewed(exponent: f64, seed: u64) -> Trace {
    let mut rng = fastrand::Rng::with_seed(seed);
    let sizes = sizes_of(&mut rng, 4.0);
    let zipf = Zipf::new(&mut rng, keys(&sizes), exponent);
    Trace {
        name: format!("Zipf {exponent:.1}"),
        reads: (0..REQUESTS).map(|_| zipf.next(&mut rng)).collect(),
        counted: REQUESTS / 5..REQUESTS,
        sizes,
        times: None,
    }
}

/// Skewed reads; in their middle, twice as much as the cache holds is read once. What is read after that counts.
fn scanned(seed: u64) -> Trace {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sizes = sizes_of(&mut rng, 4.0);
    let zipf = Zipf::new(&mut rng, keys(&sizes), 1.0);
    let known = sizes.len();
    sizes.extend(sizes_of(&mut rng, 2.0));
    let scan = keys(&sizes)[known..].to_vec();
    let mut reads: Vec<u32> = (0..REQUESTS / 5).map(|_| zipf.next(&mut rng)).collect();
    reads.extend(scan);
    let start = reads.len();
    reads.extend((0..10_000).map(|_| zipf.next(&mut rng)));
    Trace {
        name: "Zipf 1.0, the 10,000 reads after a scan of 2 times the cache".to_owned(),
        counted: start..reads.len(),
        reads,
        sizes,
        times: None,
    }
}

/// Any of a window of keys of 0.7 times the cache, which takes in another key at every tenth read.
fn moving(seed: u64) -> Trace {
    let mut rng = fastrand::Rng::with_seed(seed);
    let window = sizes_of(&mut rng, 0.7).len();
    let sizes = sizes(&mut rng, window + REQUESTS / 10);
    let reads = (0..REQUESTS).map(|read| {
        let key = read / 10 + rng.usize(0..window);
        u32::try_from(key).unwrap_or(u32::MAX)
    });
    Trace {
        name: "window of 0.7 times the cache, moving".to_owned(),
        reads: reads.collect(),
        counted: REQUESTS / 5..REQUESTS,
        sizes,
        times: None,
    }
}

/// A loop of 0.7 times the cache over other keys after every ten rounds.
fn jumping(seed: u64) -> Trace {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sizes = Vec::new();
    let mut reads = Vec::new();
    let mut start = 0;
    for place in 0..10 {
        let before = sizes.len();
        sizes.extend(sizes_of(&mut rng, 0.7));
        let mut keys = keys(&sizes)[before..].to_vec();
        rng.shuffle(&mut keys);
        reads.extend(keys.repeat(10));
        if place == 0 {
            start = reads.len();
        }
    }
    Trace {
        name: "loop of 0.7 times the cache, other keys after 10 rounds".to_owned(),
        counted: start..reads.len(),
        reads,
        sizes,
        times: None,
    }
}
