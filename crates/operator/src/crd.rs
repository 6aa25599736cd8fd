//! `leanserve crd`: the `CustomResourceDefinitions`, printed, written or compared.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use thiserror::Error;

use crate::args::CrdArgs;

/// Why definitions could not be printed, written or compared.
#[derive(Debug, Error)]
pub(crate) enum CrdError {
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot write YAML: {0}")]
    Yaml(String),
    #[error("{path} is not up to date: {problem}", path = path.display())]
    Stale { path: PathBuf, problem: String },
}

/// Does what the flags ask for; `out` is standard output.
pub(crate) fn run(args: &CrdArgs, out: &mut impl io::Write) -> Result<(), CrdError> {
    let definitions = isvc_core::crd::all();
    if let Some(directory) = &args.write {
        for definition in &definitions {
            let path = directory.join(file_name(definition));
            fs::write(&path, yaml(definition)?).map_err(|source| CrdError::Write { path, source })?;
        }
        return Ok(());
    }
    if let Some(directory) = &args.check {
        return definitions
            .iter()
            .try_for_each(|definition| check(directory, definition));
    }
    for definition in &definitions {
        out.write_all(b"---\n")?;
        out.write_all(yaml(definition)?.as_bytes())?;
    }
    Ok(out.flush()?)
}

fn check(directory: &Path, definition: &Value) -> Result<(), CrdError> {
    let path = directory.join(file_name(definition));
    let problem = match fs::read_to_string(&path) {
        Ok(found) if found == yaml(definition)? => return Ok(()),
        Ok(_) => "its content differs from what `leanserve crd --write` writes".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(CrdError::Stale { path, problem })
}

fn file_name(definition: &Value) -> String {
    let name = |pointer| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}_{}.yaml", name("/spec/group"), name("/spec/names/plural"))
}

fn yaml(definition: &Value) -> Result<String, CrdError> {
    serde_saphyr::to_string(definition).map_err(|error| CrdError::Yaml(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(write: Option<&Path>, check: Option<&Path>) -> CrdArgs {
        CrdArgs {
            write: write.map(Path::to_owned),
            check: check.map(Path::to_owned),
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_every_definition() {
        let mut printed = Vec::new();
        run(&args(None, None), &mut printed).expect("prints");
        let printed = String::from_utf8(printed).expect("text");
        let documents: Vec<&str> = printed.split("---\n").filter(|document| !document.is_empty()).collect();
        let definitions = isvc_core::crd::all();
        assert_eq!(documents.len(), definitions.len());
        // The smallest one stands for all: reading the big ones takes most of a minute without optimization.
        let pairs = documents.iter().zip(&definitions);
        let (document, definition) = pairs
            .min_by_key(|(document, _)| document.len())
            .expect("there are some");
        let read: Value = serde_saphyr::from_str(document).expect("YAML");
        assert_eq!(&read, definition);
    }

    #[test]
    fn written_files_pass_the_check_until_one_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        run(&args(Some(path), None), &mut io::sink()).expect("writes");
        run(&args(None, Some(path)), &mut io::sink()).expect("up to date");
        let first = fs::read_dir(path)
            .expect("readable")
            .next()
            .expect("one file")
            .expect("readable")
            .path();
        fs::write(&first, "changed").expect("writable");
        let stale = run(&args(None, Some(path)), &mut io::sink()).expect_err("one file differs");
        assert!(stale.to_string().contains("not up to date"), "{stale}");
        fs::remove_file(&first).expect("removable");
        assert!(run(&args(None, Some(path)), &mut io::sink()).is_err());
    }
}
