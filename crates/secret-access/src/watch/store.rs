//! Pure: the Secrets that a watch holds.
//!
//! Versions only grow, so an event older than what is held, or than the deletion of what was held, is a replay and changes
//! nothing. Deletions are remembered for a while. The ones forgotten leave the greatest of their versions behind: what is
//! not held and not newer than that may be a replay, so it is not held either, and whoever reads it asks the API server.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::answer::{Answer, Sent};
use crate::probe::CacheSize;
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SecretSnapshot, Source};

/// How many deletions are remembered by name.
const MOST_DELETIONS: usize = 1024;

/// What an entry takes beside its snapshot: its place in a hash table that is between half and seven eighths full, and the
/// answer's reference count. The name is shared with the snapshot.
const ENTRY_OVERHEAD: usize = 2 * (size_of::<(SecretRef, Entry)>() + 1) + 16;

/// Which of the watches an entry belongs to.
pub(super) type ScopeIndex = usize;

/// How much may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) secrets: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    /// So many percent of them. At 100 they may be reached; below that, they must not be.
    pub(super) fn percent(self, percent: u8) -> Self {
        if percent >= 100 {
            return self;
        }
        // In parts, because the product may not fit.
        let part = |bound: usize| {
            let percent = usize::from(percent);
            let whole = bound / 100 * percent + bound % 100 * percent / 100;
            // One below, unless the percentage is not a whole number anyway.
            if (bound % 100 * percent).is_multiple_of(100) {
                whole.saturating_sub(1)
            } else {
                whole
            }
        };
        Self {
            secrets: part(self.secrets),
            bytes: part(self.bytes),
        }
    }
}

/// Which bound was crossed, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crossed {
    Secrets { secrets: usize, max: usize },
    Bytes { bytes: usize, max: usize },
}

/// What became of a version that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is held now.
    Newer,
    /// It was held before, and still is.
    Same,
    /// It is not held: it is older than what is known, or may be.
    Older,
}

#[derive(Debug)]
struct Entry {
    snapshot: Arc<SecretSnapshot>,
    sent: Sent,
    scope: ScopeIndex,
    /// The list that told of it last.
    generation: u64,
}

impl Entry {
    fn cost(&self) -> usize {
        self.snapshot.cost() + ENTRY_OVERHEAD
    }
}

/// The Secrets that are held.
#[derive(Debug, Default)]
pub(super) struct Store {
    entries: HashMap<SecretRef, Entry>,
    bytes: usize,
    deletions: Deletions,
    /// Counts the lists.
    generation: u64,
}

/// A list that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) scope: ScopeIndex,
    pub(super) sent: Sent,
    generation: u64,
}

impl Store {
    pub(super) fn size(&self) -> CacheSize {
        CacheSize {
            entries: self.entries.len(),
            bytes: self.bytes,
        }
    }

    /// What is held of a Secret, and by which watch.
    pub(super) fn held(&self, secret: &SecretRef) -> Option<(ScopeIndex, Answer)> {
        let entry = self.entries.get(secret)?;
        let answer = Answer {
            found: Some(Arc::clone(&entry.snapshot)),
            sent: entry.sent,
        };
        Some((entry.scope, answer))
    }

    /// Begins a list of a scope. What it does not tell of is removed when it has [ended](Store::end).
    pub(super) fn begin(&mut self, scope: ScopeIndex, sent: Sent) -> Listing {
        self.generation += 1;
        Listing {
            scope,
            sent,
            generation: self.generation,
        }
    }

    /// A Secret is there in this version, as that list or the watch after it tells.
    ///
    /// # Errors
    ///
    /// The bound that would be crossed by holding it.
    pub(super) fn present(
        &mut self,
        snapshot: &SecretSnapshot,
        listing: Listing,
        bounds: Bounds,
    ) -> Result<Applied, Crossed> {
        let secret = snapshot.secret();
        let version = snapshot.resource_version();
        match self.entries.get_mut(secret) {
            Some(held) if held.snapshot.resource_version() >= version => {
                let same = held.snapshot.resource_version() == version;
                held.scope = listing.scope;
                held.generation = listing.generation;
                if same && held.sent.moment < listing.sent.moment {
                    held.validate(listing.sent);
                }
                return Ok(if same { Applied::Same } else { Applied::Older });
            }
            None if self.deletions.may_cover(secret, version) => return Ok(Applied::Older),
            Some(_) | None => {}
        }
        let entry = Entry {
            snapshot: Arc::new(snapshot.validated(listing.sent.at).with_source(Source::Watch)),
            sent: listing.sent,
            scope: listing.scope,
            generation: listing.generation,
        };
        let replaced = self.entries.get(secret).map(Entry::cost);
        let secrets = self.entries.len() + usize::from(replaced.is_none());
        let bytes = self.bytes - replaced.unwrap_or_default() + entry.cost();
        if secrets > bounds.secrets {
            let max = bounds.secrets;
            return Err(Crossed::Secrets { secrets, max });
        }
        if bytes > bounds.bytes {
            let max = bounds.bytes;
            return Err(Crossed::Bytes { bytes, max });
        }
        self.bytes = bytes;
        self.entries.insert(entry.snapshot.secret().clone(), entry);
        Ok(Applied::Newer)
    }

