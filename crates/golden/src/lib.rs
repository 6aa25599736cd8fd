//! Recorded behaviour of `KServe`, and how something else is held against it.
//!
//! A [`Recording`] is a folder of cases. Each [`Case`] is a list of [`Step`]s (apply this file, make these Pods ready) with
//! the objects, statuses and Events that `KServe` had produced after some of them: [`Objects`], by the names the recording
//! gave them. A harness plays the steps on whatever it tests, brings what it finds into the same form
//! ([`normalize`]), and has it [compared](compare::Comparison). What differs on purpose is in a file of [`Accepted`]
//! differences, each with its reason; the [`Report`] says how many cases are equal, accepted and different.
//!
//! There are two harnesses: `isvc-core` plays the cases on plain data in its tests, and the program `golden` in
//! `leanserve-tests` plays them with the operator's binary on a real control plane. `docs/golden.md` tells how to use them.

mod accepted;
mod case;
pub mod compare;
pub mod compat;
mod difference;
mod documents;
mod error;
mod import;
pub mod normalize;
mod recording;
pub mod report;
mod steps;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::{
    accepted::{Accepted, Harness, Unused},
    case::{Case, Tier},
    difference::Difference,
    documents::{parse_documents, read_documents},
    error::Error,
    import::import,
    recording::Recording,
    report::{Report, Verdict},
    steps::{Action, Patch, RouteStatus, Step},
};

/// Recorded or found objects by the recording's names: `KIND.NAME` with the kind in lower case, such as
/// `deployment.m-predictor`; `pod`, `pod-transformer`, `pod-explainer` or `pod.DEPLOYMENT` for Pods; and `events`.
pub type Objects = BTreeMap<String, Value>;
