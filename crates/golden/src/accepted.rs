//! Differences that are meant, each with its reason.

use std::{collections::BTreeSet, fmt, path::Path};

use serde::Deserialize;

use crate::{Error, documents::read_document};

/// What plays the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Harness {
    /// The decisions alone, on plain data.
    Core,
    /// The operator on a real control plane, which injects storage into Deployments.
    Cluster,
    /// The same, where it leaves that to `KServe`'s webhook.
    ClusterAnnotations,
}

/// The content of `accepted.yaml`, and what of it was used.
#[derive(Debug)]
pub struct Accepted {
    entries: Vec<Entry>,
    not_yet: Vec<NotYet>,
    /// Entry, case and path of every use.
    used: BTreeSet<(usize, String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    accepted: Vec<Entry>,
    #[serde(default)]
    not_yet: Vec<NotYet>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Ids.
    cases: Vec<String>,
    /// Prefixes of paths; `*` stands for anything but a slash.
    paths: Vec<String>,
    why: String,
    /// Where it shows; none means everywhere.
    #[serde(default)]
    harness: Vec<Harness>,
}

/// A case that needs what is not built yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotYet {
    case: String,
    why: String,
}

/// A part of an entry that no difference needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// The case's id.
    pub case: String,
    /// The prefix.
    pub path: String,
}

impl fmt::Display for Unused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.case, self.path)
    }
}

impl Accepted {
    /// Reads the file; without a file nothing is accepted.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or an entry has no reason.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let written = if path.is_file() {
            read_document(path)?
        } else {
            Written {
                accepted: Vec::new(),
                not_yet: Vec::new(),
            }
        };
        let reasons = written.accepted.iter().map(|entry| &entry.why);
        let mut reasons = reasons.chain(written.not_yet.iter().map(|entry| &entry.why));
        if reasons.any(|why| why.trim().is_empty()) {
            return Err(Error::content(path, "an entry has no reason"));
        }
        Ok(Self {
            entries: written.accepted,
            not_yet: written.not_yet,
            used: BTreeSet::new(),
        })
    }

    /// Why a difference is accepted, if it is.
    pub fn reason(&mut self, harness: Harness, case: &str, path: &str) -> Option<&str> {
        let mut reason = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if !(entry.applies(harness) && entry.cases.iter().any(|known| known == case)) {
                continue;
            }
            for prefix in entry.paths.iter().filter(|prefix| covers(prefix, path)) {
                self.used.insert((index, case.to_owned(), prefix.clone()));
                reason.get_or_insert(entry.why.as_str());
            }
        }
        reason
    }

    /// Why things differ, each with the ids of cases where it shows.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.entries
            .iter()
            .map(|entry| (entry.why.as_str(), entry.cases.as_slice()))
    }

    /// What a case needs that is not built yet, if anything.
    #[must_use]
    pub fn not_yet(&self, case: &str) -> Option<&str> {
        let entry = self.not_yet.iter().find(|entry| entry.case == case)?;
        Some(&entry.why)
    }

    /// What was never used, after all cases have been played, of the entries that must show in a harness: the core's and
    /// the webhook's own ones there, and all others on a control plane with leanserve's way of injecting storage.
    #[must_use]
    pub fn unused(&self, harness: Harness) -> Vec<Unused> {
        let mut unused = Vec::new();
        let entries = self.entries.iter().enumerate();
        for (index, entry) in entries.filter(|(_, entry)| entry.must_show(harness)) {
            let is_used = |case: &String, path: &String| self.used.contains(&(index, case.clone(), path.clone()));
            for case in &entry.cases {
                // Some prefix of an entry shows here and another one there.
                if !entry.paths.iter().any(|path| is_used(case, path)) {
                    unused.extend(entry.paths.iter().map(|path| Unused {
                        case: case.clone(),
                        path: path.clone(),
                    }));
                }
            }
        }
        unused
    }
}

impl Entry {
    fn applies(&self, harness: Harness) -> bool {
        self.harness.is_empty() || self.harness.contains(&harness)
    }