    /// A Secret left the selection at this version. Says whether that is news.
    pub(super) fn gone(&mut self, secret: &SecretRef, version: ResourceVersion) -> bool {
        match self.entries.get(secret) {
            Some(held) if held.snapshot.resource_version() > version => false,
            Some(_) => {
                self.deletions.remember(secret, version);
                self.remove(secret);
                true
            }
            None => {
                let news = !self.deletions.may_cover(secret, version);
                if news {
                    self.deletions.remember(secret, version);
                }
                news
            }
        }
    }

    /// Nobody can tell what became of a Secret: it is not held until a later version is told.
    pub(super) fn unusable(&mut self, secret: &SecretRef, version: Option<ResourceVersion>) {
        let held = self.entries.get(secret).map(|held| held.snapshot.resource_version());
        match (held, version) {
            (Some(held), Some(version)) if held > version => {}
            (held, version) => {
                // Of one whose version is unknown, at least what was held is outdated.
                let after = held.map(|held| ResourceVersion::new(held.number().saturating_add(1)));
                if let Some(version) = version.or(after) {
                    self.deletions.remember(secret, version);
                }
                self.remove(secret);
            }
        }
    }

    /// Ends a list that shows everything up to `version`: removes what the scope holds beyond it, and tells what that was.
    pub(super) fn end(&mut self, listing: Listing, version: ResourceVersion) -> Vec<SecretRef> {
        let left = |entry: &Entry| entry.scope == listing.scope && entry.generation != listing.generation;
        let gone: Vec<SecretRef> = self
            .entries
            .iter()
            .filter(|(_, entry)| left(entry))
            .map(|(secret, _)| secret.clone())
            .collect();
        for secret in &gone {
            self.deletions.remember(secret, version);
            self.remove(secret);
        }
        gone
    }

    /// Removes all that a scope holds, to be wiped by whoever drops it.
    pub(super) fn take_scope(&mut self, scope: ScopeIndex) -> Vec<Arc<SecretSnapshot>> {
        // Only replays are kept out by it, and what comes next is a list.
        self.deletions.forgotten = None;
        let mut taken = Vec::new();
        self.entries.retain(|_, entry| {
            let stays = entry.scope != scope;
            if !stays {
                taken.push(Arc::clone(&entry.snapshot));
            }
            stays
        });
        self.entries.shrink_to_fit();
        self.bytes = self.entries.values().map(Entry::cost).sum();
        taken
    }

    /// A request sent at `sent` found the Secret to be in this version.
    pub(super) fn confirm(&mut self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        if let Some(held) = self.entries.get_mut(secret)
            && held.snapshot.uid() == uid
            && held.snapshot.resource_version() == version
            && held.sent.moment < sent.moment
        {
            held.validate(sent);
        }
    }

    /// The latest version that is known: held, deleted, out of the selection, or one that cannot be held.
    pub(super) fn known(&self, secret: &SecretRef) -> Option<ResourceVersion> {
        let held = self.entries.get(secret).map(|held| held.snapshot.resource_version());
        held.max(self.deletions.versions.get(secret).copied())
    }

    fn remove(&mut self, secret: &SecretRef) {
        if let Some(entry) = self.entries.remove(secret) {
            self.bytes -= entry.cost();
        }
    }
}

impl Entry {
    /// The content was current after `sent`.
    fn validate(&mut self, sent: Sent) {
        self.sent = sent;
        self.snapshot = Arc::new(self.snapshot.validated(sent.at).with_source(Source::Watch));
    }
}

/// Deletions by name, the latest [`MOST_DELETIONS`] of them.
#[derive(Debug, Default)]
struct Deletions {
    versions: HashMap<SecretRef, ResourceVersion>,
    order: VecDeque<SecretRef>,
    /// The greatest version of those forgotten.
    forgotten: Option<ResourceVersion>,
}

impl Deletions {
    fn remember(&mut self, secret: &SecretRef, version: ResourceVersion) {
        if let Some(known) = self.versions.get_mut(secret) {
            *known = version.max(*known);
            return;
        }
        if self.order.len() == MOST_DELETIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.forgotten = self.forgotten.max(self.versions.remove(&oldest));
        }
        self.versions.insert(secret.clone(), version);
        self.order.push_back(secret.clone());
    }

    /// Whether something may have been deleted in this version or a later one.
    fn may_cover(&self, secret: &SecretRef, version: ResourceVersion) -> bool {
        match self.versions.get(secret) {
            Some(deleted) => version <= *deleted,
            None => self.forgotten.is_some_and(|forgotten| version <= forgotten),
        }
    }
}

#[cfg(test)]
mod tests;
