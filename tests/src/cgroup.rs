//! A limit on memory, as a container has it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Where Linux distributions mount the memory controller of the first version of control groups.
const MOUNT: &str = "/sys/fs/cgroup/memory";

/// A control group of the memory controller, first version, below that of this process: every other limit stays in force.
/// Its processes must have ended when it is dropped, or it stays.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A group that kills when its processes take more than this many bytes together.
    ///
    /// # Errors
    ///
    /// Where there is no such controller, or this process may not divide its group.
    pub fn limited(bytes: u64) -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = path_of_memory(&own).ok_or_else(|| io::Error::other("no memory controller of cgroup v1"))?;
        let name = format!(
            "leanserve-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(MOUNT).join(own.trim_start_matches('/')).join(name);
        fs::create_dir(&path)?;
        let group = Self(path);
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string())?;
        Ok(group)
    }

    /// The file to write a process id to.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// The most bytes that were charged to it at a time, pages of files included.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn peak(&self) -> io::Result<u64> {
        let peak = fs::read_to_string(self.0.join("memory.max_usage_in_bytes"))?;
        peak.trim().parse().map_err(io::Error::other)
    }

    /// How many of its processes were killed for its limit.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn kills(&self) -> io::Result<u32> {
        let control = fs::read_to_string(self.0.join("memory.oom_control"))?;
        let kills = control
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        kills.ok_or_else(|| io::Error::other("the kernel does not count kills"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The path of the group of the memory controller in `/proc/PID/cgroup`.
fn path_of_memory(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers
            .split(',')
            .any(|controller| controller == "memory")
            .then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::path_of_memory;

    #[test]
    fn the_own_group_is_found() {
        assert_eq!(path_of_memory("5:devices:/\n4:memory:/a:b/c\n0::/\n"), Some("/a:b/c"));
        assert_eq!(path_of_memory("3:cpu,memory:/x\n"), Some("/x"));
        assert_eq!(path_of_memory("0::/user.slice\n"), None);
    }
}
