//! YAML as the recordings have it.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// All documents of a YAML text. Only `true` and `false` are booleans: `n` and `no` are names in these files.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_documents<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

/// All documents of a YAML file, as [`parse_documents`].
///
/// # Errors
///
/// When the file cannot be read or is not YAML.
pub fn read_documents(path: &Path) -> Result<Vec<Value>, Error> {
    parse_documents(&read_text(path)?).map_err(|reason| Error::content(path, reason))
}

/// The only document of a YAML file.
pub(crate) fn read_document<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let mut documents = parse_documents(&read_text(path)?).map_err(|reason| Error::content(path, reason))?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        (None, _) => Err(Error::content(path, "it is empty")),
        (Some(_), false) => Err(Error::content(path, "it has more than one document")),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse_documents;

    #[test]
    fn words_that_old_yaml_takes_for_booleans_are_names() {
        let documents: Vec<Value> = parse_documents("name: n\nother: no\nyes: true\n---\n{}").expect("YAML");
        assert_eq!(documents, [json!({"name": "n", "other": "no", "yes": true}), json!({})]);
        assert!(parse_documents::<Value>("a: [").is_err());
    }
}
