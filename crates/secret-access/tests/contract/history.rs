//! Any interleaving of writes, deletions, slow requests, reads and mode switches: no read goes back in time, and none is
//! older than its mode allows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube_secret_access::{AccessOptions, Mode, ReadError, SecretAccess, Switch, Want};
use proptest::prelude::*;
use testkit::fake_api::{FakeApi, Fault, RequestMatch, Times};
use tokio::time::Instant;

use crate::access::{seconds, secret, settle};

const MAX_AGE: u64 = 20;

#[derive(Debug, Clone)]
enum Step {
    Write,
    Delete,
    /// A read. If it comes to a request, that takes this long before and after the server reads its store.
    Read {
        before: u64,
        after: u64,
    },
    /// A read of another Secret, which takes `auto` over its threshold.
    ReadOther,
    Wait {
        seconds: u64,
    },
    Set {
        mode: Mode,
        secrets: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let slow = || prop_oneof![3 => Just(0_u64), 2 => 1_u64..9];
    prop_oneof![
        4 => Just(Step::Write),
        1 => Just(Step::Delete),
        8 => (slow(), slow()).prop_map(|(before, after)| Step::Read { before, after }),
        1 => Just(Step::ReadOther),
        3 => (0_u64..8).prop_map(|seconds| Step::Wait { seconds }),
        2 => (prop::sample::select(&Mode::ALL[..]), prop_oneof![Just(1_usize), Just(2), Just(100)])
            .prop_map(|(mode, secrets)| Step::Set { mode, secrets }),
    ]
}

/// The states that the Secret went through: when each began, and its version if it existed.
#[derive(Default)]
struct History(Vec<(Instant, Option<u64>)>);

impl History {
    /// The state in force at this time.
    fn at(&self, time: Instant) -> usize {
        self.0.iter().rposition(|(since, _)| *since <= time).unwrap_or(0)
    }

    /// The first state not before `least` that such a result can have come from.
    fn explains(&self, version: Option<u64>, least: usize) -> Option<usize> {
        (least..self.0.len()).find(|state| self.0[*state].1 == version)
    }
}

/// What reads may not fall below: the latest state any finished read returned.
#[derive(Default)]
struct World {
    history: History,
    latest_returned: usize,
    violations: Vec<String>,
}

async fn read(switch: Arc<Switch>, world: Arc<Mutex<World>>) {
    let began = Instant::now();
    let least = {
        let world = world.lock().expect("no panic while locked");
        let age = if switch.mode() == Mode::Direct { 0 } else { MAX_AGE };
        let oldest = began.checked_sub(seconds(age)).unwrap_or(began);
        // A state that began at the same instant as the read began before it: reads follow writes in these programs.
        world.latest_returned.max(world.history.at(oldest))
    };
    let result = switch.read(&secret("s"), Want::default()).await;
    let version = match result {
        Ok(snapshot) => Some(snapshot.resource_version().number()),
        Err(ReadError::NotFound { .. }) => None,
        Err(ReadError::Timeout { .. }) => return,
        Err(error) => panic!("no other error is injected: {error}"),
    };
    let mut world = world.lock().expect("no panic while locked");
    if let Some(state) = world.history.explains(version, least) {
        world.latest_returned = world.latest_returned.max(state);
    } else {
        let violation = format!("read of {version:?} falls below state {least} of {:?}", world.history.0);
        world.violations.push(violation);
    }
}

async fn run(steps: Vec<Step>) -> Vec<String> {
    let api = FakeApi::new();
    api.put_secret("ns", "other", &[("k", b"v")]);
    let mut options = AccessOptions::default();
    options.lru.max_age = seconds(MAX_AGE);
    // Back to the cache soon, so that `auto` changes over several times.
    options.auto.window = seconds(MAX_AGE);
    options.auto.return_after = seconds(1);
    options.auto.return_below_percent = 99;
    let switch = Arc::new(Switch::new(api.client(), options.clone()).expect("valid options"));
    let world = Arc::new(Mutex::new(World::default()));
    let note = |version| {
        let state = (Instant::now(), version);
        world.lock().expect("no panic while locked").history.0.push(state);
    };
    note(None);
    let mut reads = Vec::new();
    for step in steps {
        match step {
            Step::Write => note(Some(api.put_secret("ns", "s", &[("k", b"v")]).resource_version)),
            Step::Delete => {
                if api.delete_secret("ns", "s").is_some() {
                    note(None);
                }
            }
            Step::Read { before, after } => {
                api.clear_faults();
                let fault = match (before, after) {
                    (0, 0) => None,
                    (before, 0) => Some(Fault::Delay(seconds(before))),
                    (_, after) => Some(Fault::DelayAnswer(seconds(after))),
                };
                if let Some(fault) = fault {
                    api.inject(RequestMatch::any(), Times::N(1), fault);
                }
                reads.push(tokio::spawn(read(Arc::clone(&switch), Arc::clone(&world))));
                settle().await;
            }
            Step::ReadOther => {
                api.clear_faults();
                switch.read(&secret("other"), Want::default()).await.expect("readable");
            }
            Step::Wait { seconds } => {
                // Never the same instant twice, so that the history's times are distinct.
                tokio::time::sleep(Duration::from_millis(seconds * 1000 + 1)).await;
            }
            Step::Set { mode, secrets } => {
                options.mode = mode;
                options.auto.max_secrets = secrets;
                switch.set(options.clone()).expect("valid options");
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for read in reads {
        read.await.expect("no panic");
    }
    std::mem::take(&mut world.lock().expect("no panic while locked").violations)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn never_back_in_time_and_never_too_old(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let violations = runtime.block_on(run(steps));
        prop_assert!(violations.is_empty(), "{violations:#?}");
    }
}
