//! How many cases are equal, accepted and different, and the differences themselves.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use serde::Serialize;

use crate::{Accepted, Case, Difference, Error, Harness, Tier};

/// The least share of tier B, in percent, that must be equal or accepted.
pub const TIER_B_BAR: usize = 95;

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// No difference.
    Equal,
    /// Only accepted differences.
    Accepted,
    /// At least one difference that is not accepted.
    Different,
}

/// Cases by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many there were.
    pub cases: usize,
    /// How many had no difference.
    pub equal: usize,
    /// How many had accepted differences only.
    pub accepted: usize,
    /// How many had others.
    pub different: usize,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        self.cases += 1;
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Accepted => self.accepted += 1,
            Verdict::Different => self.different += 1,
        }
    }
}

/// One case that was played.
#[derive(Clone, Debug)]
struct Played {
    folder: String,
    tier: Tier,
    area: String,
    verdict: Verdict,
    /// What is not accepted.
    different: Vec<Difference>,
    /// What is, with the reason.
    accepted: Vec<(Difference, String)>,
}

/// All cases that were played.
#[derive(Clone, Debug, Default)]
pub struct Report {
    played: Vec<Played>,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    all: Tally,
    tiers: BTreeMap<Tier, Tally>,
    areas: BTreeMap<&'a str, Tally>,
    differing: Vec<&'a str>,
}

impl Report {
    /// Adds a case with its differences, and says what came of it.
    pub fn add(
        &mut self,
        harness: Harness,
        case: &Case,
        differences: Vec<Difference>,
        accepted: &mut Accepted,
    ) -> Verdict {
        let (mut different, mut meant) = (Vec::new(), Vec::new());
        for difference in differences {
            match accepted.reason(harness, &case.id, &difference.path) {
                Some(reason) => meant.push((difference, reason.to_owned())),
                None => different.push(difference),
            }
        }
        let verdict = match (different.is_empty(), meant.is_empty()) {
            (true, true) => Verdict::Equal,
            (true, false) => Verdict::Accepted,
            (false, _) => Verdict::Different,
        };
        self.played.push(Played {
            folder: case.folder.clone(),
            tier: case.tier,
            area: case.area.clone(),
            verdict,
            different,
            accepted: meant,
        });
        verdict
    }

    /// All cases.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.count(|_| true)
    }

    /// The cases of a tier.
    #[must_use]
    pub fn tier(&self, tier: Tier) -> Tally {
        self.count(|played| played.tier == tier)
    }

    fn count(&self, wanted: impl Fn(&Played) -> bool) -> Tally {
        let mut tally = Tally::default();
        for played in self.played.iter().filter(|played| wanted(played)) {
            tally.add(played.verdict);
        }
        tally
    }

    fn areas(&self) -> BTreeMap<&str, Tally> {
        let mut areas: BTreeMap<&str, Tally> = BTreeMap::new();
        for played in &self.played {
            areas.entry(&played.area).or_default().add(played.verdict);
        }
        areas
    }

    /// What is not as it must be: a difference in tier A, or too many in tier B.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let first = self.tier(Tier::A);
        if first.different > 0 {
            failures.push(format!(
                "{} of {} cases of tier A are different",
                first.different, first.cases
            ));
        }
        let second = self.tier(Tier::B);
        if (second.equal + second.accepted) * 100 < second.cases * TIER_B_BAR {
            failures.push(format!(
                "{} of {} cases of tier B are different, more than {} %",
                second.different,
                second.cases,
                100 - TIER_B_BAR
            ));
        }
        failures
    }

    /// The figures by area and by tier.
    #[must_use]
    pub fn table(&self) -> String {
        let tiers = [Tier::A, Tier::B, Tier::C].map(|tier| (format!("tier {tier}"), self.tier(tier)));
        let rows = self.areas().into_iter().map(|(area, tally)| (area.to_owned(), tally));
        let rows = rows.chain(tiers).chain([("all".to_owned(), self.tally())]);
        let mut text = format!(
            "{:<20} {:>6} {:>6} {:>9} {:>10}\n",
            "area", "cases", "equal", "accepted", "different"
        );
        for (name, tally) in rows {
            let Tally {
                cases,
                equal,
                accepted,
                different,
            } = tally;
            let _ = writeln!(text, "{name:<20} {cases:>6} {equal:>6} {accepted:>9} {different:>10}");
        }
        text
    }

    /// Every difference that is not accepted: case, path, recorded, found.
    #[must_use]
    pub fn differences(&self) -> String {
        let mut text = String::new();
        for played in &self.played {
            for difference in &played.different {
                let _ = writeln!(text, "{} ({}): {difference}", played.folder, played.tier);
            }
        }
        text
    }

    /// The accepted differences by their reason.
    #[must_use]
    pub fn accepted(&self) -> String {
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for played in &self.played {
            for (difference, reason) in &played.accepted {
                let place = format!("{} {}", played.folder, difference.path);
                reasons.entry(reason).or_default().push(place);
            }
        }
        let mut text = String::new();
        for (reason, places) in reasons {
            let _ = writeln!(text, "{}\n    {}", reason.trim(), places.join("\n    "));
        }
        text
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let differing = self.played.iter().filter(|played| played.verdict == Verdict::Different);
        let written = Written {
            all: self.tally(),
            tiers: [Tier::A, Tier::B, Tier::C].map(|tier| (tier, self.tier(tier))).into(),
            areas: self.areas(),
            differing: differing.map(|played| played.folder.as_str()).collect(),
        };
        let text = serde_json::to_string_pretty(&written).map_err(|error| Error::content(path, error.to_string()))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        fs::write(path, text + "\n").map_err(Error::io(path))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Equal => "equal",
            Self::Accepted => "accepted",
            Self::Different => "different",
        })
    }
}
