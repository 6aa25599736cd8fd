//! containerd, runc and what they need: those on the machine, else Debian packages unpacked into the cache.
//!
//! Packages are unpacked and not installed, so that no service starts and nothing of the machine changes. apt verifies
//! them by the distribution's own keys.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use testkit::assets::cache_root;

use crate::{Failure, context};

/// What is fetched: the programs, and the libraries of theirs that a small installation lacks.
const PACKAGES: [&str; 13] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "nftables",
    "conntrack",
    "libnftables1",
    "libnftnl11",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libmnl0",
    "libxtables12",
    "libedit2",
    "libjansson4",
];
/// What must be found for the machine's own programs to be used.
const PROGRAMS: [&str; 4] = ["containerd", "ctr", "runc", "nft"];
/// Where distributions and containerd's own archives keep network plugins.
const PLUGIN_DIRECTORIES: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Where the programs are.
pub(crate) struct Runtime {
    /// The root of unpacked packages; `None` for the machine's own.
    root: Option<PathBuf>,
    plugins: PathBuf,
}

impl Runtime {
    /// The machine's own if they are complete, else the cache's, which is filled if it must be.
    pub(crate) fn find_or_fetch() -> Result<Self, Failure> {
        if let Some(runtime) = Self::of_machine() {
            return Ok(runtime);
        }
        let cache = cache_root().ok_or_else(|| {
            Failure::Machine("no cache directory: set LEANSERVE_CACHE, XDG_CACHE_HOME or HOME".to_owned())
        })?;
        // One directory for each release of the distribution.
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |key: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let name = format!("{}-{}-{}", value("ID"), value("VERSION_ID"), env::consts::ARCH);
        let root = cache.join("node-packages").join(name);
        if !root.join("complete").exists() {
            fetch(&root)?;
        }
        let plugins = root.join("usr/lib/cni");
        Ok(Self {
            root: Some(root),
            plugins,
        })
    }

    fn of_machine() -> Option<Self> {
        let path = env::var_os("PATH")?;
        let found = |program: &str| env::split_paths(&path).any(|directory| directory.join(program).is_file());
        let plugins = PLUGIN_DIRECTORIES
            .iter()
            .map(Path::new)
            .find(|directory| directory.join("ptp").is_file())?;
        PROGRAMS.iter().all(|program| found(program)).then(|| Self {
            root: None,
            plugins: plugins.to_owned(),
        })
    }

    /// The directory of network plugins.
    pub(crate) fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// Environment under which the programs are found and find their libraries.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some(root) = &self.root else { return Vec::new() };
        let own = env::var_os("PATH").unwrap_or_default();
        let directories = ["usr/bin", "usr/sbin", "sbin", "bin"].map(|directory| root.join(directory));
        let libraries = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
        let mut environment = vec![("LD_LIBRARY_PATH", root.join(libraries).into_os_string())];
        if let Ok(path) = env::join_paths(directories.into_iter().chain(env::split_paths(&own))) {
            environment.push(("PATH", path));
        }
        environment
    }
}

fn fetch(root: &Path) -> Result<(), Failure> {
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(context(format!("creating {}", parent.display())))?;
    let _ = writeln!(io::stderr(), "cluster: fetching {}", PACKAGES.join(" "));
    let scratch = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(parent)
        .map_err(context("making a directory"))?;
    let archives = scratch.path().join("archives");
    let tree = scratch.path().join("root");
    fs::create_dir_all(&archives)
        .and_then(|()| fs::create_dir_all(&tree))
        .map_err(context("making a directory"))?;
    if download(&archives).is_err() {
        // A new machine has no lists of packages yet.
        run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        download(&archives)?;
    }
    for entry in fs::read_dir(&archives).map_err(context("reading packages"))?.flatten() {
        run(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(&tree))?;
    }
    fs::write(tree.join("complete"), "").map_err(context("marking packages complete"))?;
    // An incomplete directory of that name is of no use.
    let _ = fs::remove_dir_all(root);
    fs::rename(&tree, root).map_err(context(format!("naming {}", root.display())))
}

fn download(archives: &Path) -> Result<(), Failure> {
    run(Command::new("apt-get")
        .args(["download", "--quiet=2"])
        .args(PACKAGES)
        .current_dir(archives))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let missing = "install containerd, runc, nftables and the CNI plugins, or use a machine with apt";
    let output = command
        .output()
        .map_err(|error| Failure::Machine(format!("{program}: {error}; {missing}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Program {
        what: program,
        reason: format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
    })
}
