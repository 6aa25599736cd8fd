//! Reports of benchmarks: a table for people and `target/reports/NAME.json` for programs.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::table;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured; also the name of its file.
    pub name: String,
    /// When, in RFC 3339.
    pub when: String,
    /// On what.
    pub machine: String,
    /// Of what, by name.
    pub versions: BTreeMap<String, String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// The median of all runs; `None` when it could not be measured.
    pub value: Option<f64>,
    /// The least and the greatest of all runs.
    pub range: Option<[f64; 2]>,
    /// Of `value`, `range` and the peer's value.
    pub unit: String,
    /// The same figure of something else, measured in the same run.
    pub peer: Option<Peer>,
    /// What `value` must keep to, such as `<= 1`.
    pub bar: Option<String>,
    /// Whether it does; `None` without a bar.
    pub holds: Option<bool>,
    /// What could not be measured, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It cannot be measured where this ran, and that is no failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inapplicable: bool,
}

/// Something to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What it is.
    pub name: String,
    /// Its figure.
    pub value: f64,
}

/// What several runs gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The value in the middle, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of these values; `None` when there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let (lower, upper) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: f64::midpoint(lower, upper),
            least,
            greatest,
        })
    }

    /// How much more this is than `before`: the difference of the medians, and the least and greatest difference that
    /// any two runs have.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            median: self.median - before.median,
            least: self.least - before.greatest,
            greatest: self.greatest - before.least,
        }
    }
}

impl Row {
    /// A figure without a bar; one that could not be measured when there is no `spread`.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &str, spread: Option<Spread>) -> Self {
        Self {
            name: name.into(),
            value: spread.map(|spread| rounded(spread.median)),
            range: spread.map(|spread| [rounded(spread.least), rounded(spread.greatest)]),
            unit: unit.to_owned(),
            peer: None,
            bar: None,
            holds: None,
            reason: None,
            inapplicable: false,
        }
    }

    /// A figure that was measured once.
    #[must_use]
    pub fn figure(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self::new(name, unit, Spread::of(&[value]))
    }

    /// A figure that could not be measured, and why.
    #[must_use]
    pub fn unmeasured(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(name, "", None).because(Some(reason.into()))
    }

    /// A figure that cannot be measured where this runs, and why; no failure.
    #[must_use]
    pub fn inapplicable(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut row = Self::unmeasured(name, reason);
        row.inapplicable = true;
        row
    }

    /// One line for people, without a table around it.
    #[must_use]
    pub fn line(&self) -> String {
        let cells = self.cells();
        let told = cells.iter().chain(&self.reason).filter(|cell| !cell.is_empty());
        told.map(String::as_str).collect::<Vec<_>>().join("  ")
    }

    /// Says what could not be measured and why, if anything.
    #[must_use]
    pub fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }

    /// Puts another's figure beside it, where that could be measured.
    #[must_use]
    pub fn beside(mut self, name: &str, peer: Option<Spread>) -> Self {
        self.peer = peer.map(|spread| Peer {
            name: name.to_owned(),
            value: rounded(spread.median),
        });
        self
    }

    /// Sets the bar: the value, or for a difference its amount, is at most this. What was not measured does not hold.
    #[must_use]
    pub fn at_most(mut self, limit: f64) -> Self {
        self.bar = Some(format!("<= {limit}"));
        self.holds = Some(self.value.is_some_and(|value| value.abs() <= limit));
        self
    }
}

impl Row {
    /// Sets the bar: the value is at least this. What was not measured does not hold.
    #[must_use]
    pub fn at_least(mut self, limit: f64) -> Self {
        self.bar = Some(format!(">= {}", rounded(limit)));
        self.holds = Some(self.value.is_some_and(|value| value >= limit));
        self
    }
}

impl Report {
    /// A report of now, on this machine.
    #[must_use]
    pub fn new(name: &str, versions: BTreeMap<String, String>, rows: Vec<Row>) -> Self {
        Self {
            name: name.to_owned(),
            when: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            machine: machine(),
            versions,
            rows,
        }
    }

