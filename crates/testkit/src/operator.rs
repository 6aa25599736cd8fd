//! A program under test as a child process.

use std::{
    ffi::OsStr,
    fs, io,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::NamedTempFile;

use crate::{Error, eventually, process};

/// A running program with its output in a file. It is killed when this is dropped, and when the test's process dies.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: NamedTempFile,
}

/// The memory of a process, as `/proc/PID/status` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now, in KiB (`VmRSS`).
    pub resident_kib: u64,
    /// What of it the process has written itself, in KiB (`RssAnon`); the rest is pages of its program and other files.
    pub anonymous_kib: u64,
    /// The most that was ever resident, in KiB (`VmHWM`).
    pub peak_kib: u64,
}

impl Memory {
    /// Of the process with this id.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).map_err(Error::io(path.clone()))?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
                .ok_or_else(|| io::Error::other(format!("no {name} field: it has ended")))
        };
        let read = || {
            Ok(Self {
                resident_kib: field("VmRSS:")?,
                anonymous_kib: field("RssAnon:")?,
                peak_kib: field("VmHWM:")?,
            })
        };
        read().map_err(Error::io(path))
    }
}

impl Operator {
    /// Starts the program. `environment` is added to the test's own.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn<A, K, V>(
        binary: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Error>
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let starting = || Error::io(format!("starting {}", binary.display()));
        // Both streams append: each has a position of its own and would write over the other's text.
        let log = tempfile::Builder::new().append(true).tempfile().map_err(starting())?;
        let mut command = process::tied(binary);
        command
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(log.as_file().try_clone().map_err(starting())?)
            .stderr(log.as_file().try_clone().map_err(starting())?);
        let child = process::spawn(command).map_err(starting())?;
        Ok(Self { child, log })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file its output goes to, which is gone with this.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.log.path()
    }

    /// Everything it wrote to stdout and stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log.path()).unwrap_or_default()).into_owned()
    }

    /// Waits until its output contains `text`.
    ///
    /// # Panics
    ///
    /// At the deadline, or when it ends before.
    pub async fn wait_for_log(&mut self, text: &str, deadline: Duration) {
        eventually(&format!("{text:?} in the log"), deadline, async || {
            if self.log().contains(text) {
                return Ok(());
            }
            let end = process::tail(self.log.path(), 10);
            match self.exited() {
                Some(status) => panic!("ended ({status}) before it logged {text:?}; the end of its log:\n{end}"),
                None => Err(end),
            }
        })
        .await;
    }

    /// Its memory right now.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn memory(&self) -> Result<Memory, Error> {
        Memory::of(self.pid())
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        // Waiting for one's own child cannot fail but for having waited before, which `Child` remembers.
        self.child.try_wait().ok().flatten()
    }

    /// Kills it (SIGKILL) and waits.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus, Error> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_err(Error::io("killing the program"))
    }

    /// Asks it to end (SIGTERM) and waits; kills it at the deadline. Says how it ended and whether it had to be killed.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn terminate(mut self, deadline: Duration) -> Result<(ExitStatus, bool), Error> {
        process::terminate(&self.child);
        let ended = tokio::task::spawn_blocking(move || process::reap(&mut self.child, deadline)).await;
        ended
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|ended| ended)
            .map_err(Error::io("waiting for the program"))
    }

    /// Asks it to end (SIGTERM), without waiting.
    pub fn ask_to_end(&self) {
        process::terminate(&self.child);
    }

    /// Stops it (SIGSTOP): it keeps its connections and does nothing, until [`resume`](Self::resume).
    pub fn pause(&self) {
        process::pause(&self.child);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        process::resume(&self.child);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, path::Path, time::Duration};

    use super::Operator;
    use crate::process;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Operator {
        Operator::spawn(Path::new("sh"), ["-c", script], [("GREETING", "hello")]).unwrap()
    }

    #[tokio::test]
    async fn output_memory_and_a_regular_end() {
        let mut program =
            shell("trap 'echo bye; exit 3' TERM; echo $GREETING; echo oops >&2; while :; do sleep 0.1; done");
        program.wait_for_log("oops", DEADLINE).await;
        assert!(program.log().contains("hello\n"));
        let memory = program.memory().unwrap();
        assert!(memory.resident_kib > 0 && memory.peak_kib >= memory.resident_kib);
        assert_eq!(program.exited(), None);
        let (status, killed) = program.terminate(DEADLINE).await.unwrap();
        assert_eq!((status.code(), killed), (Some(3), false));
    }

    #[tokio::test]
    async fn it_is_killed_on_request_at_the_deadline_and_on_drop() {
        let mut program = shell("exec sleep 1000");
        assert_eq!(program.kill().unwrap().signal(), Some(9));
        assert!(program.memory().is_err());

        let mut stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done");
        stubborn.wait_for_log("ready", DEADLINE).await;
        let (_, killed) = stubborn.terminate(Duration::from_millis(50)).await.unwrap();
        assert!(killed);

        let dropped = shell("exec sleep 1000");
        let pid = dropped.pid();
        assert!(process::is_alive(pid));
        drop(dropped);
        assert!(!process::is_alive(pid));
    }
}
