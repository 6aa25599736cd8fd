//! The same behaviour of every mode, against an in-memory API server with faults, under tokio's paused time.
//!
//! What differs between modes on purpose (how fresh an answer is, how many requests it takes) is asserted by kind; see
//! [`access::Kind`].

mod access;
mod auto;
mod cache;
#[expect(
    clippy::similar_names,
    reason = "a change that was told, and the stream of changes it came from"
)]
mod changes;
mod errors;
mod history;
mod purge;
mod reads;
mod retries;
mod sharing;
mod squeeze;
mod switch;
mod want;
mod watch;
