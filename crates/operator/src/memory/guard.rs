//! The memory guard at work: it looks, and tells shedders, metrics, log and cluster.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube_secret_access::Switch;
use memory_guard::{Guard, Level, Reading, Settings, Source, Step, Unreadable};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    concurrency::Concurrency,
    events::{Events, Notice},
    memory::shedders,
    observability::metrics::{MemoryMetrics, Metrics},
};

/// The guard and whoever has to know what it finds.
pub(crate) struct Watchman {
    guard: Guard,
    /// Changed with the `ConfigMap`.
    settings: watch::Receiver<Settings>,
    teller: Teller,
}

/// Tells metrics, log and cluster.
pub(crate) struct Teller {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    /// The operator's `ConfigMap`, for Events.
    pub(crate) config_map: ObjectReference,
}

/// Looks at the memory for ever, and shows what is used: all there is to do where nobody but the guard's shedders has to know.
/// A replica that stands by holds nothing that could be shed.
pub(crate) async fn look_on(mut guard: Guard, metrics: Arc<MemoryMetrics>) {
    loop {
        let step = guard.step(Instant::now().into_std());
        show(&metrics, &guard, &step);
        if step.level != step.former && step.level.max(step.former) >= Level::Purge {
            let (used_bytes, limit_bytes) = figures(&step);
            let (pressure, pressure_before) = (step.level.as_str(), step.former.as_str());
            warn!(
                pressure,
                pressure_before, used_bytes, limit_bytes, "memory pressure has changed"
            );
        }
        sleep(step.pause).await;
    }
}

/// Shows what is used, and what was told to do with less.
fn show(metrics: &MemoryMetrics, guard: &Guard, step: &Step) {
    if let Ok(reading) = &step.reading {
        metrics.seen(reading, guard.gone_in(reading));
    }
    metrics.level(step.level);
    if step.told && step.level > Level::Normal {
        for shedder in guard.shedders() {
            metrics.shed(shedder, step.level);
        }
    }
}

/// What was said of the limit last, so that it is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Footing {
    Limit(u64),
    NoLimit,
    Blind,
}

impl Watchman {
    /// With all that can do with less memory, and where to hand in other settings.
    pub(crate) fn new(
        source: Source,
        switch: &Arc<Switch>,
        concurrency: &Arc<Concurrency>,
        teller: Teller,
    ) -> (Self, watch::Sender<Settings>) {
        let (set, settings) = watch::channel(Settings::default());
        let mut guard = Guard::new(source, Settings::default());
        guard.register(Arc::new(shedders::Passes(Arc::clone(concurrency))));
        guard.register(Arc::new(shedders::Secrets::new(Arc::clone(switch))));
        guard.register(Arc::new(shedders::Pages));
        let watchman = Self {
            guard,
            settings,
            teller,
        };
        (watchman, set)
    }

    /// Looks at the memory for ever, the more often the less there is.
    pub(crate) async fn watch_over(mut self) {
        let mut footing = None;
        loop {
            let settings = *self.settings.borrow_and_update();
            self.guard.set(settings);
            // A few small files that the kernel makes up as they are read: less than a switch to another thread takes.
            let step = self.guard.step(Instant::now().into_std());
            let now = Footing::of(&step.reading);
            if footing != Some(now) {
                footing = Some(now);
                now.log(&step);
            }
            self.teller.tell(&self.guard, &step);
            tokio::select! {
                () = sleep(step.pause) => {}
                // Nobody changes them any more when the operator stops.
                Ok(()) = self.settings.changed() => {}
            }
        }
    }
}

impl Teller {
    fn tell(&self, guard: &Guard, step: &Step) {
        show(&self.metrics.memory, guard, step);
        if step.level == step.former {
            return;
        }
        let (used_bytes, limit_bytes) = figures(step);
        let (pressure, pressure_before) = (step.level.as_str(), step.former.as_str());
        if step.level.max(step.former) < Level::Purge {
            debug!(pressure, pressure_before, used_bytes, limit_bytes, "memory");
            return;
        }
        let message = message(step.level);
        if step.level >= Level::Purge {
            warn!(pressure, pressure_before, used_bytes, limit_bytes, "{message}");
        } else {
            info!(pressure, pressure_before, used_bytes, limit_bytes, "{message}");
        }
        self.events.send(Notice {
            regarding: self.config_map.clone(),
            warning: step.level >= Level::Purge,
            reason: if step.level >= Level::Purge {
                "MemoryShort"
            } else {
                "MemorySufficient"
            },
            action: "ShedMemory",
            message: message.to_owned(),
        });
    }
}

