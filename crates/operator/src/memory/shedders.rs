//! What lets go of memory when the guard says so, in the order in which it is told.

use std::sync::{Arc, Mutex, PoisonError};

use kube_secret_access::{Bodies, Purge, Squeeze, Switch};
use memory_guard::{Level, Shed};

use crate::concurrency::{Concurrency, Share};

/// Names of the shedders, for the metric's label.
pub(crate) const NAMES: [&str; 3] = [PASSES, SECRETS, PAGES];

const PASSES: &str = "passes";
const SECRETS: &str = "secrets";
const PAGES: &str = "pages";

/// Of the cache's bytes, what is left at first, in percent.
const FIRST_SQUEEZE: u8 = 50;

/// And what is left at least as long as nothing is purged.
const LAST_SQUEEZE: u8 = 10;

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

/// Holds fewer Secrets, or none, and at last reads no big ones.
pub(crate) struct Secrets {
    switch: Arc<Switch>,
    squeezed: Mutex<u8>,
}

impl Secrets {
    pub(crate) fn new(switch: Arc<Switch>) -> Self {
        Self {
            switch,
            squeezed: Mutex::new(100),
        }
    }
}

impl Shed for Secrets {
    fn name(&self) -> &'static str {
        SECRETS
    }

    fn shed(&self, level: Level) {
        let mut squeezed = self.squeezed.lock().unwrap_or_else(PoisonError::into_inner);
        *squeezed = squeeze(level, *squeezed);
        let bodies = match level {
            Level::Normal | Level::Shrink => Bodies::All,
            Level::Purge => Bodies::OneBig,
            Level::Refuse => Bodies::NoneBig,
        };
        self.switch.squeeze(Squeeze::new(*squeezed, bodies));
        if level >= Level::Purge {
            self.switch.purge(Purge::All);
        }
    }
}

/// Pure: the part of the cache that is left at this level, after it was squeezed to `before`, in percent. Told again at the
/// same level, half of what was left.
fn squeeze(level: Level, before: u8) -> u8 {
    match level {
        Level::Normal => 100,
        Level::Shrink if before > FIRST_SQUEEZE => FIRST_SQUEEZE,
        // From above, memory is less short than it was.
        Level::Shrink if before <= LAST_SQUEEZE => LAST_SQUEEZE,
        Level::Shrink => (before / 2).max(LAST_SQUEEZE),
        Level::Purge => LAST_SQUEEZE,
        Level::Refuse => 0,
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
    use super::*;

    #[tokio::test]
    async fn passes_and_secrets_make_do_with_less_and_get_all_back() {
        let switch = Switch::new(
            crate::tests::unreachable_client(),
            kube_secret_access::AccessOptions::default(),
        );
        let secrets = Secrets::new(Arc::new(switch.expect("valid options")));
        let concurrency = Arc::new(Concurrency::new(8, prometheus_client::metrics::gauge::Gauge::default()));
        let passes = Passes(Arc::clone(&concurrency));
        for (level, allowed, part) in [
            (Level::Shrink, 4, 50),
            (Level::Shrink, 4, 25),
            (Level::Shrink, 4, 12),
            (Level::Shrink, 4, 10),
            (Level::Purge, 1, 10),
            (Level::Refuse, 1, 0),
            (Level::Purge, 1, 10),
            (Level::Shrink, 4, 10),
            (Level::Normal, 8, 100),
            (Level::Shrink, 4, 50),
        ] {
            for shedder in [&passes as &dyn Shed, &secrets, &Pages] {
                assert!(NAMES.contains(&shedder.name()));
                shedder.shed(level);
            }
            assert_eq!(concurrency.allowed(), allowed, "{level:?}");
            assert_eq!(
                *secrets.squeezed.lock().expect("nobody panics with it"),
                part,
                "{level:?}"
            );
        }
    }
}
