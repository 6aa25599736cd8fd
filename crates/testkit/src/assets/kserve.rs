//! `KServe`'s own controller, as a pinned Go module.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use super::{
    AssetsError, context,
    go::{Module, Program, Set},
};

const KSERVE: Module = Module {
    name: "kserve",
    go_mod: include_str!("../../../../tools/kserve/go.mod"),
    go_sum: include_str!("../../../../tools/kserve/go.sum"),
    sources: &[],
};

const MODULE: &str = "github.com/kserve/kserve";

/// `KServe`'s controller and the sources it was built from.
#[derive(Clone, Debug)]
pub struct KServe {
    directory: PathBuf,
    sources: PathBuf,
}

impl KServe {
    /// The program `manager`.
    #[must_use]
    pub fn manager(&self) -> PathBuf {
        self.directory.join("manager")
    }

    /// The module's directory, with the manifests of the release in `config`.
    #[must_use]
    pub fn sources(&self) -> &Path {
        &self.sources
    }
}

/// `KServe`'s controller; builds it when it is missing, as [`find_or_build`](super::find_or_build) does.
///
/// # Errors
///
/// When something is missing to build with, or the build fails.
pub fn find_or_build_kserve(progress: &mut dyn Write) -> Result<KServe, AssetsError> {
    let directory = set().find_or_build(progress)?;
    let sources = sources(&directory)?;
    Ok(KServe { directory, sources })
}

fn set() -> Set {
    Set {
        title: "KServe",
        directory: "kserve",
        programs: vec![Program {
            name: "manager",
            package: "github.com/kserve/kserve/cmd/manager",
            module: &KSERVE,
        }],
    }
}

/// Where Go keeps the module; downloads it when it is not there any more.
fn sources(directory: &Path) -> Result<PathBuf, AssetsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Downloaded {
        dir: PathBuf,
    }
    let failed = || context("asking Go for the sources of KServe");
    let version = version(KSERVE.go_mod).expect("go.mod requires it");
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{MODULE}@{version}")])
        // Not in a module, or its go.mod would have a say.
        .current_dir(directory)
        .output()
        .map_err(failed())?;
    let downloaded: Downloaded = serde_json::from_slice(&output.stdout).map_err(|error| failed()(error.into()))?;
    Ok(downloaded.dir)
}

/// The version of the module that a go.mod requires.
fn version(go_mod: &str) -> Option<&str> {
    let mut lines = go_mod.lines().map(str::trim);
    lines.find_map(|line| {
        line.trim_start_matches("require ")
            .strip_prefix(MODULE)?
            .split_whitespace()
            .next()
    })
}

#[cfg(test)]
mod tests {
    use super::{KSERVE, set, version};

    #[test]
    fn the_program_is_one_of_its_module() {
        for program in set().programs {
            assert!(KSERVE.go_mod.contains(program.package), "{}", program.name);
        }
        let version = version(KSERVE.go_mod).expect("it is required");
        assert!(version.starts_with('v'), "{version}");
    }
}
