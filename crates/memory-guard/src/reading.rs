//! How much memory is used and how much may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    cgroup::{self, Group, Version},
    process,
    psi::{self, Stall},
};

/// Where a reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The memory controller of control groups, version 1; also where version 2 stands beside it (hybrid).
    CgroupV1,
    /// The memory controller of control groups, version 2.
    CgroupV2,
    /// The process alone, because it is in no control group whose memory can be read.
    Process,
}

impl Origin {
    /// In `snake_case`, for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CgroupV1 => "cgroup_v1",
            Self::CgroupV2 => "cgroup_v2",
            Self::Process => "process",
        }
    }
}

/// Use and limit at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Bytes that the kernel cannot take back by itself.
    pub used_bytes: u64,
    /// Bytes at which the kernel kills; `None` where there is no limit.
    pub limit_bytes: Option<u64>,
    /// Where this comes from.
    pub origin: Origin,
    /// How much time was lost waiting for memory, where the kernel tells.
    pub stall: Option<Stall>,
}

impl Reading {
    /// Bytes until the limit; `None` where there is none.
    #[must_use]
    pub fn headroom_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes?.saturating_sub(self.used_bytes))
    }

    /// The same with a limit of one's own, which takes effect where it is the lower one.
    #[must_use]
    pub fn limited_to(self, limit_bytes: Option<u64>) -> Self {
        let limit_bytes = match (self.limit_bytes, limit_bytes) {
            (Some(found), Some(own)) => Some(found.min(own)),
            (found, own) => found.or(own),
        };
        Self { limit_bytes, ..self }
    }
}

/// Neither a control group nor `/proc` says how much memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the memory in use cannot be read: neither from the control group nor from /proc/self/status")]
pub struct Unreadable;

/// Where readings are taken: found once, read often.
///
/// # What counts as used
///
/// - Control groups: what is charged to the group (`memory.current`, or `memory.usage_in_bytes` in version 1) without the
///   file pages on the kernel's lists of reclaimable ones (`active_file`, `inactive_file`), and in version 2 without
///   `slab_reclaimable`. What remains is anonymous and shared memory, file pages locked into memory, kernel memory and
///   buffers of sockets; whatever else a kernel may come to charge is counted too. Version 1 does not tell which slabs are
///   reclaimable, so all count there. Sources: the kernel's `admin-guide/cgroup-v2` and `admin-guide/cgroup-v1/memory`.
/// - Else `RssAnon` and `RssShmem` of `/proc/self/status`, or `VmRSS` before Linux 4.5. Source: `proc_pid_status(5)`.
///
/// # What counts as limit
///
/// A group is killed in when it or any group above it reaches its limit, together with all others in there. So the limits
/// of all visible ancestors are looked at, each beside the use of the same group, and the one that is closest is reported.
/// In version 1, `hierarchical_memory_limit` also tells of ancestors that cannot be seen from inside a container.
#[derive(Clone, Debug)]
pub struct Source {
    status: PathBuf,
    group: Option<Group>,
    pressure: Option<PathBuf>,
}

impl Source {
    /// Finds the control group of this process by `/proc/self/cgroup` and `/proc/self/mountinfo` below `root`, which is
    /// `/` but for tests. Finding none is no error: see [`Origin::Process`].
    #[must_use]
    pub fn discover(root: &Path) -> Self {
        let found = cgroup::discover(root);
        Self {
            status: root.join("proc/self/status"),
            group: found.memory,
            pressure: found.pressure,
        }
    }

    /// Where the next reading comes from, if its files can be read.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.group.as_ref().map(|group| group.version) {
            Some(Version::V1) => Origin::CgroupV1,
            Some(Version::V2) => Origin::CgroupV2,
            None => Origin::Process,
        }
    }

    /// The directory of the process's own control group, where there is one with a memory controller.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.group.as_ref().map(Group::own)
    }

    /// The least of all limits, whoever else counts towards it: what defaults may be derived from.
    #[must_use]
    pub fn least_limit_bytes(&self) -> Option<u64> {
        self.group.as_ref().and_then(Group::least_limit)
    }

    /// Reads use and limit now.
    ///
    /// # Errors
    ///
    /// Neither the group's files nor those of the process can be read.
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let stall = self.pressure.as_deref().and_then(|path| psi::parse(&text(path)?));
        if let Some(group) = &self.group
            && let Some(usage) = group.tightest()
        {
            return Ok(Reading {
                used_bytes: usage.used,
                limit_bytes: usage.limit,
                origin: self.origin(),
                stall,
            });
        }
        let used = text(&self.status).and_then(|status| process::resident(&status));
        Ok(Reading {
            used_bytes: used.ok_or(Unreadable)?,
            // Where the group's use cannot be read any more its limit may still be.
            limit_bytes: self.least_limit_bytes(),
            origin: Origin::Process,
            stall,
        })
    }
}

/// A file of a few lines, as the kernel makes them.
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_ones_own_counts_where_it_is_lower() {
        let reading = |limit_bytes| Reading {
            used_bytes: 10,
            limit_bytes,
            origin: Origin::Process,
            stall: None,
        };
        for (found, own, expected) in [
            (None, None, None),
            (Some(50), None, Some(50)),
            (None, Some(30), Some(30)),
            (Some(50), Some(30), Some(30)),
            (Some(50), Some(70), Some(50)),
        ] {
            let limited = reading(found).limited_to(own);
            assert_eq!(limited.limit_bytes, expected, "{found:?} {own:?}");
            assert_eq!(limited.headroom_bytes(), expected.map(|limit| limit - 10));
        }
        assert_eq!(reading(Some(5)).headroom_bytes(), Some(0));
    }

    #[test]
    fn this_process_has_a_size() {
        let reading = Source::discover(Path::new("/")).read().expect("tests run on Linux");
        assert!(reading.used_bytes > 100_000, "{reading:?}");
    }
}
