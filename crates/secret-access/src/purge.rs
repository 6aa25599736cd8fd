//! Giving memory back on demand.

/// How much of what is held to drop: see [`Switch::purge`](crate::Switch::purge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Purge {
    /// What was not read within the last quarter of [`LruOptions::max_age`](crate::LruOptions::max_age).
    Idle,
    /// The less valuable half of what is held.
    Half,
    /// Everything, what a watch holds included; its reads become requests until it is allowed to begin again.
    All,
}

/// What a purge dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Purged {
    /// Entries, remembered absences included.
    pub entries: usize,
    /// Bytes, as they were counted against the bounds. Snapshots that readers still hold are freed when those let go.
    pub bytes: usize,
}

impl std::ops::Add for Purged {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
        }
    }
}
