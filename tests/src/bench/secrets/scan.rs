//! Far more bytes read than may be held: every big Secret of the cluster, again and again.

use std::io;

use testkit::ControlPlane;

use super::{process::Programs, runs::Runs};
use crate::{Failure, cgroup::Cgroup, report::Row, table::thousands};

const UNIT: &str = "MiB";
const MIB: u64 = 1024 * 1024;
/// The bound of the cache, in MiB.
const CACHE: u64 = 64;
/// The memory limit of the container, in MiB.
const LIMIT: u64 = 128;
const LRU_PEAK: f64 = 110.0;
const DIRECT_PEAK: f64 = 24.0;
const LRU_AT_ONCE: usize = 16;
const DIRECT_AT_ONCE: usize = 8;

/// What the scan goes over.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) namespace: &'a str,
    pub(super) prefix: &'a str,
    pub(super) secrets: usize,
    pub(super) rounds: usize,
}

/// All runs of one scan.
pub(super) struct Peaks {
    lru: Runs<f64>,
    direct: Runs<f64>,
    kills: Runs<f64>,
}

impl Peaks {
    pub(super) fn new(runs: usize) -> Self {
        let [lru, direct, kills] = [(); 3].map(|()| Runs::new(runs));
        Self { lru, direct, kills }
    }

    /// A scan in each mode by fresh processes; what could not be measured is noted.
    pub(super) async fn run(&mut self, plane: &ControlPlane, programs: &Programs, scan: Scan<'_>) {
        let group = Cgroup::limited(LIMIT * MIB);
        self.lru
            .add(scan.by(plane, programs, "lru", LRU_AT_ONCE, group.as_ref().ok()).await);
        self.kills.add(match group {
            Ok(group) => group.kills().map(f64::from).map_err(Failure::from),
            Err(error) => Err(io::Error::other(format!("no memory cgroup could be made: {error}")).into()),
        });
        self.direct
            .add(scan.by(plane, programs, "direct", DIRECT_AT_ONCE, None).await);
    }

    /// Why the last run gave nothing, if that is so.
    pub(super) fn failed(&self) -> Option<&str> {
        self.lru.failed().or(self.direct.failed())
    }

    pub(super) fn rows(&self, secrets: usize) -> Vec<Row> {
        let [lru, kills, direct] = names(secrets);
        vec![
            self.lru.row(lru, UNIT, |peak| *peak).at_most(LRU_PEAK),
            self.kills.row(kills, "", |kills| *kills).at_most(0.0),
            self.direct.row(direct, UNIT, |peak| *peak).at_most(DIRECT_PEAK),
        ]
    }
}

/// The rows of a scan that nobody asked for.
pub(super) fn not_asked(secrets: usize, reason: &str) -> Vec<Row> {
    let bars = [LRU_PEAK, 0.0, DIRECT_PEAK];
    let rows = names(secrets).into_iter().zip([UNIT, "", UNIT]).zip(bars);
    rows.map(|((name, unit), bar)| {
        let mut row = Row::new(name, unit, None).at_most(bar).because(Some(reason.to_owned()));
        // Neither kept nor broken.
        row.holds = None;
        row
    })
    .collect()
}

fn names(secrets: usize) -> [String; 3] {
    let what = format!("of {} Secrets of 500 kB", thousands(secrets));
    [
        format!("lru of {CACHE} MiB, scan {what}, {LRU_AT_ONCE} at once: peak rss"),
        format!("lru of {CACHE} MiB, scan {what} in a cgroup of {LIMIT} MiB: OOM kills"),
        format!("direct, scan {what}, {DIRECT_AT_ONCE} at once: peak rss"),
    ]
}

impl Scan<'_> {
    async fn by(
        self,
        plane: &ControlPlane,
        programs: &Programs,
        mode: &str,
        at_once: usize,
        group: Option<&Cgroup>,
    ) -> Result<f64, Failure> {
        let arguments = [
            format!("--mode={mode}"),
            format!("--namespace={}", self.namespace),
            format!("--prefix={}", self.prefix),
            format!("--count={}", self.secrets),
            format!("--rounds={}", self.rounds),
            format!("--at-once={at_once}"),
            format!("--max-bytes={}", CACHE * MIB),
        ];
        let mut process = programs.reader(plane.kubeconfig_path(), &arguments, group).await?;
        process.works().await?;
        let peak = process.peak()?;
        process.stop().await?;
        Ok(peak)
    }
}
