//! `ClusterStorageContainer`: which container downloads which URIs.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{
    InvalidField, Meta,
    fields::{Fields, without_null},
};

/// A `ClusterStorageContainer`.
#[derive(Clone, Debug)]
pub struct StorageContainer {
    /// Metadata.
    pub meta: Meta,
    /// The core/v1 Container laid over the storage-initializer.
    pub container: Value,
    /// Which URIs it downloads.
    pub formats: Vec<UriFormat>,
    /// Whether it is used as an init container (and not as a job of the local model cache).
    pub init_container: bool,
    /// The declared workload type.
    pub workload_type: String,
    /// Whether one container can download several models.
    pub multi_model_download: bool,
    /// Disabled ones are never used.
    pub disabled: bool,
}

/// One entry of `supportedUriFormats`.
#[derive(Clone, Debug)]
pub enum UriFormat {
    /// The URI starts with this.
    Prefix(String),
    /// The expression is found somewhere in the URI.
    Pattern(Regex),
}

#[derive(Deserialize)]
struct RawFormat {
    prefix: Option<String>,
    regex: Option<String>,
}

impl StorageContainer {
    /// Reads the object without its metadata: `spec` and the top-level `disabled`.
    ///
    /// # Errors
    /// [`InvalidField`] names the first field that cannot be read, a bad regular expression among them.
    pub fn parse(meta: Meta, spec: Value, disabled: Option<bool>) -> Result<Self, InvalidField> {
        let mut fields = Fields::new("spec", without_null(spec))?;
        let raw: Vec<RawFormat> = fields.take("supportedUriFormats")?.unwrap_or_default();
        let mut formats = Vec::with_capacity(raw.len());
        for (index, format) in raw.into_iter().enumerate() {
            if let Some(prefix) = format.prefix.filter(|prefix| !prefix.is_empty()) {
                formats.push(UriFormat::Prefix(prefix));
            } else if let Some(pattern) = format.regex {
                let pattern = Regex::new(&pattern).map_err(|error| {
                    InvalidField::new(format!("spec.supportedUriFormats[{index}].regex"), error.to_string())
                })?;
                formats.push(UriFormat::Pattern(pattern));
            }
        }
        let workload_type = fields
            .take::<String>("workloadType")?
            .filter(|t| !t.is_empty())
            .unwrap_or_else(|| "initContainer".into());
        Ok(Self {
            meta,
            container: fields.take("container")?.unwrap_or_default(),
            formats,
            init_container: workload_type == "initContainer",
            workload_type,
            multi_model_download: fields.take("supportsMultiModelDownload")?.unwrap_or_default(),
            disabled: disabled.unwrap_or_default(),
        })
    }

    /// Whether it downloads `uri`.
    #[must_use]
    pub fn supports(&self, uri: &str) -> bool {
        self.formats.iter().any(|format| match format {
            UriFormat::Prefix(prefix) => uri.starts_with(prefix.as_str()),
            UriFormat::Pattern(pattern) => pattern.is_match(uri),
        })
    }
}
