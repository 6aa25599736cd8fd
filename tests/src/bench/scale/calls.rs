//! What the API server's audit log says of one phase.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use testkit::audit::{AuditEntries, AuditEntry};

/// The requests of one user in one phase.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// How many of each kind, as `patch deployments` or `update inferenceservices/status`; without watches and lists.
    pub(super) by_kind: BTreeMap<String, usize>,
    /// Those that ask for a change.
    pub(super) writes: usize,
    /// When the first write was received.
    pub(super) first_write: Option<Timestamp>,
    /// When the last write of a child was received.
    pub(super) last_child: Option<Timestamp>,
    /// When the first status of the last service was received.
    pub(super) last_first_status: Option<Timestamp>,
    /// Answers that were errors.
    pub(super) errors: usize,
}

impl Calls {
    /// Of these requests, Leases and Events left out.
    pub(super) fn of(entries: AuditEntries) -> Self {
        let mut calls = Self::default();
        let mut reported = BTreeSet::new();
        for entry in entries.without_leases_and_events().iter() {
            if matches!(entry.verb.as_str(), "watch" | "list") {
                continue;
            }
            *calls.by_kind.entry(kind(entry)).or_default() += 1;
            calls.errors += usize::from(entry.code >= 400);
            if !entry.is_write() {
                continue;
            }
            calls.writes += 1;
            let received: Option<Timestamp> = entry.received.parse().ok();
            earliest(&mut calls.first_write, received);
            if entry.resource != "inferenceservices" {
                latest(&mut calls.last_child, received);
            } else if entry.subresource == "status" && reported.insert((entry.namespace.clone(), entry.name.clone())) {
                latest(&mut calls.last_first_status, received);
            }
        }
        calls
    }

    pub(super) fn all(&self) -> usize {
        self.by_kind.values().sum()
    }
}

fn kind(entry: &AuditEntry) -> String {
    let AuditEntry {
        verb,
        resource,
        subresource,
        ..
    } = entry;
    if subresource.is_empty() {
        format!("{verb} {resource}")
    } else {
        format!("{verb} {resource}/{subresource}")
    }
}

fn earliest(held: &mut Option<Timestamp>, time: Option<Timestamp>) {
    *held = held.iter().copied().chain(time).min();
}

fn latest(held: &mut Option<Timestamp>, time: Option<Timestamp>) {
    *held = held.iter().copied().chain(time).max();
}
