//! Hit rates, times and memory of one subject.

use std::{fs, hint::black_box, io, time::Instant};

use super::{
    subjects::{Kind, Subject, Value},
    traces::{CAPACITY, Trace},
};

/// Entries of the traces that fit, about.
const EXPECTED: usize = 2_200;
/// More of them than ever fit: in the traces, the bytes are the bound.
const MOST: usize = 4_000;
/// Entries where times and memory are measured.
const ENTRIES: usize = 8_000;
/// Bytes of each of these.
const BYTES: u32 = 4_096;
/// Reads whose time is taken together.
const READS: u32 = 400_000;
/// Caches at once, for memory to be far more than a few pages.
const CACHES: u32 = 16;

/// In percent.
#[derive(Clone, Copy, Debug)]
pub(super) struct HitRate {
    pub(super) requests: f64,
    pub(super) bytes: f64,
}

/// Of one policy on one trace.
pub(super) fn hit_rates(kind: Kind, trace: &Trace) -> HitRate {
    let mut subject = kind.create(CAPACITY, EXPECTED, MOST);
    let (mut hits, mut hit_bytes, mut bytes) = (0_u32, 0.0, 0.0);
    for (at, key) in trace.reads.iter().enumerate() {
        let size = trace.sizes[*key as usize];
        let hit = subject.read(*key, size);
        if trace.counted.contains(&at) {
            bytes += f64::from(size);
            if hit {
                hits += 1;
                hit_bytes += f64::from(size);
            }
        }
    }
    let counted = u32::try_from(trace.counted.len()).unwrap_or(u32::MAX);
    HitRate {
        requests: 100.0 * f64::from(hits) / f64::from(counted),
        bytes: 100.0 * hit_bytes / bytes,
    }
}

/// A full cache of [`ENTRIES`], each read twice.
fn full(kind: Kind) -> Box<dyn Subject> {
    let mut subject = kind.create(ENTRIES as u64 * u64::from(BYTES), ENTRIES, ENTRIES);
    for _ in 0..2 {
        for key in keys() {
            subject.read(key, BYTES);
        }
    }
    subject
}

fn keys() -> std::ops::Range<u32> {
    0..u32::try_from(ENTRIES).unwrap_or(u32::MAX)
}

/// Of a hit in a full cache, in random order; and of a read in a loop over twice as many keys.
pub(super) fn nanoseconds(kind: Kind) -> (f64, f64) {
    let mut subject = full(kind);
    let mut rng = fastrand::Rng::with_seed(1);
    let order: Vec<u32> = (0..READS).map(|_| rng.u32(keys())).collect();
    let hit = time(&order, subject.as_mut());
    let order: Vec<u32> = (0..READS).map(|read| read % (2 * keys().end)).collect();
    (hit, time(&order, subject.as_mut()))
}

fn time(order: &[u32], subject: &mut dyn Subject) -> f64 {
    let start = Instant::now();
    for key in order {
        black_box(subject.read(*key, BYTES));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
}

/// Bytes of resident memory that an entry takes beside its key and value, in caches that are full and have refused or evicted
/// as many again. Meant for a process that has done nothing else, where no freed memory is used again.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn overhead(kind: Kind) -> io::Result<f64> {
    drop(full(kind));
    let mut caches = Vec::new();
    let before = resident()?;
    let mut entries = 0;
    for _ in 0..CACHES {
        let mut subject = full(kind);
        for key in keys() {
            subject.read(keys().end + key, BYTES);
        }
        entries += subject.entries();
        caches.push(subject);
    }
    let taken = resident()? - before;
    drop(caches);
    let entries = f64::from(u32::try_from(entries).unwrap_or(u32::MAX));
    let own = u32::try_from(size_of::<u32>() + size_of::<Value>()).unwrap_or(u32::MAX);
    Ok(taken / entries - f64::from(own))
}

/// The resident memory of this process in bytes.
fn resident() -> io::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    kib.map(|kib| f64::from(kib) * 1024.0)
        .ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))
}