    fn must_show(&self, harness: Harness) -> bool {
        match harness {
            Harness::Cluster => self.applies(harness),
            Harness::Core | Harness::ClusterAnnotations => self.harness == [harness],
        }
    }
}

/// Whether `prefix` is `path` or leads to it, field by field.
fn covers(prefix: &str, path: &str) -> bool {
    let ends_a_name = prefix.ends_with('/');
    rests(prefix, path)
        .into_iter()
        .any(|rest| ends_a_name || rest.is_empty() || rest.starts_with(['.', '[', '/']))
}

/// What is left of `path` after `prefix`, for each way its stars can be read.
fn rests<'a>(prefix: &str, path: &'a str) -> Vec<&'a str> {
    let Some((before, after)) = prefix.split_once('*') else {
        return path.strip_prefix(prefix).into_iter().collect();
    };
    let Some(tail) = path.strip_prefix(before) else {
        return Vec::new();
    };
    let most = tail.find('/').unwrap_or(tail.len());
    let ends = (0..=most).filter(|end| tail.is_char_boundary(*end));
    ends.flat_map(|end| rests(after, &tail[end..])).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Accepted, Harness, Path, covers};

    fn accepted(text: &str) -> Accepted {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        Accepted::read(file.path()).expect("well formed")
    }

    #[test]
    fn a_prefix_covers_whole_fields() {
        for (prefix, path, expected) in [
            ("expect-1/hpa.m.spec", "expect-1/hpa.m.spec", true),
            ("expect-1/hpa.m.spec", "expect-1/hpa.m.spec.metrics[0]", true),
            ("expect-1/hpa.m.spec", "expect-1/hpa.m.specs", false),
            ("expect-1/hpa.m", "expect-1/hpa.m-predictor", false),
            ("expect-1/", "expect-1/pod", true),
            ("expect-1/", "expect-10/pod", false),
            ("expect-*/events", "expect-2/events.Normal.Ready", true),
            ("*/pod", "expect-2/pod.spec", true),
            ("*/pod", "expect-2/x/pod", false),
            (
                "*/inferenceservice.*.status",
                "expect-2/inferenceservice.a.status.url",
                true,
            ),
            ("*.status", "expect-2/inferenceservice.a.spec", false),
        ] {
            assert_eq!(covers(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn entries_are_found_by_case_path_and_harness_and_what_is_not_needed_is_known() {
        let mut accepted = accepted(
            "accepted:\n- cases: ['1', '2', '3']\n  paths: [e/a, e/b]\n  harness: [core]\n  why: so\n\
             - cases: ['1', '2']\n  paths: [e/c]\n  why: both\nnotYet:\n- case: '4'\n  why: later\n",
        );
        assert_eq!(accepted.reason(Harness::Core, "1", "e/a.x"), Some("so"));
        assert_eq!(accepted.reason(Harness::Cluster, "1", "e/a.x"), None);
        assert_eq!(accepted.reason(Harness::Cluster, "1", "e/c"), Some("both"));
        assert_eq!(accepted.reason(Harness::Core, "4", "e/a"), None);
        assert_eq!(accepted.not_yet("4"), Some("later"));
        let unused = |harness| -> Vec<String> {
            let unused = accepted.unused(harness);
            unused.iter().map(ToString::to_string).collect()
        };
        assert_eq!(unused(Harness::Core), ["2: e/a", "2: e/b", "3: e/a", "3: e/b"]);
        assert_eq!(unused(Harness::Cluster), ["2: e/c"]);
        assert!(unused(Harness::ClusterAnnotations).is_empty());
    }

    #[test]
    fn an_entry_needs_a_reason() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "accepted:\n- cases: ['1']\n  paths: [e]\n  why: ''\n").expect("written");
        let error = Accepted::read(file.path()).expect_err("no reason").to_string();
        assert!(error.contains("no reason"), "{error}");
        let missing = Path::new("/nonexistent/accepted.yaml");
        assert!(Accepted::read(missing).expect("nothing accepted").entries.is_empty());
    }
}
