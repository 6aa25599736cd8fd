//! One recorded case.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Objects, Step,
    documents::{read_document, read_documents, read_text},
    steps::WrittenStep,
};

/// How much a case matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// What every user needs.
    A,
    /// What many users need.
    B,
    /// What few users need.
    C,
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        };
        formatter.pad(letter)
    }
}

/// A case: what it is about, its steps, and where its files are.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number.
    pub id: String,
    /// The name of its folder, `ID-SLUG`.
    pub folder: String,
    /// What it pins.
    pub description: String,
    /// How much it matters.
    pub tier: Tier,
    /// What it is about, in a word.
    pub area: String,
    /// The file in `config/` with the platform's settings.
    pub config: String,
    /// The namespace it was recorded in; host names and arguments carry it.
    pub namespace: String,
    /// Further labels of that namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Whether it needs the cluster for itself.
    pub exclusive: bool,
    /// Whether `KServe` was started with its Gateway API support on.
    pub gateway_at_startup: bool,
    /// What is done.
    pub steps: Vec<Step>,
    path: PathBuf,
}

/// `case.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    id: String,
    description: String,
    tier: Tier,
    area: String,
    config: String,
    namespace: String,
    #[serde(default)]
    namespace_labels: BTreeMap<String, String>,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    gateway_at_startup: bool,
    steps: Vec<WrittenStep>,
}

impl Case {
    /// Reads the case in a folder.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let file = path.join("case.yaml");
        let written: Written = read_document(&file)?;
        let steps = written.steps.into_iter().enumerate().map(|(index, step)| {
            step.try_into()
                .map_err(|reason| Error::content(&file, format!("step {}: {reason}", index + 1)))
        });
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            id: written.id,
            folder,
            description: written.description,
            tier: written.tier,
            area: written.area,
            config: written.config,
            namespace: written.namespace,
            namespace_labels: written.namespace_labels,
            exclusive: written.exclusive,
            gateway_at_startup: written.gateway_at_startup,
            steps: steps.collect::<Result<_, _>>()?,
            path: path.to_owned(),
        })
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The objects of one of its input files.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn input(&self, file: &str) -> Result<Vec<Value>, Error> {
        read_documents(&self.path.join(file))
    }

    /// What was recorded under this name: a folder of JSON files, or one YAML file that holds all of them by name.
    ///
    /// # Errors
    ///
    /// When there is neither, or it cannot be read.
    pub fn expectation(&self, name: &str) -> Result<Objects, Error> {
        let folder = self.path.join(name);
        if !folder.is_dir() {
            return read_document(&self.path.join(format!("{name}.yaml")));
        }
        let mut objects = Objects::new();
        for entry in folder.read_dir().map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let Some(stem) = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".json"))
                .map(str::to_owned)
            else {
                return Err(Error::content(&path, "only JSON files belong here"));
            };
            let object =
                serde_json::from_str(&read_text(&path)?).map_err(|error| Error::content(&path, error.to_string()))?;
            objects.insert(stem, object);
        }
        Ok(objects)
    }

    /// The API server's message in a file of a refusal.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn refusal(&self, file: &str) -> Result<String, Error> {
        Ok(read_text(&self.path.join(file))?.trim_end().to_owned())
    }
}
