//! The programs of a real node and of the images that run on it, as pinned Go modules.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::{
    AssetsError,
    go::{Module, Program, Set},
};

const NODE: Module = Module {
    name: "node",
    go_mod: include_str!("../../../../tools/node/go.mod"),
    go_sum: include_str!("../../../../tools/node/go.sum"),
    sources: &[],
};
const DNS: Module = Module {
    name: "dns",
    go_mod: include_str!("../../../../tools/dns/go.mod"),
    go_sum: include_str!("../../../../tools/dns/go.sum"),
    sources: &[],
};
const IMAGES: Module = Module {
    name: "images",
    go_mod: include_str!("../../../../tools/images/go.mod"),
    // It needs the standard library only.
    go_sum: "",
    sources: &[
        ("pause/main.go", include_str!("../../../../tools/images/pause/main.go")),
        (
            "model-server/main.go",
            include_str!("../../../../tools/images/model-server/main.go"),
        ),
        (
            "storage-initializer/main.go",
            include_str!("../../../../tools/images/storage-initializer/main.go"),
        ),
    ],
};

/// The directory with the programs of a real node.
#[derive(Clone, Debug)]
pub struct NodePrograms {
    directory: PathBuf,
}

impl NodePrograms {
    /// The kubelet.
    #[must_use]
    pub fn kubelet(&self) -> PathBuf {
        self.directory.join("kubelet")
    }

    /// What makes Services reachable on the node.
    #[must_use]
    pub fn kube_proxy(&self) -> PathBuf {
        self.directory.join("kube-proxy")
    }

    /// The DNS server for Services.
    #[must_use]
    pub fn coredns(&self) -> PathBuf {
        self.directory.join("coredns")
    }

    /// A program of an image: `pause`, `model-server` or `storage-initializer`.
    #[must_use]
    pub fn image_program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where they all are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The programs of a real node; builds what is missing, as [`find_or_build`](super::find_or_build) does.
///
/// # Errors
///
/// When something is missing to build with, or a build fails.
pub fn find_or_build_node(progress: &mut dyn Write) -> Result<NodePrograms, AssetsError> {
    let directory = set().find_or_build(progress)?;
    Ok(NodePrograms { directory })
}

fn set() -> Set {
    let program = |name, package, module| Program { name, package, module };
    Set {
        title: "node",
        directory: "node",
        programs: vec![
            program("pause", "leanserve.dev/tools/images/pause", &IMAGES),
            program("model-server", "leanserve.dev/tools/images/model-server", &IMAGES),
            program(
                "storage-initializer",
                "leanserve.dev/tools/images/storage-initializer",
                &IMAGES,
            ),
            program("kubelet", "k8s.io/kubernetes/cmd/kubelet", &NODE),
            program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", &NODE),
            program("coredns", "github.com/coredns/coredns", &DNS),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::{DNS, IMAGES, NODE, set};

    #[test]
    fn every_program_is_one_of_its_module() {
        for program in set().programs {
            let module = program.module;
            let named = if module.name == IMAGES.name {
                module
                    .sources
                    .iter()
                    .any(|(path, _)| *path == format!("{}/main.go", program.name))
            } else {
                module.go_mod.contains(program.package)
            };
            assert!(named, "{} is no program of {}", program.name, module.name);
        }
    }

    #[test]
    fn the_node_is_of_the_version_of_the_control_plane() {
        let version = |go_mod: &'static str| super::super::go::kubernetes_version(go_mod).expect("it names one");
        let control_plane = include_str!("../../../../tools/control-plane/go.mod");
        assert_eq!(version(NODE.go_mod), version(control_plane));
        assert!(DNS.go_mod.contains("github.com/coredns/coredns"));
    }
}
