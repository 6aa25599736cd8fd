//! The demo, for a terminal: `make demo`.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use leanserve_tests::{Failure, demo, program};

/// Shows leanserve on a control plane of its own.
#[derive(Parser)]
struct Arguments {
    /// End when everything has been shown, instead of staying until Ctrl-C.
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing can be done where standard error is closed; the exit code still tells.
            let _ = writeln!(io::stderr(), "\nThe demo failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    program::leave_other_clusters_alone()?;
    let styled = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(demo::run(io::stdout(), styled, arguments.once));
    // A build or a start that was interrupted goes on in a thread; nothing waits for it, and what it started ends with
    // this process.
    runtime.shutdown_background();
    result
}
