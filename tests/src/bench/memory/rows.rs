//! From readings to the report's rows.

use std::collections::BTreeMap;

use super::{
    Size,
    subject::{Reading, Subject},
};
use crate::{
    report::{Row, Spread},
    table::thousands,
};

const UNIT: &str = "MiB";
/// How much settled memory may change with the unrelated Secrets in mode direct.
const DIRECT_GROWTH_MIB: f64 = 1.0;

/// Everything that was measured, and what was not.
pub(super) struct Results {
    size: Size,
    readings: BTreeMap<(Subject, usize), Vec<Result<Reading, String>>>,
}

impl Results {
    pub(super) fn new(size: Size) -> Self {
        Self {
            size,
            readings: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, subject: Subject, unrelated: usize, reading: Result<Reading, String>) {
        self.readings.entry((subject, unrelated)).or_default().push(reading);
    }

    /// Settled memory and peaks of each subject, and how much more they are with the unrelated Secrets.
    pub(super) fn rows(&self) -> Vec<Row> {
        let peer = Subject::Reflector;
        let mut rows = Vec::new();
        for subject in Subject::ALL {
            let beside = |row: Row, spread: Option<Spread>| {
                if subject == peer {
                    row
                } else {
                    row.beside(peer.name(), spread)
                }
            };
            for (what, part) in [("rss", settled as fn(&Reading) -> f64), ("peak rss", peak)] {
                for unrelated in [0, self.size.secrets] {
                    let name = format!("{}: {what} at {} Secrets", subject.name(), thousands(unrelated));
                    let row = Row::new(name, UNIT, self.spread(subject, unrelated, part));
                    let row = beside(row, self.spread(peer, unrelated, part));
                    rows.push(row.because(self.missing(subject, unrelated)));
                }
            }
            let name = format!(
                "{}: growth of rss, 0 to {} Secrets",
                subject.name(),
                thousands(self.size.secrets)
            );
            let row = beside(Row::new(name, UNIT, self.growth(subject)), self.growth(peer));
            let both = [0, self.size.secrets].map(|unrelated| self.missing(subject, unrelated));
            let row = row.because(both.into_iter().flatten().next());
            rows.push(if subject == Subject::Direct {
                row.at_most(DIRECT_GROWTH_MIB)
            } else {
                row
            });
        }
        rows
    }

    fn spread(&self, subject: Subject, unrelated: usize, part: fn(&Reading) -> f64) -> Option<Spread> {
        let readings = self.readings.get(&(subject, unrelated))?;
        let values: Vec<f64> = readings.iter().flatten().map(part).collect();
        Spread::of(&values)
    }

    fn growth(&self, subject: Subject) -> Option<Spread> {
        let before = self.spread(subject, 0, settled)?;
        Some(self.spread(subject, self.size.secrets, settled)?.since(before))
    }

    /// How many runs are missing, and why the first of them is.
    fn missing(&self, subject: Subject, unrelated: usize) -> Option<String> {
        let none = Vec::new();
        let readings = self.readings.get(&(subject, unrelated)).unwrap_or(&none);
        let missing = self.size.runs - readings.iter().flatten().count();
        let reason = readings.iter().find_map(|reading| reading.as_ref().err());
        let reason = reason.map_or("it was not run", String::as_str);
        (missing > 0).then(|| format!("{missing} of {} runs not measured: {reason}", self.size.runs))
    }
}

fn settled(reading: &Reading) -> f64 {
    reading.settled
}

fn peak(reading: &Reading) -> f64 {
    reading.peak
}

#[cfg(test)]
mod tests {
    use super::{Reading, Results, Row, Size, Subject};

    const SIZE: Size = Size {
        secrets: 8_000,
        services: 100,
        runs: 2,
    };

    /// Both runs of all subjects but one, which is left out in the second run with the unrelated Secrets.
    fn rows(growth: f64, without: Option<Subject>) -> Vec<Row> {
        let mut results = Results::new(SIZE);
        for unrelated in [0, SIZE.secrets] {
            for run in 0..SIZE.runs {
                for subject in Subject::ALL {
                    let more = if unrelated == 0 { 0.0 } else { growth };
                    let settled = 10.0 + more;
                    let reading = Reading {
                        settled,
                        anonymous: settled,
                        peak: settled + 2.0,
                    };
                    let lost = without == Some(subject) && unrelated > 0 && run == 1;
                    let reading = if lost { Err("it ended".into()) } else { Ok(reading) };
                    results.add(subject, unrelated, reading);
                }
            }
        }
        results.rows()
    }

    fn row<'a>(rows: &'a [Row], name: &str) -> &'a Row {
        let found = rows.iter().find(|row| row.name == name);
        found.unwrap_or_else(|| {
            panic!(
                "{name} is in {:?}",
                rows.iter().map(|row| &row.name).collect::<Vec<_>>()
            )
        })
    }

    #[test]
    fn every_subject_has_its_rows_and_the_peer_beside_them() {
        let rows = rows(0.5, None);
        assert_eq!(rows.len(), Subject::ALL.len() * 5);
        let direct = row(&rows, "direct: rss at 8,000 Secrets");
        assert_eq!((direct.value, direct.range), (Some(10.5), Some([10.5, 10.5])));
        assert_eq!(direct.peer.as_ref().map(|peer| peer.value), Some(10.5));
        assert_eq!(row(&rows, "auto with watch: peak rss at 0 Secrets").value, Some(12.0));
        assert_eq!(row(&rows, "kube-rs reflector: rss at 8,000 Secrets").peer, None);
        assert!(rows.iter().all(|row| row.reason.is_none()));
    }

    #[test]
    fn only_the_growth_of_direct_has_a_bar() {
        for (growth, holds) in [(0.5, true), (1.5, false)] {
            let rows = rows(growth, None);
            let barred: Vec<&Row> = rows.iter().filter(|row| row.bar.is_some()).collect();
            assert_eq!(barred.len(), 1);
            assert_eq!(barred[0].name, "direct: growth of rss, 0 to 8,000 Secrets");
            assert_eq!((barred[0].value, barred[0].holds), (Some(growth), Some(holds)));
        }
    }

    #[test]
    fn a_missing_run_is_told_and_the_others_count() {
        let rows = rows(0.0, Some(Subject::Lru));
        let lost = row(&rows, "lru: rss at 8,000 Secrets");
        assert_eq!(lost.value, Some(10.0));
        assert_eq!(lost.reason.as_deref(), Some("1 of 2 runs not measured: it ended"));
        assert!(row(&rows, "lru: growth of rss, 0 to 8,000 Secrets").reason.is_some());
        assert!(row(&rows, "lru: rss at 0 Secrets").reason.is_none());
        assert!(
            Results::new(SIZE)
                .rows()
                .iter()
                .all(|row| row.value.is_none() && row.reason.is_some())
        );
    }
}
