//! Pure: which Secret is asked about next, and when. Told the time.
//!
//! Each Secret has a time at which a poll is *due*, soon or late as it seems useful, and a *slot* by which it is polled
//! whatever else is due. Slots are as long as the least time between two polls and belong to one Secret each, so no Secret
//! can be late because of others. There is always a free slot within [`Schedule::window`], because the window has more slots
//! than there are Secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::runs::Runs;
use crate::options::ChangeOptions;
use crate::secret_ref::SecretRef;

/// When to poll what.
pub(super) struct Schedule {
    /// Where slot 0 begins.
    origin: Instant,
    spacing: Duration,
    interval: Duration,
    items: HashMap<SecretRef, Item>,
    by_due: BTreeSet<(Instant, SecretRef)>,
    by_slot: BTreeMap<u64, SecretRef>,
    taken: Runs,
    /// The next poll does not begin before this.
    not_before: Instant,
    /// Nothing is sent before this either, whatever was or was not sent.
    paused_until: Instant,
    /// The same before the last poll.
    not_before_that: Instant,
}

struct Item {
    /// `None` while a poll of it is on its way.
    due: Option<Instant>,
    slot: u64,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Poll this one.
    Poll(SecretRef),
    /// Nothing before this.
    Wait(Instant),
    /// Nothing at all.
    Idle,
}

impl Schedule {
    pub(super) fn new(options: &ChangeOptions, now: Instant) -> Self {
        Self {
            origin: now,
            spacing: Duration::from_secs(1) / options.max_polls_per_second,
            interval: options.poll_interval,
            items: HashMap::new(),
            by_due: BTreeSet::new(),
            by_slot: BTreeMap::new(),
            taken: Runs::default(),
            not_before: now,
            paused_until: now,
            not_before_that: now,
        }
    }

    /// The most time from one poll of a Secret to the next.
    pub(super) fn window(&self) -> Duration {
        // One slot is the current one, which may be half over.
        let slots = u32::try_from(self.items.len()).map_or(u32::MAX, |slots| slots.saturating_add(1));
        self.interval.max(self.spacing.saturating_mul(slots))
    }

    /// Adds a Secret, whose next poll is due then.
    pub(super) fn add(&mut self, secret: &SecretRef, due: Instant, now: Instant) {
        if self.items.contains_key(secret) {
            return;
        }
        let item = Item { due: None, slot: 0 };
        self.items.insert(secret.clone(), item);
        self.take_slot(secret, now, now, None);
        self.set_due(secret, due);
    }

    pub(super) fn remove(&mut self, secret: &SecretRef) {
        if let Some(Item { due, slot }) = self.items.remove(secret) {
            if let Some(due) = due {
                self.by_due.remove(&(due, secret.clone()));
            }
            self.by_slot.remove(&slot);
            self.taken.give_back(slot);
        }
    }

    /// The Secret was asked about at `asked`, and the next poll is due then, if none is on its way.
    pub(super) fn asked(&mut self, secret: &SecretRef, asked: Instant, due: Instant, now: Instant) {
        if let Some(item) = self.items.get(secret) {
            let (waits, before) = (item.due.is_some(), item.slot);
            self.give_back_slot(secret);
            self.take_slot(secret, asked, now, Some(before));
            if waits {
                self.set_due(secret, due);
            }
        }
    }

    /// A poll has ended; the next one is due then, unless something else is said.
    pub(super) fn ended(&mut self, secret: &SecretRef, due: Instant) {
        if self.items.get(secret).is_some_and(|item| item.due.is_none()) {
            self.set_due(secret, due);
        }
    }

    /// A poll is due now, or then; a later one that was due is forgotten, and so is a later slot than that.
    pub(super) fn hasten(&mut self, secret: &SecretRef, due: Instant) {
        if let Some(item) = self.items.get(secret)
            && item.due.is_some_and(|at| at > due)
        {
            self.set_due(secret, due);
        }
    }

