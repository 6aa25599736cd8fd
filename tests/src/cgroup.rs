//! A limit on memory, as a container has it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use testkit::{Error, Operator};

/// Which interface the memory controller has. Sources: the kernel's `admin-guide/cgroup-v2` and `admin-guide/cgroup-v1/memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A control group of the memory controller, below that of this process where it can be: every other limit stays in force.
/// Its processes must have ended when it is dropped, or it stays.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    path: PathBuf,
}

impl Cgroup {
    /// A group that kills when its processes take more than this many bytes together.
    ///
    /// In version 2 a group that has processes cannot hand its controllers down, so the new one is made in the nearest group
    /// at or above that of this process which hands the memory controller down.
    ///
    /// # Errors
    ///
    /// Where there is no such controller, or this process may not divide a group.
    pub fn limited(bytes: u64) -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (version, parent) = parent(Path::new("/"))?;
        let name = format!(
            "leanserve-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = parent.join(name);
        fs::create_dir(&path)?;
        let group = Self { version, path };
        let limit = match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        fs::write(group.path.join(limit), bytes.to_string())?;
        if version == Version::V2 {
            // Or what does not fit is swapped out instead. Without swap there is no such file.
            let swap = group.path.join("memory.swap.max");
            if swap.exists() {
                fs::write(swap, "0")?;
            }
        }
        Ok(group)
    }

    /// Starts a program that has joined the group before it begins, without a kubeconfig of its environment.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Operator, Error> {
        // The shell joins the group and becomes the program.
        let mut joined: Vec<OsString> = vec!["-c".into(), r#"echo $$ > "$0" && exec "$@""#.into()];
        joined.extend([self.path.join("cgroup.procs").into(), program.into()]);
        joined.extend(arguments.into_iter().map(Into::into));
        Operator::spawn(Path::new("sh"), joined, [("KUBECONFIG", "")])
    }

    /// The most bytes that were charged to it at a time, pages of files included.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell: in version 2 it does from Linux 5.19.
    pub fn peak(&self) -> io::Result<u64> {
        let peak = match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        let peak = fs::read_to_string(self.path.join(peak))?;
        peak.trim().parse().map_err(io::Error::other)
    }

    /// How many of its processes were killed for its limit.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn kills(&self) -> io::Result<u32> {
        let events = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let events = fs::read_to_string(self.path.join(events))?;
        let kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        kills.ok_or_else(|| io::Error::other("the kernel does not count kills"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// The group to make another one in, where Linux distributions mount the hierarchies below `root`.
fn parent(root: &Path) -> io::Result<(Version, PathBuf)> {
    let own = fs::read_to_string(root.join("proc/self/cgroup"))?;
    let below = |mount: &str, path: &str| root.join(mount).join(path.trim_start_matches('/'));
    // A controller belongs to one version at a time.
    if let Some(path) = membership(&own, Version::V1) {
        return Ok((Version::V1, below("sys/fs/cgroup/memory", path)));
    }
    let path = membership(&own, Version::V2).ok_or_else(|| io::Error::other("no control groups"))?;
    let top = root.join("sys/fs/cgroup");
    let own = below("sys/fs/cgroup", path);
    let mut groups = own.ancestors().take_while(|group| group.starts_with(&top));
    let hands_down = |group: &&Path| {
        let controllers = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        controllers.split_ascii_whitespace().any(|one| one == "memory")
    };
    let found = groups.find(hands_down).map(|group| (Version::V2, group.to_path_buf()));
    found.ok_or_else(|| io::Error::other("no control group hands the memory controller down"))
}

/// The path of the group of this version's memory controller in `/proc/PID/cgroup`.
fn membership(text: &str, version: Version) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => number == "0" && controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found() {
        for (text, v1, v2) in [
            ("5:devices:/\n4:memory:/a:b/c\n0::/\n", Some("/a:b/c"), Some("/")),
            ("3:cpu,memory:/x\n", Some("/x"), None),
            ("0::/user.slice\n", None, Some("/user.slice")),
        ] {
            assert_eq!(membership(text, Version::V1), v1, "{text}");
            assert_eq!(membership(text, Version::V2), v2, "{text}");
        }
    }

    /// The group to divide, among these files.
    fn parent_among(files: &[(&str, &str)]) -> Option<(Version, PathBuf)> {
        let root = tempfile::TempDir::new().expect("a writable directory for temporary files");
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is below the root")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        let (version, path) = parent(root.path()).ok()?;
        let within = path.strip_prefix(root.path()).expect("it is below the root");
        Some((version, within.to_path_buf()))
    }

    #[test]
    fn the_group_to_divide() {
        let v1 = [("proc/self/cgroup", "4:memory:/jobs\n0::/\n")];
        assert_eq!(
            parent_among(&v1),
            Some((Version::V1, "sys/fs/cgroup/memory/jobs".into()))
        );
        let v2 = |slice, service| {
            [
                ("proc/self/cgroup", "0::/user.slice/a.service\n"),
                ("sys/fs/cgroup/cgroup.subtree_control", "cpu memory pids\n"),
                ("sys/fs/cgroup/user.slice/cgroup.subtree_control", slice),
                ("sys/fs/cgroup/user.slice/a.service/cgroup.subtree_control", service),
            ]
        };
        for (slice, service, found) in [
            ("cpu memory\n", "memory\n", "sys/fs/cgroup/user.slice/a.service"),
            // It has processes, this one among them.
            ("cpu memory\n", "\n", "sys/fs/cgroup/user.slice"),
            ("cpu\n", "\n", "sys/fs/cgroup"),
        ] {
            let parent = parent_among(&v2(slice, service));
            assert_eq!(parent, Some((Version::V2, found.into())), "{slice}{service}");
        }
        let nothing_handed_down = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cgroup.subtree_control", "\n"),
        ];
        assert_eq!(parent_among(&nothing_handed_down), None);
        assert_eq!(parent_among(&[]), None);
    }
}
