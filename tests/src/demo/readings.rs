//! What the operator's metrics and `/proc` say.

use std::{collections::BTreeMap, io};

use testkit::operator::Memory;

use super::screen::mebibytes;
use crate::{Running, table};

const MODE: &str = "leanserve_secret_access_mode{";
const READS: &str = "leanserve_secret_reads_total{";

/// One look.
pub(super) struct Readings {
    /// The mode in force.
    pub(super) mode: String,
    memory: Memory,
    reads: BTreeMap<String, Reads>,
}

/// Secret reads in one mode.
#[derive(Debug, Default, PartialEq)]
struct Reads {
    by_source: BTreeMap<String, u64>,
}

impl Reads {
    fn total(&self) -> u64 {
        self.by_source.values().sum()
    }
}

impl Readings {
    pub(super) async fn of(operator: &Running) -> io::Result<Self> {
        let page = operator.metrics().await?;
        Ok(Self {
            mode: mode(&page).unwrap_or_else(|| "unknown".to_owned()),
            memory: operator.process.memory().map_err(io::Error::other)?,
            reads: reads(&page),
        })
    }

    pub(super) fn reads_in(&self, mode: &str) -> u64 {
        self.reads.get(mode).map_or(0, Reads::total)
    }

    pub(super) fn memory_text(&self) -> String {
        let Memory {
            resident_kib, peak_kib, ..
        } = self.memory;
        format!(
            "{:.1} MiB resident, {:.1} MiB at most so far",
            mebibytes(resident_kib),
            mebibytes(peak_kib)
        )
    }

    pub(super) fn reads_text(&self) -> String {
        reads_text(&self.reads)
    }

    pub(super) fn table(&self, unrelated: usize) -> String {
        let row = |what: &str, value: String| vec![format!("  {what}"), value];
        table::aligned(&[
            row(
                "operator's memory",
                format!(
                    "{}, with {} unrelated Secrets in the cluster",
                    self.memory_text(),
                    table::thousands(unrelated)
                ),
            ),
            row("mode", self.mode.clone()),
            row("Secret reads", self.reads_text()),
        ])
    }
}

fn reads_text(reads: &BTreeMap<String, Reads>) -> String {
    if reads.is_empty() {
        return "none".to_owned();
    }
    let modes: Vec<String> = reads
        .iter()
        .map(|(mode, reads)| {
            let sources: Vec<String> = reads
                .by_source
                .iter()
                .map(|(source, count)| format!("{count} from {source}"))
                .collect();
            format!("{} in mode {mode} ({})", reads.total(), sources.join(", "))
        })
        .collect();
    modes.join(", ")
}

/// The mode whose gauge is 1.
fn mode(page: &str) -> Option<String> {
    page.lines()
        .filter(|line| line.starts_with(MODE) && line.ends_with(" 1"))
        .find_map(|line| label(line, "mode"))
}

/// Reads by mode and source.
fn reads(page: &str) -> BTreeMap<String, Reads> {
    let mut reads: BTreeMap<String, Reads> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with(READS)) {
        let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok());
        if let (Some(mode), Some(source), Some(count @ 1..)) = (label(line, "mode"), label(line, "source"), count) {
            *reads.entry(mode).or_default().by_source.entry(source).or_default() += count;
        }
    }
    reads
}

/// A label of a sample. The values looked for here are words: there is nothing to unescape.
fn label(line: &str, name: &str) -> Option<String> {
    let labels = line.split_once('{')?.1.rsplit_once('}')?.0;
    let found = labels.split(',').filter_map(|label| label.split_once('='));
    let value = found.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{mode, reads, reads_text};

    const PAGE: &str = r#"# TYPE leanserve_secret_access_mode gauge
leanserve_secret_access_mode{mode="auto"} 0
leanserve_secret_access_mode{mode="direct"} 1
leanserve_secret_access_mode_switches_total 1
leanserve_secret_reads_total{mode="auto",source="api",result="found"} 2
leanserve_secret_reads_total{mode="auto",source="api",result="not_found"} 1
leanserve_secret_reads_total{mode="auto",source="cache",result="found"} 4
leanserve_secret_reads_total{mode="lru",source="cache",result="found"} 0
leanserve_secret_reads_total{mode="direct",source="api",result="found"} 1
# EOF
"#;

    #[test]
    fn the_mode_is_the_one_in_force() {
        assert_eq!(mode(PAGE).as_deref(), Some("direct"));
        assert_eq!(mode(""), None);
    }

    #[test]
    fn reads_are_added_up_by_mode_and_source() {
        let text = reads_text(&reads(PAGE));
        assert_eq!(
            text,
            "7 in mode auto (3 from api, 4 from cache), 1 in mode direct (1 from api)"
        );
        assert_eq!(reads_text(&reads("")), "none");
    }
}
