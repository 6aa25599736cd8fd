//! The demo, for a terminal: `make demo`.

use std::{
    env,
    io::{self, IsTerminal},
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
    program::ended("The demo", run(&arguments).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let styled = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    program::block_on(demo::run(io::stdout(), styled, arguments.once))
}
