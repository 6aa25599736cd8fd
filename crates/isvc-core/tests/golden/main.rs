//! The core against recorded behaviour of a running `KServe`.
//!
//! Each folder of `golden/cases` holds inputs and what `KServe` made of them, step by step. The core is run on the same
//! inputs until its status no longer changes, with the Deployment statuses and Pods the recording had, and its objects,
//! status and events are compared field by field. A difference is either listed in `golden/accepted.yaml` with its
//! reason, or fails the test; so does an accepted difference that is not there any more.

mod accepted;
mod case;
mod difference;
mod normalize;
mod world;

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use accepted::Accepted;
use case::Case;

#[derive(Default)]
struct Tally {
    cases: usize,
    equal: usize,
    accepted: usize,
    different: usize,
}

#[test]
fn recorded_behaviour_is_reproduced() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut accepted = Accepted::read(&root.join("accepted.yaml"));
    let filter = std::env::var("GOLDEN_CASE").unwrap_or_default();
    let mut areas: BTreeMap<String, Tally> = BTreeMap::new();
    let mut report = String::new();
    let mut unsupported = Vec::new();
    for case in Case::all(&root.join("cases")) {
        if !case.directory.contains(&filter) {
            continue;
        }
        let tally = areas.entry(case.area.clone()).or_default();
        tally.cases += 1;
        let differences = case.run(&root);
        let (known, unknown): (Vec<_>, Vec<_>) = differences
            .into_iter()
            .partition(|difference| accepted.covers(&case.id, &difference.path));
        if let Some(reason) = accepted.not_yet(&case.id) {
            unsupported.push(format!("{}: {reason}", case.directory));
            tally.different += 1;
        } else if !unknown.is_empty() {
            tally.different += 1;
            for difference in &unknown {
                writeln!(report, "{}: {difference}", case.directory).expect("writing to a String");
            }
        } else if known.is_empty() {
            tally.equal += 1;
        } else {
            tally.accepted += 1;
        }
    }
    println!(
        "{:<20} {:>6} {:>6} {:>9} {:>10}",
        "area", "cases", "equal", "accepted", "different"
    );
    for (area, tally) in &areas {
        println!(
            "{area:<20} {:>6} {:>6} {:>9} {:>10}",
            tally.cases, tally.equal, tally.accepted, tally.different
        );
    }
    for case in unsupported {
        println!("not yet: {case}");
    }
    assert!(report.is_empty(), "differences that are not accepted:\n{report}");
    if filter.is_empty() {
        let unused = accepted.unused();
        assert!(
            unused.is_empty(),
            "accepted differences that no longer exist: {unused:#?}"
        );
    }
}
