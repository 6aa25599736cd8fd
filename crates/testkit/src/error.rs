//! What goes wrong with the test kit itself.

use std::io;

use crate::eventually::NotYet;

/// Why the test kit could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The control plane did not start; its own words are on the terminal.
    #[error("the control plane did not start: {0}")]
    Start(String),
    /// The control plane ended with a failure; its own words are on the terminal.
    #[error("the control plane ended with a failure: {0}")]
    Stop(String),
    /// The control plane did not do something to one of its components.
    #[error("the control plane did not {order}: {reason}")]
    Order {
        /// What was asked.
        order: String,
        /// Why not.
        reason: String,
    },
    /// `cargo build` failed.
    #[error("cargo build of {program} failed: {reason}")]
    Build {
        /// The program.
        program: String,
        /// How it failed.
        reason: String,
    },
    /// The API server refused or could not be reached.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// A kubeconfig could not be read or used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// `kubectl` failed.
    #[error("kubectl {arguments} failed ({status}): {stderr}")]
    Kubectl {
        /// What it was called with.
        arguments: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The file system or a process refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something did not come true in time.
    #[error(transparent)]
    NotYet(#[from] NotYet),
}

impl Error {
    /// Names what was attempted in an I/O error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
