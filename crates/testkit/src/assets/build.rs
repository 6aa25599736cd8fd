//! Building the programs into the cache, once.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{
    Assets, AssetsError, Component, context,
    find::{Places, from_directories},
};
use crate::process;

/// A pinned Go module of tools: its directory name, go.mod and go.sum.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
}

const CONTROL_PLANE: Module = Module {
    name: "control-plane",
    go_mod: include_str!("../../../../tools/control-plane/go.mod"),
    go_sum: include_str!("../../../../tools/control-plane/go.sum"),
};
const KWOK: Module = Module {
    name: "kwok",
    go_mod: include_str!("../../../../tools/kwok/go.mod"),
    go_sum: include_str!("../../../../tools/kwok/go.sum"),
};

const BUILD_FLAGS: [&str; 3] = ["-mod=readonly", "-trimpath", "-buildvcs=false"];

/// Without a version of its own the server reports v0.0.0-master, which clients cannot compare.
const STAMPED: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];

/// How often a long build says that it is still at it.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The programs; builds what is missing, with lines of progress, under a lock so that one process builds for all.
///
/// # Errors
///
/// When something is missing to build with, or a build fails.
pub fn find_or_build(progress: &mut dyn Write) -> Result<Assets, AssetsError> {
    let places = Places::from_environment();
    if let Some(assets) = places.complete() {
        return Ok(assets);
    }
    // What is in the cache needs no Go toolchain.
    if let Some(assets) = cached().and_then(|cache| places.with_cache(&cache)) {
        return Ok(assets);
    }
    let go = go_version().ok_or(AssetsError::NoGo)?;
    let root = cache_root().ok_or(AssetsError::NoCacheDirectory)?;
    let cache = fill(&root, &entry_name(&go), progress, &build_component)?;
    places.with_cache(&cache).ok_or_else(|| AssetsError::Io {
        what: format!("{} is incomplete; remove it", cache.display()),
        source: io::Error::from(io::ErrorKind::NotFound),
    })
}

/// The cache's entry for the pinned sources: the one for the installed Go if there is a Go, else any.
pub(super) fn cached() -> Option<PathBuf> {
    let root = cache_root()?;
    if let Some(go) = go_version() {
        let entry = root.join(entry_name(&go));
        return from_directories(&[&entry]).map(|_| entry);
    }
    let prefix = format!("{}-", sources_key());
    let mut entries: Vec<PathBuf> = fs::read_dir(&root)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .filter(|path| from_directories(&[path]).is_some())
        .collect();
    entries.sort();
    entries.pop()
}

fn cache_root() -> Option<PathBuf> {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = path("LEANSERVE_CACHE")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("leanserve")))
        .or_else(|| Some(path("HOME")?.join(".cache/leanserve")))?;
    Some(base.join("control-plane"))
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

/// `KEY-go1.26.8-linux-amd64`: everything the bytes of the programs depend on.
fn entry_name(go: &str) -> String {
    let go: String = go
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    format!("{}-{go}", sources_key())
}

fn sources_key() -> String {
    let mut inputs = vec![
        env::consts::OS.to_owned(),
        env::consts::ARCH.to_owned(),
        BUILD_FLAGS.join(" "),
    ];
    for module in [&CONTROL_PLANE, &KWOK] {
        inputs.extend([module.go_mod.to_owned(), module.go_sum.to_owned(), link_flags(module)]);
    }
    digest(&inputs)
}

/// The first 16 hex digits of a SHA-256 over the parts, each with its length so that they cannot run together.
fn digest(parts: &[String]) -> String {
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

fn module_of(component: Component) -> &'static Module {
    match component {
        Component::Etcd
        | Component::KubeApiserver
        | Component::KubeControllerManager
        | Component::KubeScheduler
        | Component::Kubectl => &CONTROL_PLANE,
        Component::Kwok => &KWOK,
    }
}

