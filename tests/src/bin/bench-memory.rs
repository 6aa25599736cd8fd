//! The memory benchmark, for a terminal: `make bench-memory`.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Parser;
use leanserve_tests::{Failure, bench::memory, program};

/// Measures the memory of leanserve and of a kube-rs reflector of all Secrets on one control plane.
#[derive(Parser)]
struct Arguments {
    /// Secrets that no service refers to.
    #[arg(long, env = "SECRETS", default_value_t = 8_000)]
    secrets: usize,
    /// `InferenceServices`, each with a Secret of its own.
    #[arg(long, env = "SERVICES", default_value_t = 100)]
    services: usize,
    /// Fresh processes for each figure.
    #[arg(long, env = "RUNS", default_value = "3")]
    runs: NonZeroUsize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::ended("The benchmark", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let size = memory::Size {
        secrets: arguments.secrets,
        services: arguments.services,
        runs: arguments.runs.get(),
    };
    let mut out = io::stdout();
    let report = program::block_on(memory::run(&mut out, size))?;
    let path = report.write()?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}
