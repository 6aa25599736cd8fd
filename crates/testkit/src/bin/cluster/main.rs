//! A one-node Kubernetes cluster without Docker: a real control plane and a real node that runs real containers.
//!
//! Everything lives in network, mount and process namespaces of its own, whose first process dies with the program
//! that holds them. So the kernel itself takes down every process, mount, network interface and packet filter rule, also
//! when the cluster is killed; what is left are empty cgroups and a directory, and the next command removes those.

mod cgroups;
mod files;
mod forward;
mod inside;
mod orders;
mod outside;
mod packages;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{ExitCode, Output},
};

use clap::{Args, Parser, Subcommand};

/// A one-node Kubernetes cluster without Docker. Needs root on Linux.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster and leave it running; prints one line of JSON that says what is where.
    Up(Place),
    /// End the cluster and remove everything it left.
    Down(Place),
    /// Load an image from an OCI archive into the node.
    Load {
        #[command(flatten)]
        place: Place,
        /// OCI archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Stop, kill, start, pause or resume a component of the control plane.
    Order {
        #[command(flatten)]
        place: Place,
        /// What to do.
        verb: String,
        /// With what, such as kube-apiserver.
        component: String,
    },
    /// The part of `up` that runs within the namespaces.
    #[command(hide = true)]
    Inside(InsideArguments),
}

/// Which cluster.
#[derive(Args, Clone)]
struct Place {
    /// Directory of its state, logs and kubeconfig.
    #[arg(long, default_value = "target/cluster")]
    dir: PathBuf,
}

#[derive(Args, Clone)]
struct InsideArguments {
    /// Directory of the cluster's state.
    #[arg(long)]
    dir: PathBuf,
    /// The program of this crate that runs a control plane.
    #[arg(long)]
    control_plane: PathBuf,
    /// Name of the cgroup that holds every Pod, below the root of each hierarchy.
    #[arg(long)]
    cgroup: String,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Something on the machine is not as it must be.
    #[error("{0}")]
    Machine(String),
    /// A program ended, or did not become ready.
    #[error("{what}: {reason}")]
    Program {
        /// Which, and what of it.
        what: String,
        /// What is known.
        reason: String,
    },
    /// Programs could not be built.
    #[error(transparent)]
    Assets(#[from] testkit::assets::AssetsError),
    /// The file system or a process refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Names what was attempted in an I/O error.
fn context(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    move |source| Failure::Io { what, source }
}

/// The reason when a program failed.
fn ended(what: &str, output: &Output) -> Result<(), Failure> {
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Program {
        what: what.to_owned(),
        reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(place) => outside::up(&place.dir).and_then(|description| print(&description)),
        Command::Down(place) => outside::down(&place.dir),
        Command::Load { place, archives } => archives
            .iter()
            .try_for_each(|archive| outside::load(&place.dir, archive)),
        Command::Order { place, verb, component } => {
            outside::order(&place.dir, &format!("{verb} {component}")).and_then(|reply| print(&reply))
        }
        Command::Inside(arguments) => inside::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "cluster: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(context("writing to stdout"))
}