    /// The same under another name, because it has not measured everything: what was measured in full stays.
    #[must_use]
    pub fn of_a_part(mut self) -> Self {
        self.name.push_str("-part");
        self
    }

    /// Writes `target/reports/NAME.json` in the workspace, and says where that is.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self) -> io::Result<PathBuf> {
        self.write_to(&workspace().join("target/reports"))
    }

    fn write_to(&self, directory: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}.json", self.name));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Names of the rows whose bar does not hold and of those that could not be measured in every run.
    #[must_use]
    pub fn failures(&self) -> Vec<&str> {
        let unmeasured = |row: &Row| row.reason.is_some() || row.value.is_none();
        let failed = |row: &&Row| row.holds == Some(false) || (unmeasured(row) && !row.inapplicable);
        self.rows.iter().filter(failed).map(|row| row.name.as_str()).collect()
    }

    /// The rows for people.
    #[must_use]
    pub fn table(&self) -> String {
        let heading = ["", "MEDIAN", "RANGE", "UNIT", "PEER", "BAR", "HOLDS"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(Row::cells));
        let mut text = table::aligned(&rows);
        for row in &self.rows {
            if let Some(reason) = &row.reason {
                text.extend([&row.name, ": ", reason, "\n"]);
            }
        }
        text
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let number = |value: f64| format!("{value:.2}");
        let (value, range) = (self.value, self.range);
        vec![
            self.name.clone(),
            value.map_or_else(|| "not measured".to_owned(), number),
            range.map_or_else(String::new, |[least, greatest]| format!("{least:.2} to {greatest:.2}")),
            self.unit.clone(),
            self.peer
                .as_ref()
                .map_or_else(String::new, |peer| format!("{}: {:.2}", peer.name, peer.value)),
            self.bar.clone().unwrap_or_default(),
            match self.holds {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            }
            .to_owned(),
        ]
    }
}

/// More digits would only be noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// [`locked_versions`] of these packages, and with which profile this program was built.
#[must_use]
pub fn measured_versions(packages: &[&str]) -> BTreeMap<String, String> {
    let mut versions = locked_versions(packages);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    versions.insert("profile".to_owned(), profile.to_owned());
    versions
}

/// The versions of these packages in `Cargo.lock`, as far as they are there once.
#[must_use]
pub fn locked_versions(packages: &[&str]) -> BTreeMap<String, String> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap_or_default();
    let versions = packages.iter().filter_map(|package| {
        let version = locked_version(&lock, package)?;
        Some(((*package).to_owned(), version.to_owned()))
    });
    versions.collect()
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let heading = format!("name = \"{package}\"\nversion = \"");
    let mut found = lock.match_indices(&heading);
    let (start, _) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    lock[start + heading.len()..].split('"').next()
}