/// The text of an Event, which is the same each time, so that repetitions are counted and not added.
fn message(level: Level) -> &'static str {
    match level {
        Level::Normal => "There is enough memory again: all bounds are as configured",
        Level::Shrink => "Memory is less short: the cache of Secrets and the number of passes at a time stay small",
        Level::Purge => "Memory is short: no Secrets are cached, and one pass runs at a time",
        Level::Refuse => {
            "Memory is nearly used up: big Secrets are not read, no Secrets are cached, and one pass runs at a time"
        }
    }
}

impl Footing {
    fn of(reading: &Result<Reading, Unreadable>) -> Self {
        match reading {
            Ok(Reading {
                limit_bytes: Some(limit),
                ..
            }) => Self::Limit(*limit),
            Ok(_) => Self::NoLimit,
            Err(Unreadable) => Self::Blind,
        }
    }

    fn log(self, step: &Step) {
        let (used_bytes, limit_bytes) = figures(step);
        let origin = step.reading.map_or("none", |reading| reading.origin.as_str());
        match self {
            Self::Limit(_) => info!(origin, used_bytes, limit_bytes, "memory is guarded"),
            Self::NoLimit => info!(
                origin,
                used_bytes, "no memory limit is found: memory is not guarded. memoryLimit in leanserve-config sets one"
            ),
            Self::Blind => warn!(error = %Unreadable, "memory is not guarded"),
        }
    }
}

fn figures(step: &Step) -> (u64, u64) {
    step.reading.map_or((0, 0), |reading| {
        (reading.used_bytes, reading.limit_bytes.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use testkit::eventually;

    use super::*;
    use crate::observability::metrics::tests::page;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn use_bytes(root: &Path, used: u64) {
        let files = [
            ("proc/self/cgroup", "0::/\n".to_owned()),
            (
                "proc/self/mountinfo",
                "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".to_owned(),
            ),
            ("sys/fs/cgroup/memory.max", "1000\n".to_owned()),
            ("sys/fs/cgroup/memory.stat", String::new()),
            ("sys/fs/cgroup/memory.current", format!("{used}\n")),
        ];
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it is below the root")).expect("writable");
            fs::write(path, content).expect("writable");
        }
    }

    /// From enough memory to almost none and back, with another limit at the end.
    #[tokio::test(start_paused = true)]
    async fn levels_show_in_metrics_and_concurrency() {
        let root = tempfile::TempDir::new().expect("a writable directory for temporary files");
        use_bytes(root.path(), 100);
        let metrics = Arc::new(Metrics::new());
        let concurrency = Arc::new(Concurrency::new(8, metrics.passes_allowed.clone()));
        let client = crate::tests::unreachable_client();
        let switch = Switch::new(client.clone(), kube_secret_access::AccessOptions::default());
        let (events, _send) = Events::new(client, Arc::clone(&metrics));
        let teller = Teller {
            metrics: Arc::clone(&metrics),
            events,
            config_map: ObjectReference::default(),
        };
        let switch = Arc::new(switch.expect("valid options"));
        let (watchman, set) = Watchman::new(Source::discover(root.path()), &switch, &concurrency, teller);
        let watching = tokio::spawn(watchman.watch_over());
        let shows = async |lines: &[&str]| {
            eventually(&format!("{lines:?}"), PATIENCE, async || {
                let page = page(&metrics);
                let missing = lines.iter().find(|line| !page.lines().any(|found| found == **line));
                missing.map_or(Ok(()), |missing| Err(format!("{missing} is not in\n{page}")))
            })
            .await;
        };
        shows(&[
            "leanserve_memory_limit_bytes 1000.0",
            "leanserve_memory_used_bytes 100",
            "leanserve_memory_headroom_bytes 900.0",
            "leanserve_memory_pressure_level{level=\"normal\"} 1",
            "leanserve_passes_allowed 8",
        ])
        .await;
        use_bytes(root.path(), 950);
        shows(&[
            "leanserve_memory_pressure_level{level=\"refuse\"} 1",
            "leanserve_memory_pressure_level{level=\"normal\"} 0",
            "leanserve_memory_sheds_total{shedder=\"passes\",level=\"refuse\"} 1",
            "leanserve_passes_allowed 1",
        ])
        .await;
        use_bytes(root.path(), 300);
        shows(&[
            "leanserve_memory_pressure_level{level=\"normal\"} 1",
            "leanserve_passes_allowed 8",
        ])
        .await;
        set.send_replace(Settings {
            limit_bytes: Some(400),
            ..Settings::default()
        });
        shows(&[
            "leanserve_memory_limit_bytes 400.0",
            "leanserve_memory_pressure_level{level=\"shrink\"} 1",
            "leanserve_passes_allowed 4",
        ])
        .await;
        drop(set);
        use_bytes(root.path(), 10);
        shows(&["leanserve_memory_pressure_level{level=\"normal\"} 1"]).await;
        assert!(
            !watching.is_finished(),
            "it goes on without anybody to change its settings"
        );
    }
}
