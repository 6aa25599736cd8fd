//! The cgroups of a cluster's Pods: made before the kubelet starts, removed once nothing runs in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Where Linux distributions mount the hierarchies.
const ROOT: &str = "/sys/fs/cgroup";

/// The name of the cgroup of the cluster in this directory: the same for every cluster there, so that what one left is
/// found by the next.
pub(crate) fn name(directory: &Path) -> String {
    let hash = Sha256::digest(directory.as_os_str().as_encoded_bytes());
    let hash = u64::from_be_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes"));
    format!("leanserve-cluster-{hash:016x}")
}

/// The hierarchies: one in cgroup v2, one for each controller in v1.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![PathBuf::from(ROOT)];
    }
    fs::read_dir(ROOT)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("cgroup.procs").exists())
        // Names such as cpuacct may be links to one hierarchy.
        .filter(|path| !path.is_symlink())
        .collect()
}

/// Makes the cgroup in every hierarchy.
pub(crate) fn create(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        let cgroup = hierarchy.join(name);
        fs::create_dir_all(&cgroup)?;
        // In v1 a new cpuset has no processors and no memory, and takes no process until it has.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = cgroup.join(file);
            if hierarchy.ends_with("cpuset") && own.exists() {
                fs::write(own, fs::read(hierarchy.join(file))?)?;
            }
        }
        // In v2 a cgroup has the controllers that its parent gives away; kubelet gives them on below.
        let given = hierarchy.join("cgroup.subtree_control");
        if let Ok(controllers) = fs::read_to_string(hierarchy.join("cgroup.controllers")) {
            for controller in controllers.split_whitespace() {
                // The kernel refuses single controllers on some machines; kubelet says which it misses.
                let _ = fs::write(&given, format!("+{controller}"));
            }
        }
    }
    Ok(())
}

/// Removes the cgroup from every hierarchy, and says whether it is gone: one that holds processes stays.
pub(crate) fn remove(name: &str) -> bool {
    hierarchies()
        .iter()
        .map(|hierarchy| hierarchy.join(name))
        .filter(|cgroup| cgroup.exists() && !remove_tree(cgroup))
        .count()
        == 0
}

/// Removes a cgroup with all below it, as far as they are empty: the kernel refuses those that hold processes.
fn remove_tree(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(cgroup).is_ok()
}