    /// Nothing is polled before `until`.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(until);
    }

    /// What to do at `now`. A Secret to poll is not named again before [`Schedule::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Next {
        loop {
            let promised = self.by_slot.first_key_value();
            let promised = promised.map(|(slot, secret)| (self.start_of(*slot), secret));
            let useful = self.by_due.first().map(|(due, secret)| (*due, secret));
            let (at, secret) = match (promised, useful) {
                (None, None) => return Next::Idle,
                (Some(one), None) | (None, Some(one)) => one,
                // Whoever was promised goes before whoever is only due.
                (Some(promised), Some(_)) if promised.0 <= now => promised,
                (Some(promised), Some(useful)) => {
                    if useful.0 < promised.0 {
                        useful
                    } else {
                        promised
                    }
                }
            };
            let at = at.max(self.not_before());
            if at > now {
                return Next::Wait(at);
            }
            let secret = secret.clone();
            let polled = self.items.get(&secret).is_some_and(|item| item.due.is_none());
            self.give_back_slot(&secret);
            self.take_slot(&secret, now, now, None);
            // Its slot came while its poll was still on its way.
            if polled {
                continue;
            }
            self.clear_due(&secret);
            self.spend(now);
            return Next::Poll(secret);
        }
    }

    /// Whether something else than a poll may take the place of one now.
    pub(super) fn has_time(&self, now: Instant) -> bool {
        let promised = self.by_slot.first_key_value();
        now >= self.not_before() && promised.is_none_or(|(slot, _)| self.start_of(*slot) > now)
    }

    /// Something takes the place of a poll.
    pub(super) fn spend(&mut self, now: Instant) {
        self.not_before_that = std::mem::replace(&mut self.not_before, now + self.spacing);
    }

    /// Nothing was sent after all, for what [`Schedule::next`] named last.
    pub(super) fn unspend(&mut self) {
        self.not_before = self.not_before_that;
    }

    /// The earliest time for the next request.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before.max(self.paused_until)
    }

    fn set_due(&mut self, secret: &SecretRef, due: Instant) {
        self.clear_due(secret);
        if let Some(item) = self.items.get_mut(secret) {
            item.due = Some(due);
            self.by_due.insert((due, secret.clone()));
        }
    }

    fn clear_due(&mut self, secret: &SecretRef) {
        if let Some(item) = self.items.get_mut(secret)
            && let Some(due) = item.due.take()
        {
            self.by_due.remove(&(due, secret.clone()));
        }
    }

    fn give_back_slot(&mut self, secret: &SecretRef) {
        if let Some(item) = self.items.get(secret) {
            self.by_slot.remove(&item.slot);
            self.taken.give_back(item.slot);
        }
    }

    /// The latest free slot that ends within the window after `asked`; or the one it had before, which was given back just
    /// now: there may be none other that soon, because the window has become shorter since others took theirs.
    fn take_slot(&mut self, secret: &SecretRef, asked: Instant, now: Instant, before: Option<u64>) {
        let window = self.window();
        let current = self.slot_at(now);
        let latest = |from: Instant| {
            let last = self.slot_at(from + window).checked_sub(1)?;
            self.taken.free_at_most(last).filter(|slot| *slot > current)
        };
        let free = latest(asked.min(now)).or(before.filter(|slot| *slot > current));
        // Counted from `now` there is one for certain, unless the options have just become stricter.
        let free = free.or_else(|| latest(now));
        let beyond = || {
            self.by_slot
                .last_key_value()
                .map_or(current, |(last, _)| current.max(*last))
                + 1
        };
        let slot = free.unwrap_or_else(beyond);
        if let Some(item) = self.items.get_mut(secret) {
            item.slot = slot;
            self.by_slot.insert(slot, secret.clone());
            self.taken.take(slot);
        }
    }

    fn slot_at(&self, at: Instant) -> u64 {
        let slots = at.saturating_duration_since(self.origin).as_nanos() / self.spacing.as_nanos();
        u64::try_from(slots).unwrap_or(u64::MAX)
    }

    fn start_of(&self, slot: u64) -> Instant {
        let nanos = u128::from(slot) * self.spacing.as_nanos();
        self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(number: usize) -> SecretRef {
        SecretRef::new("ns", &format!("s{number}")).expect("valid")
    }

    fn options(interval: u64, rate: u32) -> ChangeOptions {
        ChangeOptions {
            poll_interval: Duration::from_secs(interval),
            fast_poll_interval: Duration::from_secs(1),
            max_polls_per_second: rate,
            ..ChangeOptions::default()
        }
    }

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_is_due_longest_comes_first_and_one_at_a_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&options(60, 10), now);
        assert_eq!(schedule.next(now), Next::Idle);
        for (number, due) in [(1, 3), (2, 1), (3, 2)] {
            schedule.add(&secret(number), now + milliseconds(due), now);
        }
        let at = |millis| now + milliseconds(millis);
        assert_eq!(schedule.next(now), Next::Wait(at(1)));
        assert_eq!(schedule.next(at(5)), Next::Poll(secret(2)));
        assert_eq!(schedule.next(at(5)), Next::Wait(at(105)), "no bursts");
        schedule.remove(&secret(3));
        schedule.add(&secret(4), at(5), at(5));
        assert_eq!(schedule.next(at(500)), Next::Poll(secret(1)));
        assert_eq!(schedule.next(at(500)), Next::Wait(at(600)), "not after a pause either");
        assert_eq!(schedule.next(at(600)), Next::Poll(secret(4)));
        let all_on_their_way = schedule.next(at(700));
        assert!(
            matches!(all_on_their_way, Next::Wait(until) if until > at(50_000)),
            "{all_on_their_way:?}"
        );
        schedule.asked(&secret(2), at(650), at(660), at(700));
        assert!(
            matches!(schedule.next(at(700)), Next::Wait(_)),
            "it is still on its way"
        );
        schedule.ended(&secret(2), at(5000));
        schedule.pause(at(2000));
        assert_eq!(schedule.next(at(1000)), Next::Wait(at(5000)));
        schedule.hasten(&secret(2), at(900));
        schedule.hasten(&secret(2), at(4900));
        assert_eq!(schedule.next(at(1000)), Next::Wait(at(2000)), "not during the pause");
        assert_eq!(schedule.next(at(2000)), Next::Poll(secret(2)));
    }

    #[test]
    fn a_poll_left_out_costs_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&options(60, 10), now);
        schedule.add(&secret(1), now, now);
        schedule.add(&secret(2), now, now);
        assert!(matches!(schedule.next(now), Next::Poll(_)));
        schedule.unspend();
        assert!(matches!(schedule.next(now), Next::Poll(_)));
    }

    #[test]
    fn something_else_may_take_a_poll_s_place_unless_one_is_promised() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&options(1, 10), now);
        for number in 0..9 {
            schedule.add(&secret(number), now + Duration::from_secs(100), now);
        }
        assert!(schedule.has_time(now));
        schedule.spend(now);
        assert!(!schedule.has_time(now + milliseconds(99)));
        assert!(!schedule.has_time(now + milliseconds(100)), "nine Secrets in a second");
    }

    /// Thousands come at once: finding a slot for each takes no walk over all others.
    #[test]
    fn many_newcomers_are_spread_over_the_window() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&options(60, 10), now);
        for number in 0..600 {
            schedule.add(&secret(number), now + Duration::from_secs(60), now);
        }
        let mut at = now;
        let mut polled = 0;
        while polled < 600 {
            match schedule.next(at) {
                Next::Poll(secret) => {
                    schedule.ended(&secret, at + Duration::from_secs(60));
                    polled += 1;
                }
                Next::Wait(until) => at = until,
                Next::Idle => panic!("there are 600"),
            }
        }
        assert!(at <= now + Duration::from_millis(60_100), "{:?}", at - now);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Add { number: usize, due: u64 },
        Remove { number: usize },
        Asked { number: usize, due: u64 },
        Hasten { number: usize },
        Pass { millis: u64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        let number = 0_usize..40;
        let due = 0_u64..8000;
        prop_oneof![
            3 => (number.clone(), due.clone()).prop_map(|(number, due)| Event::Add { number, due }),
            1 => number.clone().prop_map(|number| Event::Remove { number }),
            1 => (number.clone(), due).prop_map(|(number, due)| Event::Asked { number, due }),
            1 => number.prop_map(|number| Event::Hasten { number }),
            4 => (0_u64..3000).prop_map(|millis| Event::Pass { millis }),
        ]
    }

    proptest! {
        /// Whatever comes, goes, is hastened or asked about by others: two polls are never closer than the rate allows, and
        /// none comes later than the window that was promised (and the time that the poll before took), nor is one forgotten.
        #[test]
        fn the_rate_and_the_promise_are_kept(
            interval in 1_u64..8,
            rate in 1_u32..20,
            slow in prop_oneof![Just(0), 0_u64..400],
            events in prop::collection::vec(event(), 1..120),
            rolls in prop::collection::vec(0_u64..8000, 1..50),
        ) {
            let options = options(interval, rate);
            let start = Instant::now();
            let mut now = start;
            let mut schedule = Schedule::new(&options, now);
            // When it was asked about last, and the longest window since.
            let mut model: HashMap<SecretRef, (Instant, Duration)> = HashMap::new();
            let mut in_flight: Vec<(Instant, SecretRef, Instant)> = Vec::new();
            let mut last_poll: Option<Instant> = None;
            let mut rolls = rolls.into_iter().cycle();
            let mut roll = || milliseconds(rolls.next().unwrap_or(0));
            for event in events {
                let until = match event {
                    Event::Pass { millis } => now + milliseconds(millis),
                    _ => now,
                };
                match event {
                    Event::Add { number, due } => {
                        schedule.add(&secret(number), now + milliseconds(due), now);
                        let window = schedule.window();
                        model.entry(secret(number)).or_insert((now, window));
                    }
                    Event::Remove { number } => {
                        schedule.remove(&secret(number));
                        model.remove(&secret(number));
                        in_flight.retain(|(_, other, _)| *other != secret(number));
                    }
                    Event::Asked { number, due } => {
                        schedule.asked(&secret(number), now, now + milliseconds(due), now);
                        if let Some(asked) = model.get_mut(&secret(number)) {
                            *asked = (now, schedule.window());
                        }
                    }
                    Event::Hasten { number } => schedule.hasten(&secret(number), now),
                    Event::Pass { .. } => {}
                }
                for (_, window) in model.values_mut() {
                    *window = (*window).max(schedule.window());
                }
                loop {
                    in_flight.sort();
                    while let Some((ends, polled, sent)) = in_flight.first().filter(|(ends, ..)| *ends <= now).cloned() {
                        schedule.ended(&polled, now);
                        schedule.asked(&polled, sent, ends + roll(), now);
                        in_flight.remove(0);
                    }
                    let next_end = in_flight.first().map(|(ends, ..)| *ends);
                    match schedule.next(now) {
                        Next::Poll(polled) => {
                            let spacing = Duration::from_secs(1) / rate;
                            prop_assert!(last_poll.is_none_or(|last| now >= last + spacing));
                            last_poll = Some(now);
                            let (asked, window) = model.insert(polled.clone(), (now, schedule.window())).expect("tracked");
                            // At full load the slot that was free may pass while the poll before is on its way.
                            let promised = window + spacing + milliseconds(slow);
                            prop_assert!(now <= asked + promised, "{:?} after {:?}", now - asked, window);
                            prop_assert!(in_flight.iter().all(|(_, other, _)| *other != polled));
                            in_flight.push((now + milliseconds(slow), polled, now));
                        }
                        Next::Wait(at) => {
                            let at = next_end.map_or(at, |end| end.min(at));
                            prop_assert!(at > now);
                            if at > until {
                                break;
                            }
                            now = at;
                        }
                        Next::Idle => {
                            prop_assert!(model.is_empty());
                            break;
                        }
                    }
                }
                now = until;
                for (polled, (asked, window)) in &model {
                    let late = now.saturating_duration_since(*asked + *window + Duration::from_secs(1));
                    let waits = in_flight.iter().any(|(_, other, _)| other == polled);
                    prop_assert!(waits || late.is_zero(), "forgotten: {polled} for {late:?} beyond {window:?}");
                }
                prop_assert_eq!(schedule.by_slot.len(), model.len());
                prop_assert_eq!(schedule.by_due.len() + in_flight.len(), model.len());
            }
        }
    }
}
