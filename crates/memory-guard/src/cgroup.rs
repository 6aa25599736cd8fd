//! The control group of this process: where its files are, and what they say.
//!
//! Sources: `cgroups(7)`, `proc_pid_mountinfo(5)`, the kernel's `admin-guide/cgroup-v2` and `admin-guide/cgroup-v1/memory`.

mod mounts;

use std::path::{Component, Path, PathBuf};

use self::mounts::Mount;
use crate::reading::text;

/// No machine has so much memory; version 1 writes a limit beyond it where there is none.
const UNLIMITED: u64 = 1 << 60;

/// Ancestors looked at. Kubernetes makes five.
const MOST_LEVELS: usize = 32;

/// Which interface the files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The group that the memory of this process is charged to, and its visible ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) version: Version,
    own: PathBuf,
    ancestors: Vec<PathBuf>,
}

/// Use and limit of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) limit: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) memory: Option<Group>,
    /// The file that tells of time lost.
    pub(crate) pressure: Option<PathBuf>,
}

/// Looks for the group of this process, with all paths below `root`.
pub(crate) fn discover(root: &Path) -> Found {
    let read = || {
        Some((
            text(&root.join("proc/self/cgroup"))?,
            text(&root.join("proc/self/mountinfo"))?,
        ))
    };
    let Some((memberships, mounts)) = read() else {
        return Found::default();
    };
    let mounts = mounts::parse(&mounts);
    let v1 = membership(&memberships, Version::V1).and_then(|path| locate(root, &mounts, Version::V1, path));
    let v2 = membership(&memberships, Version::V2).and_then(|path| locate(root, &mounts, Version::V2, path));
    // Not in the root group, whose pressure is that of the whole machine.
    let pressure = v2.as_ref().filter(|group| group.own.join("cgroup.events").exists());
    let pressure = pressure.map(|group| group.own.join("memory.pressure"));
    // A controller belongs to one version at a time: where version 1 has the memory, version 2 has not.
    let memory = [v1, v2].into_iter().flatten().find(Group::is_readable);
    Found { memory, pressure }
}

/// The path of this process in the hierarchy that has the memory controller, from `/proc/self/cgroup`.
fn membership(memberships: &str, version: Version) -> Option<&str> {
    memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => number == "0" && controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

/// The directory of a group, and those above it up to where the hierarchy is mounted.
fn locate(root: &Path, mounts: &[Mount], version: Version, path: &str) -> Option<Group> {
    let mount = mounts.iter().find(|mount| match version {
        Version::V1 => mount.filesystem == "cgroup" && mount.options.split(',').any(|option| option == "memory"),
        Version::V2 => mount.filesystem == "cgroup2",
    })?;
    let top = below(root, &mount.point);
    // A container may see only its own group, as the top; the path is then that of the host.
    let within = Path::new(path).strip_prefix(&mount.root).ok();
    let within = within.filter(|within| within.components().all(|part| matches!(part, Component::Normal(_))));
    let mut own = top.join(within.unwrap_or(Path::new("")));
    // With namespaces between, what the path names need not be there.
    while !own.is_dir() && own != top {
        own.pop();
    }
    let ancestors = own.ancestors().skip(1).take(MOST_LEVELS);
    let ancestors = ancestors.take_while(|ancestor| ancestor.starts_with(&top));
    Some(Group {
        version,
        ancestors: ancestors.map(Path::to_path_buf).collect(),
        own,
    })
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

impl Group {
    pub(crate) fn own(&self) -> &Path {
        &self.own
    }

    fn levels(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.own).chain(&self.ancestors).map(PathBuf::as_path)
    }

    fn is_readable(&self) -> bool {
        self.used(&self.own).is_some()
    }

    /// The least limit of this group and those above it.
    pub(crate) fn least_limit(&self) -> Option<u64> {
        let own = self.hidden_limit();
        self.levels().filter_map(|level| self.limit(level)).chain(own).min()
    }

    /// Of this group and those above it the one that is closest to its limit; this group, where there is no limit. `None` if
    /// the use of this group cannot be read. `configured` is one more limit of this group, which those above know nothing of.
    pub(crate) fn tightest(&self, configured: Option<u64>) -> Option<Usage> {
        let own = Usage {
            used: self.used(&self.own)?,
            limit: [self.limit(&self.own), self.hidden_limit(), configured]
                .into_iter()
                .flatten()
                .min(),
        };
        let above = self.ancestors.iter().filter_map(|level| {
            let limit = self.limit(level)?;
            Some(Usage {
                used: self.used(level)?,
                limit: Some(limit),
            })
        });
        Some(above.fold(own, |tightest, other| {
            if other.is_tighter_than(tightest) {
                other
            } else {
                tightest
            }
        }))
    }

    /// The limit of a group alone.
    fn limit(&self, level: &Path) -> Option<u64> {
        let file = match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        // `max` is no number, and no limit.
        let limit = text(&level.join(file))?.trim().parse().ok()?;
        (limit < UNLIMITED).then_some(limit)
    }

    /// The limit of ancestors that cannot be seen, which version 1 tells of.
    fn hidden_limit(&self) -> Option<u64> {
        if self.version == Version::V2 {
            return None;
        }
        let stat = text(&self.own.join("memory.stat"))?;
        field(&stat, "hierarchical_memory_limit").filter(|limit| *limit < UNLIMITED)
    }

    /// What is charged to a group but for what the kernel can take back.
    fn used(&self, level: &Path) -> Option<u64> {
        let (file, reclaimable) = match self.version {
            // `total_` includes the groups below, as the charge does.
            Version::V1 => (
                "memory.usage_in_bytes",
                &["total_active_file", "total_inactive_file"][..],
            ),
            Version::V2 => (
                "memory.current",
                &["active_file", "inactive_file", "slab_reclaimable"][..],
            ),
        };
        let charged: u64 = text(&level.join(file))?.trim().parse().ok()?;
        let stat = text(&level.join("memory.stat"))?;
        let reclaimable = reclaimable.iter().filter_map(|name| field(&stat, name));
        // The two files are not read at the same time.
        Some(reclaimable.fold(charged, u64::saturating_sub))
    }
}

impl Usage {
    fn is_tighter_than(self, other: Self) -> bool {
        match (self.limit, other.limit) {
            (Some(own), Some(limit)) => {
                u128::from(self.used) * u128::from(limit) > u128::from(other.used) * u128::from(own)
            }
            (limit, _) => limit.is_some(),
        }
    }
}

/// A line `name value`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
