//! Go programs, built into the cache once from pinned sources.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{AssetsError, context, find::is_program};
use crate::process;

/// A pinned Go module: its directory name, go.mod, go.sum and sources of its own.
pub(super) struct Module {
    pub(super) name: &'static str,
    pub(super) go_mod: &'static str,
    pub(super) go_sum: &'static str,
    /// File name below the module's directory, and content; empty for a module that only names tools.
    pub(super) sources: &'static [(&'static str, &'static str)],
}

/// A program of a module.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The Go package it is built from.
    pub(super) package: &'static str,
    pub(super) module: &'static Module,
}

/// Programs that are built and kept together.
pub(super) struct Set {
    /// How lines of progress call it.
    pub(super) title: &'static str,
    /// Its directory in the cache.
    pub(super) directory: &'static str,
    pub(super) programs: Vec<Program>,
}

const BUILD_FLAGS: [&str; 3] = ["-mod=readonly", "-trimpath", "-buildvcs=false"];

/// Without a version of its own the server reports v0.0.0-master, which clients cannot compare.
const STAMPED: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];

/// How often a long build says that it is still at it.
const HEARTBEAT: Duration = Duration::from_secs(30);

impl Set {
    /// The directory with all programs; builds what is missing, with lines of progress, under a lock so that one process
    /// builds for all.
    pub(super) fn find_or_build(&self, progress: &mut dyn Write) -> Result<PathBuf, AssetsError> {
        // What is in the cache needs no Go toolchain.
        if let Some(cached) = self.cached() {
            return Ok(cached);
        }
        let go = go_version().ok_or(AssetsError::NoGo)?;
        let root = self.root().ok_or(AssetsError::NoCacheDirectory)?;
        self.fill(&root, &self.entry_name(&go), progress, &build_program)
    }

    /// The cache's entry for the pinned sources: the one for the installed Go if there is a Go, else any.
    pub(super) fn cached(&self) -> Option<PathBuf> {
        let root = self.root()?;
        if let Some(go) = go_version() {
            let entry = root.join(self.entry_name(&go));
            return self.is_complete(&entry).then_some(entry);
        }
        let prefix = format!("{}-", self.sources_key());
        let mut entries: Vec<PathBuf> = fs::read_dir(&root)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .filter(|path| self.is_complete(path))
            .collect();
        entries.sort();
        entries.pop()
    }

    fn root(&self) -> Option<PathBuf> {
        cache_root().map(|base| base.join(self.directory))
    }

    fn is_complete(&self, entry: &Path) -> bool {
        self.programs
            .iter()
            .all(|program| is_program(&entry.join(program.name)))
    }

    /// `KEY-go1.26.8-linux-amd64`: everything the bytes of the programs depend on.
    pub(super) fn entry_name(&self, go: &str) -> String {
        let go: String = go
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .collect();
        format!("{}-{go}", self.sources_key())
    }

    fn sources_key(&self) -> String {
        let mut inputs = vec![
            env::consts::OS.to_owned(),
            env::consts::ARCH.to_owned(),
            BUILD_FLAGS.join(" "),
        ];
        for module in self.modules() {
            inputs.extend([module.go_mod.to_owned(), module.go_sum.to_owned(), link_flags(module)]);
            inputs.extend(module.sources.iter().map(|(_, content)| (*content).to_owned()));
        }
        digest(&inputs)
    }

    /// Each module once, in the order of its first program.
    fn modules(&self) -> Vec<&'static Module> {
        let mut modules: Vec<&'static Module> = Vec::new();
        for program in &self.programs {
            if modules.iter().all(|module| module.name != program.module.name) {
                modules.push(program.module);
            }
        }
        modules
    }
}

/// `${LEANSERVE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/leanserve}`.
#[must_use]
pub fn cache_root() -> Option<PathBuf> {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("LEANSERVE_CACHE")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("leanserve")))
        .or_else(|| Some(path("HOME")?.join(".cache/leanserve")))
}

