//! Runs a real Kubernetes control plane on loopback, for tests and the demo, and leaves nothing behind.

mod commands;
mod directory;
mod identity;
mod nodes;
mod orders;
mod plane;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use testkit::assets::{self, Component};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::plane::{Failure, Plane};

/// A real Kubernetes control plane on loopback.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find the programs, or build them; prints the directory that holds them, or one path a line.
    Build {
        /// Those of a real node too.
        #[arg(long)]
        node: bool,
    },
    /// Start everything, print one line of JSON when it is ready, and serve until stdin ends or a signal comes.
    ///
    /// A line on stdin such as `stop kube-apiserver` is an order: stop, kill, start, pause or resume, and a component. It
    /// is answered by a line of JSON.
    Run(RunArguments),
}

/// What `run` starts.
#[derive(Args, Clone)]
struct RunArguments {
    /// Keep state, logs and credentials in this directory instead of a temporary one; it is not removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many simulated nodes there are; with none, kwok is not started.
    #[arg(long, default_value_t = 1)]
    kwok_nodes: u16,
    /// Start no scheduler.
    #[arg(long)]
    no_scheduler: bool,
    /// Run the controller manager without the `HorizontalPodAutoscaler` controller.
    #[arg(long)]
    no_hpa: bool,
    /// A further flag for kube-apiserver, such as `--apiserver-flag=--max-requests-inflight=5`. Repeatable.
    #[arg(long, allow_hyphen_values = true)]
    apiserver_flag: Vec<String>,
    /// Serve the API at this address, and as the Service `kubernetes`, for real nodes and their Pods; the kubelet's and
    /// kube-proxy's rights are there then. Without it the API is on loopback and no node can reach it.
    #[arg(long)]
    node_address: Option<Ipv4Addr>,
    /// Serve until a signal, whatever happens to stdin.
    #[arg(long)]
    ignore_stdin: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Build { node } => build(node),
        Command::Run(arguments) => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "control plane: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn build(node: bool) -> Result<(), Failure> {
    let assets = assets::find_or_build(&mut io::stderr())?;
    let mut out = io::stdout();
    let printed = match assets.directory() {
        Some(directory) => writeln!(out, "{}", directory.display()),
        None => Component::ALL
            .into_iter()
            .try_for_each(|component| writeln!(out, "{}", assets.path(component).display())),
    };
    printed.map_err(|error| Failure::io("writing to stdout", error))?;
    if node {
        let programs = assets::find_or_build_node(&mut io::stderr())?;
        let printed = writeln!(out, "{}", programs.directory().display());
        printed.map_err(|error| Failure::io("writing to stdout", error))?;
    }
    Ok(())
}

fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let assets = assets::find_or_build(&mut io::stderr())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("starting the runtime", error))?;
    let result = runtime.block_on(async {
        // Before anything starts: a signal during the start must stop what is there already.
        let (mut stop, mut orders) = requests(arguments.ignore_stdin)?;
        let mut plane = tokio::select! {
            plane = Plane::start(&assets, arguments) => plane?,
            _ = stop.recv() => return Ok(()),
        };
        print(&plane.description())?;
        let ended = loop {
            let order = tokio::select! {
                failure = plane.watch() => break Err(failure),
                _ = stop.recv() => break Ok(()),
                Some(order) = orders.recv() => order,
            };
            let reply = tokio::select! {
                reply = plane.obey(&order) => reply,
                _ = stop.recv() => break Ok(()),
            };
            if let Err(failure) = print(&reply) {
                break Err(failure);
            }
        };
        plane.stop();
        ended
    });
    // The thread that reads stdin cannot be interrupted; nothing waits for it.
    runtime.shutdown_background();
    result
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::io("writing to stdout", error))
}

/// A channel on which a message means: stop; and one with the lines of stdin.
fn requests(ignore_stdin: bool) -> Result<(mpsc::Receiver<()>, mpsc::Receiver<String>), Failure> {
    let (sender, receiver) = mpsc::channel(1);
    let (orders, ordered) = mpsc::channel(1);
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|error| Failure::io("listening for signals", error))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A full channel already says it.
                let _ = sender.try_send(());
            }
        });
    }
    if !ignore_stdin {
        if io::stdin().is_terminal() {
            let _ = writeln!(io::stderr(), "control plane: runs until Ctrl-C or Ctrl-D");
        }
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                // Nobody listens any more once the end has begun.
                let Ok(line) = line else { break };
                if orders.blocking_send(line).is_err() {
                    return;
                }
            }
            let _ = sender.blocking_send(());
        });
    }
    Ok((receiver, ordered))
}