/// Cores, memory, processor and kernel, as Linux has them.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|total| {
        let kib: f64 = total.strip_suffix(" kB")?.parse().ok()?;
        Some(format!("{:.0} GiB of memory", kib / 1024.0 / 1024.0))
    });
    let processor = field(&read("/proc/cpuinfo"), "model name").map(str::to_owned);
    let kernel = format!("Linux {}", read("/proc/sys/kernel/osrelease").trim());
    let parts = [Some(format!("{cores} cores")), memory, processor, Some(kernel)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The first `NAME: VALUE` of a file in `/proc`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
        .next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Report, Row, Spread, field, locked_version};

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values).expect("values")
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            name: "memory".into(),
            when: "2026-01-02T03:04:05Z".into(),
            machine: "2 cores".into(),
            versions: [("kube".to_owned(), "5.0.0".to_owned())].into(),
            rows,
        }
    }

    #[test]
    fn spreads_are_medians_and_ranges() {
        assert_eq!(Spread::of(&[]), None);
        let three = spread(&[3.0, 1.0, 2.5]);
        assert_eq!((three.median, three.least, three.greatest), (2.5, 1.0, 3.0));
        assert!((spread(&[4.0, 1.0, 2.0, 3.0]).median - 2.5).abs() < f64::EPSILON);
        let more = spread(&[5.0, 6.0, 5.5]).since(three);
        assert_eq!((more.median, more.least, more.greatest), (3.0, 2.0, 5.0));
    }

    #[test]
    fn the_format_is_the_projects() {
        let rows = vec![
            Row::new(
                "direct: rss at 8,000 Secrets",
                "MiB",
                Some(spread(&[11.2, 11.004, 11.4])),
            )
            .beside("kube-rs reflector", Some(spread(&[88.1])))
            .at_most(12.0),
            Row::new("lru: rss", "MiB", None).because(Some("it did not start".into())),
        ];
        let expected = json!({
            "name": "memory", "when": "2026-01-02T03:04:05Z", "machine": "2 cores", "versions": {"kube": "5.0.0"},
            "rows": [
                {"name": "direct: rss at 8,000 Secrets", "value": 11.2, "range": [11.0, 11.4], "unit": "MiB",
                 "peer": {"name": "kube-rs reflector", "value": 88.1}, "bar": "<= 12", "holds": true},
                {"name": "lru: rss", "value": null, "range": null, "unit": "MiB", "peer": null, "bar": null,
                 "holds": null, "reason": "it did not start"},
            ],
        });
        assert_eq!(serde_json::to_value(report(rows)).expect("it serializes"), expected);
    }

    #[test]
    fn bars_hold_for_amounts_and_never_for_what_is_missing() {
        let row = |spread| Row::new("growth", "MiB", spread).at_most(1.0).holds;
        assert_eq!(row(Some(spread(&[1.0]))), Some(true));
        assert_eq!(row(Some(spread(&[-0.4]))), Some(true));
        assert_eq!(row(Some(spread(&[1.1]))), Some(false));
        assert_eq!(row(Some(spread(&[-1.1]))), Some(false));
        assert_eq!(row(None), Some(false));
    }

    #[test]
    fn failures_are_broken_bars_and_missing_runs() {
        let fine = Some(spread(&[1.0]));
        let report = report(vec![
            Row::new("fine", "MiB", fine).at_most(2.0),
            Row::new("no bar", "MiB", fine),
            Row::new("too much", "MiB", fine).at_most(0.5),
            Row::new("one run short", "MiB", fine).because(Some("it ended".into())),
            Row::new("never", "MiB", None),
        ]);
        assert_eq!(report.failures(), ["too much", "one run short", "never"]);
        let table = report.table();
        assert!(table.contains("too much        1.00"), "{table}");
        assert!(
            table.contains("not measured") && table.ends_with("one run short: it ended\n"),
            "{table}"
        );
    }

    #[test]
    fn a_written_report_reads_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let written = report(vec![Row::new("a", "MiB", Some(spread(&[1.0, 2.0])))]);
        let path = written.write_to(&directory.path().join("new")).expect("it is written");
        assert!(path.ends_with("new/memory.json"));
        let read: Report = serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("its format");
        assert_eq!(read, written);
    }

    #[test]
    fn a_report_of_now_says_where_and_when() {
        let report = Report::new("x", [].into(), vec![]);
        assert!(
            report.machine.contains(" cores, ") && report.machine.contains("Linux "),
            "{}",
            report.machine
        );
        assert!(report.when.ends_with('Z') && report.when.len() == 20, "{}", report.when);
    }

    #[test]
    fn versions_and_fields_are_found() {
        let lock = "[[package]]\nname = \"kube\"\nversion = \"5.0.0\"\n\n[[package]]\nname = \"two\"\nversion = \"1\"\n\
                    \n[[package]]\nname = \"two\"\nversion = \"2\"\n";
        assert_eq!(locked_version(lock, "kube"), Some("5.0.0"));
        assert_eq!(locked_version(lock, "two"), None);
        assert_eq!(locked_version(lock, "absent"), None);
        assert_eq!(
            field("model name\t: Some CPU: X\nmodel name : other", "model name"),
            Some("Some CPU: X")
        );
    }
}
