//! The programs of a control plane: found where the user has them, else built once from pinned sources.
//!
//! Looked for in this order:
//!
//! 1. `KUBEBUILDER_ASSETS`, when it holds etcd, kube-apiserver and kubectl;
//! 2. the store of `setup-envtest`, when a version there holds every component;
//! 3. the project's cache, `${LEANSERVE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/leanserve}/control-plane/KEY`, which
//!    [`find_or_build`] fills when it is empty.
//!
//! Components that the first place lacks (`KUBEBUILDER_ASSETS` has no scheduler) come from the third.

mod build;
mod find;
mod go;
mod kserve;
mod node;

use std::{io, path::PathBuf};

pub use self::build::find_or_build;
pub use self::kserve::{KServe, find_or_build_kserve};
pub use self::node::{NodePrograms, find_or_build_node};
pub use self::{find::find, go::cache_root};

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Deployments, garbage collection, autoscaling and the like.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The client, of the server's version.
    Kubectl,
    /// The simulated kubelet.
    Kwok,
}

impl Component {
    /// Every component, in the order they are built.
    pub const ALL: [Self; 6] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::Kwok,
    ];

    /// The file name of the program, and how its processes and logs are called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Kwok => "kwok",
        }
    }

    /// The Go package it is built from.
    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Assets {
    paths: [PathBuf; Component::ALL.len()],
}

impl Assets {
    /// The program's path.
    #[must_use]
    pub fn path(&self, component: Component) -> &PathBuf {
        // The order of `paths` is that of `ALL`, which is that of the variants.
        &self.paths[component as usize]
    }

    /// The directory that holds all of them, when one does.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        let first = self.paths[0].parent()?;
        self.paths
            .iter()
            .all(|path| path.parent() == Some(first))
            .then(|| first.to_owned())
    }
}

/// Why the programs are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetsError {
    /// No Go toolchain to build with.
    #[error(
        "`go` was not found: install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a directory with etcd, \
         kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and kwok"
    )]
    NoGo,
    /// Neither `LEANSERVE_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no cache directory: set LEANSERVE_CACHE, XDG_CACHE_HOME or HOME")]
    NoCacheDirectory,
    /// A build failed; the text is the end of what `go` said.
    #[error("building {component} failed ({status}):\n{output}")]
    Build {
        /// The program that was built.
        component: &'static str,
        /// How `go build` ended.
        status: String,
        /// The last lines of its output.
        output: String,
    },
    /// The file system or a process refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Names what was attempted in an I/O error.
fn context(what: impl Into<String>) -> impl FnOnce(io::Error) -> AssetsError {
    let what = what.into();
    move |source| AssetsError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::Component;

    #[test]
    fn components_index_their_own_paths() {
        for (index, component) in Component::ALL.into_iter().enumerate() {
            assert_eq!(component as usize, index);
        }
    }
}