/// Linker flags: no symbols, and the version of Kubernetes that go.mod names.
fn link_flags(module: &Module) -> String {
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

fn kubernetes_version(go_mod: &str) -> Option<&str> {
    go_mod
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes ")
        })
        .and_then(|rest| rest.split_whitespace().next())
}

/// Builds one component: (module directory, output, log).
type Build<'a> = dyn Fn(Component, &Path, &Path, &mut dyn FnMut(Duration)) -> Result<(), AssetsError> + 'a;

/// Fills the cache's entry `name` under `root` unless it is complete, and returns it.
///
/// Programs are built into `NAME.partial`, each renamed when it is whole, so that an interrupted build goes on where it
/// stopped; the directory gets its name when it is complete.
fn fill(root: &Path, name: &str, progress: &mut dyn Write, build: &Build<'_>) -> Result<PathBuf, AssetsError> {
    fs::create_dir_all(root).map_err(context(format!("creating {}", root.display())))?;
    let lock_path = root.join("lock");
    let lock = File::create(&lock_path).map_err(context(format!("creating {}", lock_path.display())))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(progress, "control plane: another process is building; waiting for it");
            lock.lock()
                .map_err(context(format!("locking {}", lock_path.display())))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(context(format!("locking {}", lock_path.display()))(error));
        }
    }
    let entry = root.join(name);
    if from_directories(&[&entry]).is_some() {
        return Ok(entry);
    }
    let partial = root.join(format!("{name}.partial"));
    fs::create_dir_all(&partial).map_err(context(format!("creating {}", partial.display())))?;
    let started = Instant::now();
    let total = Component::ALL.len();
    for (index, component) in Component::ALL.into_iter().enumerate() {
        let output = partial.join(component.name());
        if output.exists() {
            continue;
        }
        let step = format!("{} ({} of {total})", component.name(), index + 1);
        say(
            progress,
            &format!(
                "control plane: building {step}, {} s elapsed",
                started.elapsed().as_secs()
            ),
        );
        let scratch = partial.join(format!(".{}", component.name()));
        build(component, &partial, &scratch, &mut |elapsed| {
            say(
                progress,
                &format!("control plane: still building {step}, {} s so far", elapsed.as_secs()),
            );
        })?;
        fs::rename(&scratch, &output).map_err(context(format!("naming {}", output.display())))?;
    }
    for module in [&CONTROL_PLANE, &KWOK] {
        // Only inputs of the build; may be absent when every program was there already.
        let _ = fs::remove_dir_all(partial.join(format!("{}.module", module.name)));
    }
    // An incomplete directory of that name can only come from someone removing files in it.
    let _ = fs::remove_dir_all(&entry);
    fs::rename(&partial, &entry).map_err(context(format!("naming {}", entry.display())))?;
    say(
        progress,
        &format!(
            "control plane: built in {} s: {}",
            started.elapsed().as_secs(),
            entry.display()
        ),
    );
    Ok(entry)
}

/// A line of progress; a terminal that is gone must not fail a build.
fn say(progress: &mut dyn Write, line: &str) {
    let _ = writeln!(progress, "{line}");
}

