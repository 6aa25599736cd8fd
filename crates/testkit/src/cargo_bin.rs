//! Programs of this workspace, built when a test needs them.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;

use crate::Error;

/// The program `name` of the workspace's package `package`, built in the profile of the running program. It is built
/// once per process; Cargo itself decides whether there is anything to do.
///
/// # Errors
///
/// When Cargo cannot be run or the build fails; the compiler's words are on the terminal.
pub fn cargo_bin(package: &str, name: &str) -> Result<PathBuf, Error> {
    type Built = HashMap<(String, String), PathBuf>;
    static BUILT: Mutex<Option<Built>> = Mutex::new(None);

    // Held during the build: others want the same program, or would wait for Cargo's own lock.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let key = (package.to_owned(), name.to_owned());
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    let path = match of_this_test(package, name) {
        Some(path) => path,
        None => build(package, name)?,
    };
    built.insert(key, path.clone());
    Ok(path)
}

/// The program that Cargo has just built for the running integration test: those of the test's own package.
fn of_this_test(package: &str, name: &str) -> Option<PathBuf> {
    if env::var_os("CARGO_PKG_NAME")? != package {
        return None;
    }
    // Set when tests run since Cargo 1.94; before, only when they were compiled.
    let path = PathBuf::from(env::var_os(format!("CARGO_BIN_EXE_{name}"))?);
    path.is_file().then_some(path)
}

fn build(package: &str, name: &str) -> Result<PathBuf, Error> {
    let failed = |reason: String| Error::Build {
        program: format!("{package}/{name}"),
        reason,
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--package", package, "--bin", name])
        .arg("--manifest-path")
        .arg(workspace)
        .args(profile_arguments(
            &env::current_exe().map_err(Error::io("finding the running program"))?,
        ))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // What Cargo sets for the running test describes another package; build scripts that look at it would run again,
    // here and at the next `cargo test`.
    for (variable, _) in env::vars_os() {
        if variable.to_str().is_some_and(describes_package) {
            command.env_remove(variable);
        }
    }
    let output = command.output().map_err(Error::io("running cargo"))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    executable(&output.stdout, name).ok_or_else(|| failed("cargo names no executable".to_owned()))
}

fn describes_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || [
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "CARGO_TARGET_TMPDIR",
            "CARGO_MAKEFLAGS",
            "OUT_DIR",
        ]
        .contains(&variable)
}

/// The profile of a program that lies in `target/PROFILE/` or below its `deps` or `examples`.
fn profile_arguments(program: &Path) -> Vec<String> {
    let directory = program
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps") && !directory.ends_with("examples"))
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    match directory.as_deref() {
        Some("debug") | None => Vec::new(),
        Some(profile) => vec!["--profile".to_owned(), profile.to_owned()],
    }
}

/// The part of Cargo's messages that matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    serde_json::Deserializer::from_slice(messages)
        .into_iter::<Message>()
        .filter_map(Result::ok)
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == name))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{executable, profile_arguments};

    #[test]
    fn the_profile_is_that_of_the_running_program() {
        for (path, expected) in [
            ("/t/debug/deps/test-1234", vec![]),
            ("/t/debug/examples/hold", vec![]),
            ("/t/release/deps/test-1234", vec!["--profile", "release"]),
            ("/t/release/leanserve", vec!["--profile", "release"]),
            ("/t/bench/deps/x", vec!["--profile", "bench"]),
        ] {
            assert_eq!(profile_arguments(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn the_executable_is_the_one_of_the_target() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tool"},"executable":"/t/debug/tool"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages, "tool"), Some(PathBuf::from("/t/debug/tool")));
        assert_eq!(executable(messages, "other"), None);
    }
}
