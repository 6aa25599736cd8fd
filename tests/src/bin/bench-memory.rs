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
    match run(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            // Nothing can be done where standard error is closed; the exit code still tells.
            let _ = writeln!(io::stderr(), "\nThe benchmark failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    program::leave_other_clusters_alone()?;
    let size = memory::Size {
        secrets: arguments.secrets,
        services: arguments.services,
        runs: arguments.runs.get(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut out = io::stdout();
    let measured = runtime.block_on(memory::run(&mut out, size));
    // A build or a start that was interrupted goes on in a thread; nothing waits for it, and what it started ends with
    // this process.
    runtime.shutdown_background();
    let report = measured?;
    let path = report.write()?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    let failures = report.failures();
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let _ = writeln!(io::stderr(), "\nNot as it should be: {}", failures.join("; "));
    Ok(ExitCode::FAILURE)
}
