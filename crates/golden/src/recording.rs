//! A folder of cases.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Accepted, Case, Error, documents::read_documents};

/// A recording: `cases/`, `config/`, and the cluster-wide objects that every case sees in `cluster.yaml` or
/// `cluster/base.yaml`.
#[derive(Clone, Debug)]
pub struct Recording {
    root: PathBuf,
}

impl Recording {
    /// The recording in a folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All cases in the order of their folders.
    ///
    /// # Errors
    ///
    /// When one cannot be read, and when there is none.
    pub fn cases(&self) -> Result<Vec<Case>, Error> {
        let folder = self.root.join("cases");
        let entries = folder.read_dir().map_err(Error::io(&folder))?;
        let mut cases = Vec::new();
        for entry in entries {
            cases.push(Case::read(&entry.map_err(Error::io(&folder))?.path())?);
        }
        cases.sort_by(|a, b| a.folder.cmp(&b.folder));
        if cases.is_empty() {
            return Err(Error::content(&folder, "there is no case"));
        }
        Ok(cases)
    }

    /// The objects of a file in `config/`: `inferenceservice-config`, and other `ConfigMaps` of its namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn config(&self, file: &str) -> Result<Vec<Value>, Error> {
        read_documents(&self.root.join("config").join(file))
    }

    /// The cluster-wide objects.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn cluster(&self) -> Result<Vec<Value>, Error> {
        let one = self.root.join("cluster.yaml");
        if one.is_file() {
            return read_documents(&one);
        }
        read_documents(&self.root.join("cluster").join("base.yaml"))
    }

    /// The accepted differences.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub fn accepted(&self) -> Result<Accepted, Error> {
        Accepted::read(&self.root.join("accepted.yaml"))
    }
}
