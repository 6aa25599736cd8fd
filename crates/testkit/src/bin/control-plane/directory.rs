//! The directory of one control plane, and the remains of those whose supervisor was killed.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use testkit::process;

const PREFIX: &str = "leanserve-control-plane-";
const LOCK: &str = "lock";
const CHILDREN: &str = "children";

/// A directory that belongs to one running supervisor.
pub(crate) struct Directory {
    path: PathBuf,
    /// Removes the directory when dropped; `None` for one that the user named.
    temporary: Option<tempfile::TempDir>,
    /// Held for as long as this process lives: a lock that can be taken marks remains.
    lock: File,
}

impl Directory {
    /// A new temporary directory; remains of dead supervisors are removed first.
    pub(crate) fn temporary() -> io::Result<Self> {
        sweep(&env::temp_dir());
        let temporary = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let path = temporary.path().to_owned();
        let lock = lock_new(&path)?;
        Ok(Self {
            path,
            temporary: Some(temporary),
            lock,
        })
    }

    /// The directory that the user named; what an earlier run left there is replaced.
    pub(crate) fn named(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = fs::canonicalize(path)?;
        let lock_path = path.join(LOCK);
        if lock_path.exists() {
            let lock = File::open(&lock_path)?;
            if lock.try_lock().is_err() {
                return Err(io::Error::other(format!(
                    "{} is in use by another control plane",
                    path.display()
                )));
            }
            kill_children(&path);
            for entry in fs::read_dir(&path)? {
                let entry = entry?.path();
                if entry.is_dir() {
                    fs::remove_dir_all(&entry)?;
                } else {
                    fs::remove_file(&entry)?;
                }
            }
        } else if fs::read_dir(&path)?.next().is_some() {
            return Err(io::Error::other(format!(
                "{} is neither empty nor of a control plane",
                path.display()
            )));
        }
        let lock = lock_new(&path)?;
        Ok(Self {
            path,
            temporary: None,
            lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a child, so that it can be killed should this process be, where no death signal does it.
    pub(crate) fn note_child(&self, pid: u32) -> io::Result<()> {
        let started = process::start_time(pid).unwrap_or_default();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join(CHILDREN))?;
        writeln!(file, "{pid} {started}")
    }

    /// Removes the directory, if it is temporary.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.temporary.take().map_or(Ok(()), tempfile::TempDir::close)
    }
}

impl Drop for Directory {
    /// Gives the lock up, also where a child that is about to start has a copy of the file: closing ours would leave it
    /// held until that child's `exec` (flock(2)).
    fn drop(&mut self) {
        // The kernel gives it up when the process ends, at the latest.
        let _ = self.lock.unlock();
    }
}

/// Makes the lock file. It gets its name only once it is locked, so that nobody takes a new directory for remains.
fn lock_new(directory: &Path) -> io::Result<File> {
    let unnamed = directory.join("lock.new");
    let lock = File::create(&unnamed)?;
    lock.try_lock().map_err(io::Error::other)?;
    fs::rename(&unnamed, directory.join(LOCK))?;
    Ok(lock)
}

/// Removes the directories whose supervisor is gone, and kills what it may have left running.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        // No lock yet: it is being made at this moment, or is not ours.
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            kill_children(&path);
            // A file that another sweeper removed first is no failure.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn kill_children(directory: &Path) {
    let noted = fs::read_to_string(directory.join(CHILDREN)).unwrap_or_default();
    for line in noted.lines() {
        if let Some((pid, started)) = line.split_once(' ')
            && let (Ok(pid), Ok(started)) = (pid.parse(), started.parse())
        {
            process::kill_if_same(pid, started);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use testkit::process;

    use super::{CHILDREN, Directory, LOCK, PREFIX, lock_new, sweep};

    #[test]
    fn only_remains_of_the_dead_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = root.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            path
        };
        let (dead, alive, being_made) = (make("dead"), make("alive"), make("new"));
        let other = root.path().join("other");
        fs::create_dir(&other).unwrap();

        drop(lock_new(&dead).unwrap());
        let held = lock_new(&alive).unwrap();
        drop(lock_new(&other).unwrap());
        let mut orphan = process::spawn({
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        })
        .unwrap();
        let started = process::start_time(orphan.id()).unwrap();
        // The second line has the pid of someone who came later.
        let noted = format!("{} {started}\n{} {}\n", orphan.id(), std::process::id(), 1);
        fs::write(dead.join(CHILDREN), noted).unwrap();

        sweep(root.path());
        assert!(!dead.exists());
        assert!(alive.exists() && being_made.exists() && other.exists());
        assert!(!orphan.wait().unwrap().success());
        drop(held);
    }

    #[test]
    fn a_named_directory_is_taken_over_only_from_the_dead() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("plane");
        let mut first = Directory::named(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        assert!(Directory::named(&path).err().unwrap().to_string().contains("in use"));
        first.close().unwrap();
        let as_a_fork_has_it = first.lock.try_clone().unwrap();
        drop(first);
        assert!(path.join("old").exists(), "a named directory stays");

        let _second = Directory::named(&path).unwrap();
        assert!(!path.join("old").exists() && path.join(LOCK).exists());
        drop(as_a_fork_has_it);

        fs::write(root.path().join("precious"), "").unwrap();
        assert!(Directory::named(root.path()).is_err());
    }
}
