//! Accepted differences, each with its reason.

use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    accepted: Vec<Entry>,
    #[serde(default)]
    not_yet: Vec<NotYet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    cases: Vec<String>,
    /// Prefixes of difference paths.
    paths: Vec<String>,
    #[allow(dead_code, reason = "for readers of the file")]
    why: String,
    #[serde(skip)]
    used: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotYet {
    case: String,
    why: String,
}

pub(crate) struct Accepted(File);

impl Accepted {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("golden/accepted.yaml is part of the crate");
        Self(serde_saphyr::from_str(&text).expect("golden/accepted.yaml is well formed"))
    }

    pub(crate) fn covers(&mut self, case: &str, path: &str) -> bool {
        let mut covered = false;
        for entry in &mut self.0.accepted {
            if !entry.cases.iter().any(|known| known == case) {
                continue;
            }
            for prefix in entry.paths.iter().filter(|prefix| path.starts_with(prefix.as_str())) {
                entry.used.push((case.to_owned(), prefix.clone()));
                covered = true;
            }
        }
        covered
    }

    pub(crate) fn not_yet(&self, case: &str) -> Option<&str> {
        self.0
            .not_yet
            .iter()
            .find(|entry| entry.case == case)
            .map(|entry| entry.why.as_str())
    }

    pub(crate) fn unused(&self) -> Vec<(String, String)> {
        self.0
            .accepted
            .iter()
            .flat_map(|entry| {
                entry
                    .cases
                    .iter()
                    .flat_map(|case| entry.paths.iter().map(|path| (case.clone(), path.clone())))
                    .filter(|pair| !entry.used.contains(pair))
            })
            .collect()
    }
}
