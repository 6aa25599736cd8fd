//! Child processes that cannot outlive the process that started them.

use std::{
    ffi::OsStr,
    fs, io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A command whose process is killed when the calling process dies, however it dies: the kernel sends SIGKILL to a
/// child with a parent death signal, which `setpriv` (util-linux) sets. Without `setpriv` it is a plain command.
///
/// The signal is tied to the thread that spawns, so start such a command with [`spawn`].
#[must_use]
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    if !setpriv_works() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn setpriv_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// Spawns from a thread that lives as long as the process, so that a parent death signal means the death of the
/// process and not of the test's or runtime's thread that happened to make the call.
///
/// # Errors
///
/// Those of [`Command::spawn`], and when the spawning thread is gone, which only the end of the process brings about.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<Order>(16);
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = receiver.recv() {
                // Whoever ordered waits for the reply; if it is gone, the child is nobody's and must go too.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        });
        sender
    });
    let (reply, answer) = mpsc::sync_channel(1);
    orders
        .send((command, reply))
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    answer.recv().map_err(io::Error::other)?
}

/// Asks the process to end. No error when it already has.
pub fn terminate(child: &Child) {
    signal(child, Signal::TERM);
}

/// Stops the process where it is (SIGSTOP): it keeps its connections and does nothing. No error when it has ended.
pub fn pause(child: &Child) {
    signal(child, Signal::STOP);
}

/// Lets a process go on (SIGCONT). No error when it has ended.
pub fn resume(child: &Child) {
    signal(child, Signal::CONT);
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An unreaped child keeps its pid, so this cannot reach a stranger; an ended one ignores it.
        let _ = kill_process(pid, signal);
    }
}

/// Waits for the child to end, and kills it at the deadline. Says how it ended and whether it had to be killed.
///
/// # Errors
///
/// When the child cannot be waited for.
pub fn reap(child: &mut Child, deadline: Duration) -> io::Result<(ExitStatus, bool)> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if Instant::now() >= until {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// When the process started, in clock ticks since boot: with the pid, the identity of a process. `None` when there is
/// no such process, or it is a zombie.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may hold anything, so count fields after the last one (proc_pid_stat(5):
    // the state is field 3, the start time field 22).
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    if *fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether a process with this pid runs (a zombie does not).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    start_time(pid).is_some()
}

/// Kills the process with this pid, if it is still the one that started at this time.
pub fn kill_if_same(pid: u32, started: u64) {
    if start_time(pid) == Some(started)
        && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
    {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The last `lines` lines of a file, for error messages; empty when it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Command, Duration, Stdio, is_alive, reap, spawn, start_time, terminate, tied};

    fn sleeper() -> Command {
        let mut command = tied("sleep");
        command.arg("1000").stdin(Stdio::null());
        command
    }

    #[test]
    fn a_child_ends_when_asked_and_is_gone() {
        let mut child = spawn(sleeper()).unwrap();
        let pid = child.id();
        assert!(is_alive(pid));
        assert!(start_time(pid).unwrap() > 0);
        terminate(&child);
        let (status, killed) = reap(&mut child, Duration::from_secs(10)).unwrap();
        assert!(!status.success() && !killed);
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_child_that_does_not_end_is_killed() {
        let mut child = spawn(sleeper()).unwrap();
        let (status, killed) = reap(&mut child, Duration::ZERO).unwrap();
        assert!(!status.success() && killed);
    }

    #[test]
    fn the_thread_that_orders_a_child_may_end() {
        let mut child = std::thread::spawn(|| spawn(sleeper()).unwrap()).join().unwrap();
        // The death signal of a thread that ended would have been sent before `join` returned.
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
