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
/// In version 1, `hierarchical_memory_limit` also tells of ancestors that cannot be seen from inside a container. A configured
/// limit counts as one more limit of the process's own group: what others above it use has no part in it.
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

    /// Reads use and limit now, with a limit of one's own beside those of the control groups if there is one.
    ///
    /// # Errors
    ///
    /// Neither the group's files nor those of the process can be read.
    pub fn read(&self, configured_limit_bytes: Option<u64>) -> Result<Reading, Unreadable> {
        let stall = self.pressure.as_deref().and_then(|path| psi::parse(&text(path)?));
        if let Some(group) = &self.group
            && let Some(usage) = group.tightest(configured_limit_bytes)
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
            limit_bytes: self.least_limit_bytes().into_iter().chain(configured_limit_bytes).min(),
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
    fn headroom_ends_at_the_limit() {
        for (limit_bytes, headroom) in [
            (None, None),
            (Some(50), Some(40)),
            (Some(10), Some(0)),
            (Some(5), Some(0)),
        ] {
            let reading = Reading {
                used_bytes: 10,
                limit_bytes,
                origin: Origin::Process,
                stall: None,
            };
            assert_eq!(reading.headroom_bytes(), headroom, "{limit_bytes:?}");
        }
    }

    #[test]
    fn this_process_has_a_size() {
        let reading = Source::discover(Path::new("/")).read(None).expect("tests run on Linux");
        assert!(reading.used_bytes > 100_000, "{reading:?}");
    }
}
