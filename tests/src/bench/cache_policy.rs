//! Policies of a bounded cache on reads as an operator makes them: the one that the library ships, plain least recently used,
//! and two crates.
//!
//! Nothing here needs a cluster. Reads come from seeds, so hit rates are the same on every machine, but for moka's, whose
//! hashes differ from one process to the next. Times are not.

mod measure;
mod subjects;
mod traces;

// The library's own files: what is measured is what is shipped.
#[path = "../../../crates/secret-access/src/lru/store/active.rs"]
mod active;
#[path = "../../../crates/secret-access/src/lru/store/load.rs"]
mod load;
#[path = "../../../crates/secret-access/src/lru/store/past.rs"]
mod past;
#[allow(
    dead_code,
    reason = "the library uses all of it, the benchmark only what a read does"
)]
#[path = "../../../crates/secret-access/src/lru/store/shares.rs"]
mod shares;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

pub use self::{measure::overhead, subjects::Kind};
use self::{
    measure::{HitRate, hit_rates, nanoseconds},
    traces::Trace,
};
use crate::{
    report::{Report, Row, Spread, measured_versions},
    table,
};

/// How much of what fits of a loop the shipped policy has to hit.
const LEAST_OF_BEST: f64 = 0.95;

/// Measures, and says on `out` what it does. `overhead` gives the bytes that an entry takes beside its key and value, from a
/// process of its own.
///
/// # Errors
///
/// When `out` cannot be written to.
pub fn run(out: &mut dyn Write, runs: usize, overhead: &dyn Fn(Kind) -> io::Result<f64>) -> io::Result<Report> {
    let mut rows = Vec::new();
    let mut cells = vec![heading("HITS BY REQUESTS / BY BYTES, %")];
    let traces = (1..=runs as u64).map(traces::all).collect::<Vec<_>>();
    for at in 0..traces.first().map_or(0, Vec::len) {
        let seeds: Vec<&Trace> = traces.iter().map(|traces| &traces[at]).collect();
        let name = &seeds[0].name;
        writeln!(out, "{name} ...")?;
        let mut line = vec![name.clone()];
        for kind in Kind::ALL {
            let rates: Vec<HitRate> = seeds.iter().map(|trace| hit_rates(kind, trace)).collect();
            let by_requests = spread(&rates, |rate| rate.requests);
            let by_bytes = spread(&rates, |rate| rate.bytes);
            line.push(both(by_requests, by_bytes));
            for (part, spread) in [("requests", by_requests), ("bytes", by_bytes)] {
                let row = Row::new(format!("{name}: hits by {part}, {}", kind.name()), "%", spread);
                rows.push(match seeds[0].times {
                    Some(times) if kind == Kind::Shipped => at_least(row, (LEAST_OF_BEST * 100.0 / times).min(100.0)),
                    _ => row,
                });
            }
        }
        cells.push(line);
    }
    writeln!(out, "Times and memory ...")?;
    cells.push(heading("AT 8,000 ENTRIES"));
    let mut hits = vec!["ns a hit".to_owned()];
    let mut misses = vec!["ns a read in a loop of 2 times the cache".to_owned()];
    let mut bytes = vec!["bytes an entry beside key and value".to_owned()];
    for kind in Kind::ALL {
        let times: Vec<(f64, f64)> = (0..runs).map(|_| nanoseconds(kind)).collect();
        let hit = spread(&times, |times| times.0);
        let miss = spread(&times, |times| times.1);
        let taken: Vec<f64> = (0..runs).map(|_| overhead(kind)).collect::<io::Result<_>>()?;
        let taken = spread(&taken, |taken| *taken);
        for (line, what, unit, spread) in [
            (&mut hits, "a hit", "ns", hit),
            (&mut misses, "a read in a loop of 2 times the cache", "ns", miss),
            (&mut bytes, "an entry beside key and value", "B", taken),
        ] {
            line.push(spread.map_or_else(String::new, |spread| format!("{:.0}", spread.median)));
            rows.push(Row::new(
                format!("8,000 entries: {what}, {}", kind.name()),
                unit,
                spread,
            ));
        }
    }
    cells.extend([hits, misses, bytes]);
    write!(out, "\n{}", table::aligned(&cells))?;
    Ok(Report::new("cache-policy", versions(), rows))
}

fn heading(what: &str) -> Vec<String> {
    let names = Kind::ALL.map(|kind| kind.name().to_uppercase());
    [what.to_owned()].into_iter().chain(names).collect()
}

fn both(requests: Option<Spread>, bytes: Option<Spread>) -> String {
    let percent = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| format!("{:.1}", spread.median));
    format!("{} / {}", percent(requests), percent(bytes))
}

fn spread<T>(runs: &[T], part: impl Fn(&T) -> f64) -> Option<Spread> {
    Spread::of(&runs.iter().map(part).collect::<Vec<_>>())
}

fn at_least(mut row: Row, limit: f64) -> Row {
    row.bar = Some(format!(">= {limit:.1}"));
    row.holds = Some(row.value.is_some_and(|value| value >= limit));
    row
}

fn versions() -> BTreeMap<String, String> {
    measured_versions(&["kube-secret-access", "lru", "moka", "quick_cache", "tikv-jemallocator"])
}

#[cfg(test)]
mod tests {
    use super::{
        Kind, at_least,
        measure::hit_rates,
        traces::{self, Trace},
    };
    use crate::report::{Row, Spread};

    #[test]
    fn every_seed_gives_the_same_reads_again_and_another_gives_others() {
        let reads = |seed| {
            traces::all(seed)
                .into_iter()
                .map(|trace| trace.reads)
                .collect::<Vec<_>>()
        };
        assert_eq!(reads(1), reads(1));
        assert_ne!(reads(1), reads(2));
    }

    #[test]
    fn every_read_that_counts_is_of_a_key_with_a_size() {
        for Trace {
            name,
            reads,
            counted,
            sizes,
            ..
        } in traces::all(1)
        {
            assert!(!counted.is_empty() && counted.end <= reads.len(), "{name}");
            assert!(reads.iter().all(|key| (*key as usize) < sizes.len()), "{name}");
        }
    }

    #[test]
    fn hit_rates_are_those_of_the_counted_reads() {
        let trace = Trace {
            name: "two keys".into(),
            reads: vec![0, 1, 0, 1, 2, 0],
            counted: 2..6,
            sizes: vec![10, 20, 30],
            times: None,
        };
        for kind in Kind::ALL {
            let rate = hit_rates(kind, &trace);
            assert!((rate.requests - 75.0).abs() < 1e-9, "{kind:?}: {rate:?}");
            assert!((rate.bytes - 100.0 * 40.0 / 70.0).abs() < 1e-9, "{kind:?}: {rate:?}");
        }
    }

    #[test]
    fn a_bar_from_below_holds_from_there_on() {
        let row = |value| at_least(Row::new("hits", "%", Spread::of(&[value])), 47.5).holds;
        assert_eq!((row(47.5), row(47.4)), (Some(true), Some(false)));
    }
}