fn build_component(
    component: Component,
    partial: &Path,
    output: &Path,
    heartbeat: &mut dyn FnMut(Duration),
) -> Result<(), AssetsError> {
    let module = module_of(component);
    let directory = partial.join(format!("{}.module", module.name));
    let written = fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join("go.mod"), module.go_mod))
        .and_then(|()| fs::write(directory.join("go.sum"), module.go_sum));
    written.map_err(context(format!("writing {}", directory.display())))?;

    let log_path = directory.join(format!("{}.log", component.name()));
    let log = File::create(&log_path).map_err(context(format!("creating {}", log_path.display())))?;
    let mut command = process::tied("go");
    command
        .arg("build")
        .args(BUILD_FLAGS)
        .arg(format!("-ldflags={}", link_flags(module)))
        .arg("-o")
        .arg(output)
        .arg(component.package())
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
        component: component.name(),
        status: status.to_string(),
        output: process::tail(&log_path, 20),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        fs,
        os::unix::fs::PermissionsExt,
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::{
        AssetsError, CONTROL_PLANE, Component, KWOK, digest, entry_name, fill, from_directories, kubernetes_version,
        link_flags,
    };

    fn write_program(output: &Path) {
        fs::write(output, "program").unwrap();
        fs::set_permissions(output, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_key_is_that_of_every_input() {
        let parts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(digest(&parts(&["a", "b"])), digest(&parts(&["a", "b"])));
        assert_ne!(digest(&parts(&["a", "b"])), digest(&parts(&["ab", ""])));
        assert_eq!(digest(&parts(&["a"])).len(), 16);
        assert_ne!(entry_name("go1.26.8 linux/amd64"), entry_name("go1.26.9 linux/amd64"));
        assert!(entry_name("go1.26.8 linux/amd64").ends_with("-go1.26.8-linux-amd64"));
    }

    #[test]
    fn the_version_is_stamped_from_the_pin() {
        let version = kubernetes_version(CONTROL_PLANE.go_mod).unwrap();
        let flags = link_flags(&CONTROL_PLANE);
        assert!(
            flags.contains(&format!("k8s.io/component-base/version.gitVersion={version}")),
            "{flags}"
        );
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert_eq!(link_flags(&KWOK), "-s -w");
        for component in Component::ALL {
            let module = super::module_of(component);
            assert!(
                module.go_mod.contains(component.package()),
                "{} is no tool of its module",
                component.name()
            );
        }
    }

    #[test]
    fn a_build_goes_on_where_it_was_interrupted() {
        let root = tempfile::tempdir().unwrap();
        let built = RefCell::new(Vec::new());
        let mut progress = Vec::new();
        let broken = |component: Component, _: &Path, output: &Path, _: &mut dyn FnMut(_)| {
            // A killed build leaves something half-written behind.
            fs::write(output, "half").unwrap();
            if component == Component::KubeScheduler {
                return Err(AssetsError::NoGo);
            }
            write_program(output);
            built.borrow_mut().push(component);
            Ok(())
        };
        assert!(fill(root.path(), "key", &mut progress, &broken).is_err());
        assert_eq!(built.borrow().len(), 3);
        assert!(!root.path().join("key").exists());

        let works = |component: Component, _: &Path, output: &Path, heartbeat: &mut dyn FnMut(std::time::Duration)| {
            heartbeat(std::time::Duration::from_secs(31));
            write_program(output);
            built.borrow_mut().push(component);
            Ok(())
        };
        let entry = fill(root.path(), "key", &mut progress, &works).unwrap();
        assert_eq!(*built.borrow(), Component::ALL);
        assert!(from_directories(&[&entry]).is_some());
        assert!(!root.path().join("key.partial").exists());
        let progress = String::from_utf8(progress).unwrap();
        assert!(progress.contains("building kube-scheduler (4 of 6)"), "{progress}");
        assert!(
            progress.contains("still building kwok (6 of 6), 31 s so far"),
            "{progress}"
        );

        let never = |_: Component, _: &Path, _: &Path, _: &mut dyn FnMut(_)| -> Result<(), AssetsError> {
            panic!("complete entries are not built again")
        };
        assert_eq!(fill(root.path(), "key", &mut Vec::new(), &never).unwrap(), entry);
    }

    #[test]
    fn of_many_that_want_the_same_one_builds() {
        let root = tempfile::tempdir().unwrap();
        let builds = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let build = |_: Component, _: &Path, output: &Path, _: &mut dyn FnMut(_)| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        write_program(output);
                        Ok(())
                    };
                    fill(root.path(), "key", &mut Vec::new(), &build).unwrap();
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), Component::ALL.len());
    }
}
