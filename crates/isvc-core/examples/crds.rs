//! Writes the `CustomResourceDefinitions` as YAML, one file each, into the directory given as argument.
//!
//! `cargo run -p isvc-core --example crds -- deploy/kustomize/base/crds`

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("usage: crds DIRECTORY")?;
    for definition in isvc_core::crd::all() {
        let name = definition["metadata"]["name"].as_str();
        let (plural, group) = name
            .and_then(|name| name.split_once('.'))
            .ok_or("a definition without a name")?;
        let path = directory.join(format!("{group}_{plural}.yaml"));
        std::fs::write(path, serde_saphyr::to_string(&definition)?)?;
    }
    Ok(())
}
