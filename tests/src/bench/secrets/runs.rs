//! Several runs of one measurement.

use crate::{
    Failure,
    report::{Row, Spread},
};

/// What the runs gave, or why not.
pub(super) struct Runs<T> {
    wanted: usize,
    done: Vec<Result<T, String>>,
}

impl<T> Runs<T> {
    /// None yet of so many.
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            wanted,
            done: Vec::new(),
        }
    }

    /// How many there are to be.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(super) fn add(&mut self, run: Result<T, Failure>) {
        self.done.push(run.map_err(|failure| failure.to_string()));
    }

    /// Why the last run gave nothing, if that is so.
    pub(super) fn failed(&self) -> Option<&str> {
        self.done.last()?.as_ref().err().map(String::as_str)
    }

    /// One figure of all runs.
    pub(super) fn spread(&self, part: impl Fn(&T) -> f64) -> Option<Spread> {
        let values: Vec<f64> = self.done.iter().flatten().map(part).collect();
        Spread::of(&values)
    }

    /// A row of one figure, which says what is missing and why.
    pub(super) fn row(&self, name: impl Into<String>, unit: &str, part: impl Fn(&T) -> f64) -> Row {
        Row::new(name, unit, self.spread(part)).because(self.missing())
    }

    fn missing(&self) -> Option<String> {
        let missing = self.wanted - self.done.iter().flatten().count();
        let reason = self.done.iter().find_map(|run| run.as_ref().err());
        let reason = reason.map_or("it was not run", String::as_str);
        (missing > 0).then(|| format!("{missing} of {} runs not measured: {reason}", self.wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Runs;

    #[test]
    fn rows_say_what_is_missing() {
        let mut runs = Runs::new(3);
        runs.add(Ok(1.0));
        runs.add(Err(io::Error::other("it ended").into()));
        assert_eq!(runs.failed(), Some("it ended"));
        runs.add(Ok(2.0));
        assert_eq!(runs.failed(), None);
        let row = runs.row("a", "ns", |value| 2.0 * value).at_most(3.0);
        assert_eq!(
            (row.value, row.range, row.holds),
            (Some(3.0), Some([2.0, 4.0]), Some(true))
        );
        assert_eq!(row.reason.as_deref(), Some("1 of 3 runs not measured: it ended"));
        let never: Runs<f64> = Runs::new(1);
        let row = never.row("b", "ns", |value| *value);
        assert_eq!(row.value, None);
        assert_eq!(row.reason.as_deref(), Some("1 of 1 runs not measured: it was not run"));
    }
}