/// What `go version` says after its own name, such as `go1.26.8 linux/amd64`.
fn go_version() -> Option<String> {
    let output = Command::new("go")
        .arg("version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("go version ").map(str::to_owned)
}

/// The first 16 hex digits of a SHA-256 over the parts, each with its length so that they cannot run together.
pub(super) fn digest(parts: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = String::with_capacity(16);
    for byte in &hash.finalize()[..8] {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// Linker flags: no symbols, and the version of Kubernetes that go.mod names.
pub(super) fn link_flags(module: &Module) -> String {
    let mut flags = "-s -w".to_owned();
    let Some(version) = kubernetes_version(module.go_mod) else {
        return flags;
    };
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    for package in STAMPED {
        for (variable, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            // Writing to a String cannot fail.
            let _ = write!(flags, " -X {package}.{variable}={value}");
        }
    }
    flags
}

pub(super) fn kubernetes_version(go_mod: &str) -> Option<&str> {
    go_mod
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes ")
        })
        .and_then(|rest| rest.split_whitespace().next())
}

/// Builds one program: (module directory, output, log).
type Build<'a> = dyn Fn(&Program, &Path, &Path, &mut dyn FnMut(Duration)) -> Result<(), AssetsError> + 'a;

impl Set {
    /// Fills the cache's entry `name` under `root` unless it is complete, and returns it.
    ///
    /// Programs are built into `NAME.partial`, each renamed when it is whole, so that an interrupted build goes on where it
    /// stopped; the directory gets its name when it is complete.
    pub(super) fn fill(
        &self,
        root: &Path,
        name: &str,
        progress: &mut dyn Write,
        build: &Build<'_>,
    ) -> Result<PathBuf, AssetsError> {
        let title = self.title;
        fs::create_dir_all(root).map_err(context(format!("creating {}", root.display())))?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).map_err(context(format!("creating {}", lock_path.display())))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(
                    progress,
                    &format!("{title}: another process is building; waiting for it"),
                );
                lock.lock()
                    .map_err(context(format!("locking {}", lock_path.display())))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(context(format!("locking {}", lock_path.display()))(error));
            }
        }
        let entry = root.join(name);
        if self.is_complete(&entry) {
            return Ok(entry);
        }
        let partial = root.join(format!("{name}.partial"));
        fs::create_dir_all(&partial).map_err(context(format!("creating {}", partial.display())))?;
        let started = Instant::now();
        for (index, program) in self.programs.iter().enumerate() {
            let output = partial.join(program.name);
            if output.exists() {
                continue;
            }
            let step = format!("{} ({} of {})", program.name, index + 1, self.programs.len());
            let elapsed = started.elapsed().as_secs();
            say(progress, &format!("{title}: building {step}, {elapsed} s elapsed"));
            let scratch = partial.join(format!(".{}", program.name));
            build(program, &partial, &scratch, &mut |elapsed| {
                let elapsed = elapsed.as_secs();
                say(progress, &format!("{title}: still building {step}, {elapsed} s so far"));
            })?;
            fs::rename(&scratch, &output).map_err(context(format!("naming {}", output.display())))?;
        }
        for module in self.modules() {
            // Only inputs of the build; may be absent when every program was there already.
            let _ = fs::remove_dir_all(partial.join(format!("{}.module", module.name)));
        }
        // An incomplete directory of that name can only come from someone removing files in it.
        let _ = fs::remove_dir_all(&entry);
        fs::rename(&partial, &entry).map_err(context(format!("naming {}", entry.display())))?;
        let elapsed = started.elapsed().as_secs();
        say(progress, &format!("{title}: built in {elapsed} s: {}", entry.display()));
        Ok(entry)
    }
}

/// A line of progress; a terminal that is gone must not fail a build.
fn say(progress: &mut dyn Write, line: &str) {
    let _ = writeln!(progress, "{line}");
}

fn build_program(
    program: &Program,
    partial: &Path,
    output: &Path,
    heartbeat: &mut dyn FnMut(Duration),
) -> Result<(), AssetsError> {
    let module = program.module;
    let directory = partial.join(format!("{}.module", module.name));
    let written = fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join("go.mod"), module.go_mod))
        .and_then(|()| fs::write(directory.join("go.sum"), module.go_sum))
        .and_then(|()| {
            module.sources.iter().try_for_each(|(name, content)| {
                let path = directory.join(name);
                fs::create_dir_all(path.parent().unwrap_or(&directory))?;
                fs::write(path, content)
            })
        });
    written.map_err(context(format!("writing {}", directory.display())))?;

    let log_path = directory.join(format!("{}.log", program.name));
    let log = File::create(&log_path).map_err(context(format!("creating {}", log_path.display())))?;
    let mut command = process::tied("go");
    command
        .arg("build")
        .args(BUILD_FLAGS)
        .arg(format!("-ldflags={}", link_flags(module)))
        .arg("-o")
        .arg(output)
        .arg(program.package)
        .current_dir(&directory)
        .env("CGO_ENABLED", "0")
        // A workspace file above the cache must not replace the pinned versions.
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let started = Instant::now();
    let mut child = process::spawn(command).map_err(context("starting `go build`"))?;
    let (done, ended) = mpsc::sync_channel(1);
    let waiter = std::thread::spawn(move || {
        let _ = done.send(child.wait());
    });
    let status = loop {
        match ended.recv_timeout(HEARTBEAT) {
            Ok(status) => break status.map_err(context("waiting for `go build`"))?,
            Err(mpsc::RecvTimeoutError::Timeout) => heartbeat(started.elapsed()),
            Err(mpsc::RecvTimeoutError::Disconnected) => unreachable!("the waiter sends before it ends"),
        }
    };
    waiter.join().expect("the waiter does not panic");
    if status.success() {
        return Ok(());
    }
    Err(AssetsError::Build {
        component: program.name,
        status: status.to_string(),
        output: process::tail(&log_path, 20),
    })
}
