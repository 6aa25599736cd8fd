//! Orders from outside: to load an image, or to do something to a component of the control plane.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{ChildStdin, ChildStdout},
    time::Duration,
};

use serde_json::json;
use testkit::process;

use crate::{Failure, context, ended, files::CONTAINERD_SOCKET};

/// How long the one line of an order may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program that owns the control plane, and the pipes on which it takes orders.
pub(crate) struct Plane {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: BufReader<ChildStdout>,
}

impl Plane {
    /// Passes an order on and gives the line that answers it.
    fn obey(&mut self, order: &str) -> io::Result<String> {
        writeln!(self.stdin, "{order}")?;
        let mut reply = String::new();
        self.stdout.read_line(&mut reply)?;
        Ok(reply)
    }
}

/// Loads images from OCI archives.
pub(crate) struct Loader {
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Loader {
    pub(crate) fn load(&self, archive: &Path) -> Result<(), Failure> {
        let output = process::tied("ctr")
            .envs(self.environment.iter().cloned())
            .args([
                "--address",
                CONTAINERD_SOCKET,
                "--namespace",
                "k8s.io",
                "images",
                "import",
            ])
            .arg(archive)
            .output()
            .map_err(context("running ctr"))?;
        ended(&format!("loading {}", archive.display()), &output)
    }
}

/// Takes orders on a socket, one after the other, for as long as this process lives.
pub(crate) fn take(socket: &Path, mut plane: Plane, loader: Loader) -> Result<(), Failure> {
    let listener = UnixListener::bind(socket).map_err(context("listening for orders"))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
        .map_err(context("protecting the socket of orders"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who gave the order may have gone.
            let _ = answer(stream, &mut plane, &loader);
        }
    });
    Ok(())
}

/// Answers one order: `load FILE` itself, everything else by the control plane's program.
fn answer(mut stream: UnixStream, plane: &mut Plane, loader: &Loader) -> io::Result<()> {
    let mut line = String::new();
    // Whoever connects says one line at once.
    stream.set_read_timeout(Some(PATIENCE))?;
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let reply = if let Some(archive) = line.trim().strip_prefix("load ") {
        match loader.load(Path::new(archive)) {
            Ok(()) => json!({"loaded": archive}).to_string(),
            Err(failure) => json!({"error": failure.to_string()}).to_string(),
        }
    } else {
        match plane.obey(line.trim()) {
            Ok(reply) => reply,
            Err(error) => json!({"error": error.to_string()}).to_string(),
        }
    };
    writeln!(stream, "{}", reply.trim())
}
