//! How much memory is left, and what was done about it.

use std::time::Duration;

use memory_guard::{Level, Reading};
use prometheus_client::metrics::gauge::Gauge;

use super::catalog::{Catalog, CounterBy, FloatGauge, FloatGaugeBy, GaugeBy, Label};
use crate::memory::shedders;

const LEVEL: Label = Label::closed("level", || Level::ALL.map(Level::as_str).to_vec());
const SHED_LEVEL: Label = Label::closed("level", || SHED_LEVELS.map(Level::as_str).to_vec());
const SHEDDER: Label = Label::closed("shedder", || shedders::ALL.to_vec());
const STALL: Label = Label::closed("stall", || vec!["full", "some"]);

/// Levels at which something is shed.
const SHED_LEVELS: [Level; 3] = [Level::Shrink, Level::Purge, Level::Refuse];

/// What the memory guard sees and does.
pub(crate) struct MemoryMetrics {
    limit_bytes: FloatGauge,
    used_bytes: Gauge,
    headroom_bytes: FloatGauge,
    headroom_seconds: FloatGauge,
    level: GaugeBy<1>,
    sheds: CounterBy<2>,
    stalled: FloatGaugeBy<1>,
}

impl MemoryMetrics {
    /// Of a process with these shedders.
    pub(super) fn new(catalog: &mut Catalog, shedders: &[&'static str]) -> Self {
        let metrics = Self {
            limit_bytes: catalog.float_gauge(
                "leanserve_memory_limit_bytes",
                "Memory at which the kernel kills the process; infinite where there is no limit",
            ),
            used_bytes: catalog.gauge(
                "leanserve_memory_used_bytes",
                "Memory that counts towards the limit and that the kernel cannot take back",
            ),
            headroom_bytes: catalog.float_gauge(
                "leanserve_memory_headroom_bytes",
                "What is left of the limit; infinite where there is none",
            ),
            headroom_seconds: catalog.float_gauge(
                "leanserve_memory_headroom_seconds",
                "When nothing will be left, by the trend of the last ten minutes; infinite where use does not grow",
            ),
            level: catalog.gauge_by(
                "leanserve_memory_pressure_level",
                "1 for the level in force: how short memory is",
                [LEVEL],
            ),
            sheds: catalog.counter_by(
                "leanserve_memory_sheds_total",
                "Times that something was told to do with less memory",
                [SHEDDER, SHED_LEVEL],
            ),
            stalled: catalog.float_gauge_by(
                "leanserve_memory_stall_ratio",
                "Part of the last ten seconds in which some or all (full) work waited for memory; only where the kernel tells",
                [STALL],
            ),
        };
        for &shedder in shedders {
            for level in SHED_LEVELS {
                metrics.sheds.with([shedder, level.as_str()]);
            }
        }
        for gauge in [&metrics.limit_bytes, &metrics.headroom_bytes, &metrics.headroom_seconds] {
            gauge.set(f64::INFINITY);
        }
        metrics.level(Level::Normal);
        metrics
    }

    /// Memory is used like this, and what is left will be gone then.
    pub(crate) fn seen(&self, reading: &Reading, gone_in: Option<Duration>) {
        self.used_bytes
            .set(i64::try_from(reading.used_bytes).unwrap_or(i64::MAX));
        self.limit_bytes.set(bytes(reading.limit_bytes));
        self.headroom_bytes.set(bytes(reading.headroom_bytes()));
        self.headroom_seconds
            .set(gone_in.map_or(f64::INFINITY, |gone_in| gone_in.as_secs_f64()));
        if let Some(stall) = reading.stall {
            self.stalled.with(["some"]).set(stall.some_percent / 100.0);
            self.stalled.with(["full"]).set(stall.full_percent / 100.0);
        }
    }

    /// Memory is this short.
    pub(crate) fn level(&self, level: Level) {
        for other in Level::ALL {
            self.level.with([other.as_str()]).set(i64::from(other == level));
        }
    }

    /// A shedder was told.
    pub(crate) fn shed(&self, shedder: &'static str, level: Level) {
        self.sheds.with([shedder, level.as_str()]).inc();
    }
}

fn bytes(bytes: Option<u64>) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
    bytes.map_or(f64::INFINITY, |bytes| bytes as f64)
}

/// A reading with all that a kernel may tell.
#[cfg(test)]
pub(super) fn stalled() -> Reading {
    Reading {
        used_bytes: 1,
        limit_bytes: Some(2),
        origin: memory_guard::Origin::CgroupV2,
        stall: Some(memory_guard::Stall {
            some_percent: 50.0,
            full_percent: 25.0,
            some_total: Duration::from_secs(2),
            full_total: Duration::from_secs(1),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_infinite() {
        let metrics = MemoryMetrics::new(&mut Catalog::default(), &shedders::OF_THE_OPERATOR);
        assert!(metrics.limit_bytes.get().is_infinite() && metrics.headroom_seconds.get().is_infinite());
        metrics.seen(&stalled(), Some(Duration::from_millis(1500)));
        let found = [&metrics.limit_bytes, &metrics.headroom_bytes, &metrics.headroom_seconds].map(FloatGauge::get);
        assert_eq!(found.map(f64::to_bits), [2.0, 1.0, 1.5].map(f64::to_bits));
        assert_eq!(metrics.stalled.with(["some"]).get().to_bits(), 0.5_f64.to_bits());
        let no_limit = Reading {
            limit_bytes: None,
            ..stalled()
        };
        metrics.seen(&no_limit, None);
        assert!(metrics.headroom_bytes.get().is_infinite());
    }
}
