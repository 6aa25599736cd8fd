//! Sheds memory before the kernel kills the process for it.
//!
//! A container that outgrows its memory limit is killed without warning, in the middle of whatever it does. Most programs
//! hold memory that they could do without: caches, work done side by side, answers still on their way. This crate says when
//! to let go of it.
//!
//! ```text
//! Source --read--> Reading --Thresholds::level--> Level --Guard::step--> every registered Shed
//! (cgroup, PSI,    (used, limit)                  (Normal, Shrink,
//!  else /proc)                                     Purge, Refuse)
//! ```
//!
//! # Levels
//!
//! | level | from, of the limit | what a shedder is to do |
//! |---|---|---|
//! | [`Level::Normal`] | | go back to its usual bounds |
//! | [`Level::Shrink`] | 70 % | make do with less |
//! | [`Level::Purge`] | 85 % | drop what can be had again, give pages back to the system |
//! | [`Level::Refuse`] | 92 % | take nothing big any more |
//!
//! A level is reached at once, and left only when use has been [some points](Thresholds::HYSTERESIS) below its threshold for
//! [some seconds](Guard::RECOVERY).
//!
//! # What is counted
//!
//! What is charged to the control group, without what the kernel takes back by itself before it kills: pages of files that
//! are on its lists of reclaimable pages, and slabs that it can drop. Where there is no control group with a memory
//! controller, the process's resident memory that no file backs. See [`Source`].
//!
//! # Using it
//!
//! The crate starts no thread and needs no runtime: the caller calls [`Guard::step`] and waits for as long as
//! [`Step::pause`] says, which is seconds while there is much room and a tenth of a second near a threshold.
//!
//! ```
//! use std::{sync::{Arc, Mutex}, time::Instant};
//! use memory_guard::{Guard, Level, Settings, Shed, Source};
//!
//! struct Cache(Mutex<Vec<u8>>);
//!
//! impl Shed for Cache {
//!     fn name(&self) -> &'static str {
//!         "cache"
//!     }
//!
//!     fn shed(&self, level: Level) {
//!         if level >= Level::Purge {
//!             *self.0.lock().expect("nobody panics with it") = Vec::new();
//!         }
//!     }
//! }
//!
//! let mut guard = Guard::new(Source::discover("/".as_ref()), Settings::default());
//! guard.register(Arc::new(Cache(Mutex::new(vec![0; 1000]))));
//! let step = guard.step(Instant::now());
//! println!("{:?}: again in {:?}", step.level, step.pause);
//! ```
//!
//! # Assumptions and bounds
//!
//! - Linux. Elsewhere, or where nothing can be read, the level stays as it is, and a step says so.
//! - What is remembered is a fixed number of samples ([`Projection`]).
//! - Growth faster than [`Guard::FASTEST_GROWTH`] may pass several thresholds between two steps, and a step may come late on
//!   a busy machine. So every step says how much [room](Shed::room) there is: what never grows by more until the next one
//!   cannot outrun the guard.

mod cgroup;
mod guard;
mod level;
mod process;
mod projection;
mod psi;
mod reading;

pub use self::guard::{Guard, Settings, Shed, Step};
pub use self::level::{InvalidThresholds, Level, Thresholds};
pub use self::projection::Projection;
pub use self::psi::Stall;
pub use self::reading::{Origin, Reading, Source, Unreadable};
