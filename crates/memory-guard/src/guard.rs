//! The guard itself: one step after the other, told the time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    level::{Level, Thresholds},
    projection::Projection,
    reading::{Reading, Source, Unreadable},
};

/// Something that can do with less memory.
pub trait Shed: Send + Sync {
    /// What it is, for logs and labels: from a closed set.
    fn name(&self) -> &'static str;

    /// Memory is this short. Called on every change of the level, with [`Level::Normal`] when there is enough again, and
    /// again at the same level when use goes on rising. Must not block; called in the order of registration.
    fn shed(&self, level: Level);

    /// There are so many bytes left before [`Level::Purge`] begins; `u64::MAX` where there is no limit. Called at every step
    /// that could read the memory, after [`Shed::shed`]. What may grow is best kept within a part of it until the next call:
    /// then no step can come too late. Must not block.
    fn room(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// What the guard goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the levels begin.
    pub thresholds: Thresholds,
    /// A limit in bytes beside those of the control groups, for the process's own group: the one that is closest counts.
    pub limit_bytes: Option<u64>,
}

/// What one step found and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Use and limit. Where they cannot be read the level stays.
    pub reading: Result<Reading, Unreadable>,
    /// The level before.
    pub former: Level,
    /// The level from now on.
    pub level: Level,
    /// Whether shedders were told.
    pub told: bool,
    /// How long to wait for the next step.
    pub pause: Duration,
}

/// Compares use with the limit and tells the shedders.
pub struct Guard {
    source: Source,
    settings: Settings,
    shedders: Vec<Arc<dyn Shed>>,
    level: Level,
    /// Since when a lower level would do.
    lower_since: Option<Instant>,
    /// The least that was used since the shedders were told: what it rises above this is new.
    least_used: u64,
    projection: Projection,
}

impl Guard {
    /// The growth that the pauses allow for, in bytes a second: about what a busy core can decode and keep.
    pub const FASTEST_GROWTH: u64 = 64 << 20;

    /// The shortest pause. With a limit of 40 MiB there are 6 MiB between two levels, which the fastest growth takes in 0.1 s;
    /// a look takes well below a millisecond.
    pub const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

    /// The longest pause.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

    /// How long a lower level must do before it is taken; see [`Guard::step`].
    pub const RECOVERY: Duration = Duration::from_secs(5);

    /// Rising by this part of the limit is worth telling again.
    const RISE_PERCENT: u64 = 2;

    /// A guard without shedders, at [`Level::Normal`].
    #[must_use]
    pub fn new(source: Source, settings: Settings) -> Self {
        Self {
            source,
            settings,
            shedders: Vec::new(),
            level: Level::Normal,
            lower_since: None,
            least_used: u64::MAX,
            projection: Projection::default(),
        }
    }

    /// Adds a shedder, which is told from the next step on. If the level is not [`Level::Normal`] it is told that at once.
    pub fn register(&mut self, shedder: Arc<dyn Shed>) {
        if self.level > Level::Normal {
            shedder.shed(self.level);
        }
        self.shedders.push(shedder);
    }

