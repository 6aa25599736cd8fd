//! What lets go of memory when the guard says so, in the order in which it is told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube_secret_access::{Bodies, Purge, Squeeze, Switch};
use memory_guard::{Level, Shed};
use tokio::time::Instant;

use crate::concurrency::{Concurrency, Share};

/// Names of the shedders, for the metric's label.
pub(crate) const ALL: [&str; 5] = [PAGES, PASSES, REVIEWS, SAMPLES, SECRETS];

/// Of them, those of `leanserve run`, of `leanserve webhook` and of `leanserve audit`.
pub(crate) const OF_THE_OPERATOR: [&str; 3] = [PASSES, SECRETS, PAGES];
pub(crate) const OF_THE_WEBHOOK: [&str; 3] = [REVIEWS, SECRETS, PAGES];
pub(crate) const OF_THE_AUDIT: [&str; 2] = [SAMPLES, PAGES];

const PASSES: &str = "passes";
const SECRETS: &str = "secrets";
const PAGES: &str = "pages";
/// What the webhook lets in.
pub(crate) const REVIEWS: &str = "reviews";
/// Which services break a policy, beside how many.
pub(crate) const SAMPLES: &str = "samples";

/// What is left of the cache at least as long as nothing is purged, in bytes: the least that is worth having.
const LEAST_CACHE: usize = 1 << 20;

/// Of the room that is left, the part by which the cache may grow until the next look. The rest is for what comes with it:
/// answers on their way, and what the allocator has not given back.
const GROWTH: u64 = 2;

/// For so long after memory was short what nobody reads any more is let go of: a cache that was filled up to the threshold under
/// load would else stay so without any.
const STRAINED: Duration = Duration::from_secs(60);

/// How often that is looked for.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Runs fewer passes at a time.
pub(crate) struct Passes(pub(crate) Arc<Concurrency>);

impl Shed for Passes {
    fn name(&self) -> &'static str {
        PASSES
    }

    fn shed(&self, level: Level) {
        self.0.share(match level {
            Level::Normal => Share::All,
            Level::Shrink => Share::Half,
            Level::Purge | Level::Refuse => Share::One,
        });
    }
}

/// Holds fewer Secrets, or none, and at last reads no big ones. And never holds more than there was room for at the last look,
/// whatever is configured: bounds may be set above the limit, and a look may come late.
pub(crate) struct Secrets {
    switch: Arc<Switch>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    level: Level,
    /// Memory was short not long before this.
    strained_until: Option<Instant>,
    /// When it was last looked for what nobody reads.
    looked: Option<Instant>,
}

impl State {
    /// Notes what the guard found; returns whether it is time to look for what nobody reads.
    fn looks(&mut self, now: Instant) -> bool {
        if self.level > Level::Normal {
            self.strained_until = Some(now + STRAINED);
        }
        let is_strained = self.strained_until.is_some_and(|until| now < until);
        let is_time = self.looked.is_none_or(|looked| now - looked >= IDLE_LOOK);
        let looks = is_strained && is_time;
        if looks {
            self.looked = Some(now);
        }
        looks
    }
}

