//! The core against recorded behaviour of a running `KServe`.
//!
//! Each case in the repository's folder `golden` holds inputs and what `KServe` made of them, step by step. The core is run
//! on the same inputs until its status no longer changes, with the Deployment statuses and Pods the recording had, and its
//! objects, status and Events are compared field by field. A difference is either listed in `golden/accepted.yaml` with its
//! reason, or fails the test; so does an accepted difference that is not there any more.
//!
//! `docs/golden.md` says how to read a difference. `GOLDEN_CASE=464` plays the cases with 464 in their name.

mod children;
mod defaulted;
mod play;
mod world;

use std::path::Path;

use golden::{Harness, Recording, Report};

#[test]
fn recorded_behaviour_is_reproduced() {
    let recording = Recording::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden"));
    let mut accepted = recording.accepted().expect("accepted.yaml is well formed");
    let filter = std::env::var("GOLDEN_CASE").unwrap_or_default();
    let mut report = Report::default();
    let mut not_played = Vec::new();
    for case in recording.cases().expect("the cases are well formed") {
        if !case.folder.contains(&filter) {
            continue;
        }
        if let Some(reason) = accepted.not_yet(&case.id) {
            not_played.push(format!("{}: {reason}", case.folder));
            continue;
        }
        let differences = play::play(&recording, &case);
        report.add(Harness::Core, &case, differences, &mut accepted);
    }
    println!("{}", report.table());
    for case in &not_played {
        println!("not played: {case}");
    }
    let differences = report.differences();
    assert!(
        differences.is_empty(),
        "differences that are not accepted:\n{differences}"
    );
    if filter.is_empty() {
        let unused = accepted.unused(Harness::Core);
        assert!(
            unused.is_empty(),
            "accepted differences that no longer exist: {unused:#?}"
        );
    }
}