    /// Names of the shedders, in the order in which they are told.
    pub fn shedders(&self) -> impl Iterator<Item = &'static str> {
        self.shedders.iter().map(|shedder| shedder.name())
    }

    /// Goes by other settings from the next step on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// In how long the headroom of a reading will be used up; see [`Projection::gone_in`].
    #[must_use]
    pub fn gone_in(&self, reading: &Reading) -> Option<Duration> {
        self.projection.gone_in(reading.headroom_bytes()?)
    }

    /// Reads use and limit, and tells the shedders where that calls for it.
    ///
    /// The level rises at once. It falls when a lower one has done for [`Guard::RECOVERY`]: what was dropped is soon wanted
    /// again, and would be dropped again. Only [`Level::Refuse`] becomes [`Level::Purge`] at once, because to refuse costs most.
    pub fn step(&mut self, now: Instant) -> Step {
        let reading = self.source.read(self.settings.limit_bytes);
        self.step_with(now, reading)
    }

    fn step_with(&mut self, now: Instant, reading: Result<Reading, Unreadable>) -> Step {
        let former = self.level;
        let Ok(seen) = &reading else {
            return Step {
                reading,
                former,
                level: former,
                told: false,
                pause: Self::LONGEST_PAUSE,
            };
        };
        self.projection.record(now, seen.used_bytes);
        let enough = self.settings.thresholds.level(seen, former);
        self.level = self.lowered(now, enough);
        self.least_used = self.least_used.min(seen.used_bytes);
        let told = self.level != former || self.rises_again(seen);
        if told {
            for shedder in &self.shedders {
                shedder.shed(self.level);
            }
            self.least_used = seen.used_bytes;
        }
        let room = self.settings.thresholds.room_bytes(seen);
        for shedder in &self.shedders {
            shedder.room(room);
        }
        Step {
            reading,
            former,
            level: self.level,
            told,
            pause: self.pause(seen),
        }
    }

    /// The level to take where this one would do.
    fn lowered(&mut self, now: Instant, enough: Level) -> Level {
        if enough >= self.level {
            self.lower_since = None;
            return enough;
        }
        let since = *self.lower_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Self::RECOVERY {
            self.lower_since = None;
            return enough;
        }
        self.level.min(Level::Purge)
    }

    /// Whether use has gone on rising although the shedders know.
    fn rises_again(&self, reading: &Reading) -> bool {
        let worth_it = reading.limit_bytes.unwrap_or(u64::MAX) / 100 * Self::RISE_PERCENT;
        self.level > Level::Normal && reading.used_bytes - self.least_used > worth_it
    }

    /// So long that the fastest growth does not pass the next threshold unseen, within bounds.
    fn pause(&self, reading: &Reading) -> Duration {
        let Some(limit) = reading.limit_bytes else {
            return Self::LONGEST_PAUSE;
        };
        if self.level > Level::Normal {
            // What was shed shows soon, and so does what goes on growing.
            return Self::SHORTEST_PAUSE;
        }
        let next = self.settings.thresholds.next_threshold_bytes(self.level, limit);
        let distance = next.unwrap_or(limit).saturating_sub(reading.used_bytes);
        let pause = Duration::from_millis(distance.saturating_mul(1000) / Self::FASTEST_GROWTH);
        pause.clamp(Self::SHORTEST_PAUSE, Self::LONGEST_PAUSE)
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("source", &self.source)
            .field("settings", &self.settings)
            .field("level", &self.level)
            .field("shedders", &self.shedders().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::*;
    use crate::reading::Origin;

    #[derive(Default)]
    struct Told(Mutex<Vec<Level>>, AtomicU64);

    impl Told {
        fn take(&self) -> Vec<Level> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Shed for Told {
        fn name(&self) -> &'static str {
            "told"
        }

        fn shed(&self, level: Level) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(level);
        }

        fn room(&self, bytes: u64) {
            self.1.store(bytes, Ordering::Relaxed);
        }
    }

    struct Rig {
        guard: Guard,
        told: Arc<Told>,
        now: Instant,
    }

    impl Rig {
        fn new(settings: Settings) -> Self {
            let mut guard = Guard::new(Source::discover(Path::new("/nowhere")), settings);
            let told = Arc::new(Told::default());
            guard.register(Arc::clone(&told) as Arc<dyn Shed>);
            let now = Instant::now();
            Self { guard, told, now }
        }

        /// A step long enough after the one before for the level to fall.
        fn step(&mut self, used: u64, limit: Option<u64>) -> Step {
            self.step_after(Duration::ZERO, used, limit);
            self.told.take();
            self.step_after(Guard::RECOVERY, used, limit)
        }

        fn step_after(&mut self, pause: Duration, used: u64, limit: Option<u64>) -> Step {
            self.now += pause;
            let reading = Reading {
                used_bytes: used,
                limit_bytes: limit,
                origin: Origin::CgroupV2,
                stall: None,
            };
            self.guard.step_with(self.now, Ok(reading))
        }
    }

    #[test]
    fn shedders_are_told_of_changes_and_of_rising_use() {
        use Level::{Normal, Purge, Refuse, Shrink};
        let mut rig = Rig::new(Settings::default());
        for (seconds, used, told) in [
            (1, 500, None),
            (1, 650, None),
            (1, 700, Some(Shrink)),
            (1, 710, None),
            (1, 721, Some(Shrink)),
            (1, 700, None),
            (1, 715, None),
            (1, 722, Some(Shrink)),
            (1, 900, Some(Purge)),
            (1, 900, None),
            // A lower level would do, and has to for a while.
            (1, 700, None),
            (4, 700, None),
            (1, 850, Some(Purge)),
            (1, 700, None),
            (4, 700, None),
            (1, 700, Some(Shrink)),
            (1, 600, None),
            (5, 600, Some(Normal)),
            (1, 699, None),
            // But for refusing, which ends at once.
            (1, 950, Some(Refuse)),
            (1, 100, Some(Purge)),
            (5, 100, Some(Normal)),
        ] {
            let step = rig.step_after(Duration::from_secs(seconds), used, Some(1000));
            let expected: Vec<_> = told.into_iter().collect();
            assert_eq!(rig.told.take(), expected, "at {used}");
            assert_eq!(step.told, !expected.is_empty());
            assert_eq!(step.level, rig.guard.level());
        }
    }

    #[test]
    fn whoever_comes_late_is_told_where_things_stand() {
        let mut rig = Rig::new(Settings::default());
        rig.step(900, Some(1000));
        let late = Arc::new(Told::default());
        rig.guard.register(Arc::clone(&late) as Arc<dyn Shed>);
        assert_eq!(late.take(), [Level::Purge]);
        assert_eq!(rig.guard.shedders().collect::<Vec<_>>(), ["told", "told"]);
    }

    #[test]
    fn settings_take_effect_with_the_next_step() {
        // 600 kB in use, and no limit.
        let root = tempfile::TempDir::new().expect("a writable directory for temporary files");
        let status = root.path().join("proc/self/status");
        std::fs::create_dir_all(status.parent().expect("it is below the root")).expect("writable");
        std::fs::write(status, "RssAnon:\t600 kB\nRssShmem:\t0 kB\n").expect("writable");
        let mut guard = Guard::new(Source::discover(root.path()), Settings::default());
        assert_eq!(guard.step(Instant::now()).level, Level::Normal);
        guard.set(Settings {
            limit_bytes: Some(650 << 10),
            ..Settings::default()
        });
        let step = guard.step(Instant::now());
        assert_eq!((step.former, step.level), (Level::Normal, Level::Refuse));
        assert_eq!(step.reading.map(|reading| reading.limit_bytes), Ok(Some(650 << 10)));

        let mut rig = Rig::new(Settings::default());
        assert_eq!(rig.step(750, Some(1000)).level, Level::Shrink);
        rig.guard.set(Settings {
            thresholds: Thresholds::new(90, 95, 99).expect("ascending"),
            limit_bytes: None,
        });
        assert_eq!(rig.step(750, Some(1000)).level, Level::Normal);
    }

    #[test]
    fn without_limit_or_reading_nothing_is_shed() {
        let mut rig = Rig::new(Settings::default());
        let step = rig.step(u64::MAX, None);
        assert_eq!((step.level, step.pause), (Level::Normal, Guard::LONGEST_PAUSE));
        rig.step(900, Some(1000));
        rig.told.take();
        let blind = rig.guard.step_with(Instant::now(), Err(Unreadable));
        assert_eq!((blind.level, blind.told), (Level::Purge, false), "it stays");
        assert!(rig.told.take().is_empty());
    }

    #[test]
    fn every_step_says_how_much_room_there_is() {
        let mut rig = Rig::new(Settings::default());
        for (used, limit, room) in [
            (0, Some(1000), 850),
            (700, Some(1000), 150),
            (850, Some(1000), 0),
            (2000, Some(1000), 0),
            (2000, None, u64::MAX),
            (100, Some(1000), 750),
        ] {
            rig.step_after(Duration::from_millis(1), used, limit);
            assert_eq!(rig.told.1.load(Ordering::Relaxed), room, "{used} of {limit:?}");
        }
        rig.guard
            .step_with(rig.now, Err(Unreadable))
            .reading
            .expect_err("it is");
        assert_eq!(rig.told.1.load(Ordering::Relaxed), 750, "nothing is known");
    }

    #[test]
    fn pauses_are_shorter_near_a_threshold() {
        const MIB: u64 = 1 << 20;
        let mut rig = Rig::new(Settings::default());
        let mut pause = |used: u64| rig.step(used * MIB, Some(1000 * MIB)).pause;
        assert_eq!(pause(0), Guard::LONGEST_PAUSE);
        assert_eq!(pause(700 - 128), Duration::from_secs(2));
        assert_eq!(pause(699), Guard::SHORTEST_PAUSE);
        assert_eq!(pause(750), Guard::SHORTEST_PAUSE);
    }

    #[test]
    fn the_end_of_the_headroom_is_told() {
        let mut rig = Rig::new(Settings::default());
        let start = Instant::now();
        let reading = |used| Reading {
            used_bytes: used,
            limit_bytes: Some(10_000),
            origin: Origin::CgroupV2,
            stall: None,
        };
        for number in 0..10_u32 {
            let now = start + number * Projection::SPACING;
            let _ = rig.guard.step_with(now, Ok(reading(1000 + 100 * u64::from(number))));
        }
        let gone = rig.guard.gone_in(&reading(1900));
        assert_eq!(gone, Some(Duration::from_secs(810)), "8,100 bytes at 10 a second");
        assert_eq!(
            rig.guard.gone_in(&Reading {
                limit_bytes: None,
                ..reading(0)
            }),
            None
        );
    }
}