impl Secrets {
    pub(crate) fn new(switch: Arc<Switch>) -> Self {
        Self {
            switch,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shed for Secrets {
    fn name(&self) -> &'static str {
        SECRETS
    }

    fn shed(&self, level: Level) {
        self.lock().level = level;
        let (max_bytes, bodies) = match level {
            // The room that is looked at next is what decides.
            Level::Normal => (self.switch.held().bytes, Bodies::All),
            Level::Shrink => ((self.switch.held().bytes / 2).max(LEAST_CACHE), Bodies::All),
            Level::Purge => (0, Bodies::OneBig),
            Level::Refuse => (0, Bodies::NoneBig),
        };
        self.switch.squeeze(Squeeze::new(max_bytes, bodies));
        if level >= Level::Purge {
            self.switch.purge(Purge::All);
        }
    }

    fn room(&self, bytes: u64) {
        let (level, looks) = {
            let mut state = self.lock();
            let looks = state.looks(Instant::now());
            (state.level, looks)
        };
        if looks && self.switch.purge(Purge::Idle).bytes > 0 {
            super::release();
        }
        if level == Level::Normal {
            let more = usize::try_from(bytes / GROWTH).unwrap_or(usize::MAX);
            let max_bytes = self.switch.held().bytes.saturating_add(more);
            self.switch.squeeze(Squeeze::new(max_bytes, Bodies::All));
        }
    }
}

/// Has the allocator give back what the others let go of; so it is told last.
pub(crate) struct Pages;

impl Shed for Pages {
    fn name(&self) -> &'static str {
        PAGES
    }

    fn shed(&self, level: Level) {
        match level {
            // As much is used again at once.
            Level::Shrink => {}
            Level::Normal | Level::Purge | Level::Refuse => super::release(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Want};
    use testkit::fake_api::FakeApi;

    use super::*;

    const SECRETS_HELD: usize = 40;
    const BYTES_EACH: usize = 100_000;

    /// A cache with far more room than any limit, and what fills it.
    struct Rig {
        switch: Arc<Switch>,
        secrets: Secrets,
    }

    impl Rig {
        fn new() -> Self {
            let api = FakeApi::new();
            for number in 0..SECRETS_HELD {
                api.put_secret("ns", &format!("s{number}"), &[("k", &vec![b'x'; BYTES_EACH])]);
            }
            let mut options = AccessOptions::default();
            options.mode = Mode::Lru;
            options.lru.max_bytes = 1 << 30;
            let switch = Arc::new(Switch::new(api.client(), options).expect("valid options"));
            let secrets = Secrets::new(Arc::clone(&switch));
            Self { switch, secrets }
        }

        /// The bytes held after all was read.
        async fn read_all(&self) -> usize {
            for number in 0..SECRETS_HELD {
                let secret = SecretRef::new("ns", &format!("s{number}")).expect("a valid name");
                // At the worst level some are refused.
                let _ = self.switch.read(&secret, Want::default()).await;
            }
            self.switch.held().bytes
        }
    }

    #[tokio::test]
    async fn the_cache_never_outgrows_the_room_there_was() {
        let rig = Rig::new();
        let all = rig.read_all().await;
        assert!(all >= SECRETS_HELD * BYTES_EACH);
        rig.secrets.shed(Level::Purge);
        assert_eq!(rig.read_all().await, 0, "nothing is held while memory is short");

        rig.secrets.shed(Level::Normal);
        assert_eq!(
            rig.read_all().await,
            0,
            "no more than before, as long as nobody has looked"
        );
        for room in [1_000_000_u64, 500_000, 0] {
            let before = rig.switch.held().bytes;
            rig.secrets.room(room);
            let after = rig.read_all().await;
            let most = usize::try_from(room / GROWTH).expect("small");
            assert!(after - before <= most, "{before} {after} {room}");
            assert!(
                after - before + 2 * BYTES_EACH > most,
                "{before} {after} {room}: it is used"
            );
        }
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.read_all().await, all);
    }

    #[tokio::test]
    async fn each_time_memory_runs_short_half_is_left() {
        let rig = Rig::new();
        let mut before = rig.read_all().await;
        rig.secrets.shed(Level::Shrink);
        rig.secrets.room(u64::MAX);
        for _ in 0..2 {
            let after = rig.read_all().await;
            assert!(
                after <= before.max(2 * LEAST_CACHE) / 2 && after + BYTES_EACH > LEAST_CACHE,
                "{before} {after}"
            );
            rig.secrets.shed(Level::Shrink);
            before = after;
        }
        rig.secrets.shed(Level::Refuse);
        assert_eq!(rig.read_all().await, 0);
        rig.secrets.shed(Level::Shrink);
        assert!(
            (1..=LEAST_CACHE).contains(&rig.read_all().await),
            "a little is held again"
        );
    }

    #[tokio::test]
    async fn what_nobody_reads_goes_where_memory_was_short() {
        let rig = Rig::new();
        let all = rig.read_all().await;
        tokio::time::pause();
        // A quarter of the age up to which a copy is good.
        let idle = AccessOptions::default().lru.max_age / 4 + Duration::from_secs(1);
        tokio::time::advance(idle).await;
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.switch.held().bytes, all, "there was enough all the time");

        rig.secrets.shed(Level::Shrink);
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.switch.held().bytes, 0, "nothing of it was read lately");

        rig.secrets.shed(Level::Normal);
        rig.secrets.room(u64::MAX);
        tokio::time::resume();
        assert_eq!(rig.read_all().await, all);
        tokio::time::pause();
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.switch.held().bytes, all, "it was read a moment ago");
        tokio::time::advance(idle).await;
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.switch.held().bytes, 0);

        tokio::time::resume();
        assert_eq!(rig.read_all().await, all);
        tokio::time::pause();
        tokio::time::advance(STRAINED).await;
        rig.secrets.room(u64::MAX);
        assert_eq!(rig.switch.held().bytes, all, "that was long ago");
    }

    #[tokio::test]
    async fn passes_make_do_with_less_and_get_all_back() {
        let concurrency = Arc::new(Concurrency::new(8, prometheus_client::metrics::gauge::Gauge::default()));
        let passes = Passes(Arc::clone(&concurrency));
        for (level, allowed) in [
            (Level::Shrink, 4),
            (Level::Purge, 1),
            (Level::Refuse, 1),
            (Level::Shrink, 4),
            (Level::Normal, 8),
        ] {
            for shedder in [&passes as &dyn Shed, &Rig::new().secrets, &Pages] {
                assert!(OF_THE_OPERATOR.contains(&shedder.name()));
                shedder.shed(level);
            }
            assert_eq!(concurrency.allowed(), allowed, "{level:?}");
        }
    }
}
