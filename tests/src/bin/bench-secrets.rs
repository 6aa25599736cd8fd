//! The benchmark of the library kube-secret-access, for a terminal: `make bench-secrets`.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::{Parser, builder::BoolishValueParser};
use leanserve_tests::{
    Failure,
    bench::secrets::{self, Part},
    program,
};

/// As the operator: a benchmark compares programs and not allocators.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures kube-secret-access beside a raw hyper client and kube-rs on one control plane.
#[derive(Parser)]
struct Arguments {
    /// Secrets of 4 kB.
    #[arg(long, env = "SECRETS", default_value_t = 8_000)]
    secrets: usize,
    /// Runs of each figure.
    #[arg(long, env = "RUNS", default_value = "5")]
    runs: NonZeroUsize,
    /// Scans 2 GB of Secrets too, which takes minutes and 8 GB of memory for the API server.
    #[arg(long, env = "BIG", value_parser = BoolishValueParser::new(), default_value = "false")]
    big: bool,
    /// Measures only this; the report is then shown and not written.
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<Part>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::ended("The benchmark", run(arguments))
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let whole = arguments.only.is_empty();
    let size = secrets::Size {
        secrets: arguments.secrets,
        runs: arguments.runs.get(),
        big: arguments.big,
        only: arguments.only,
    };
    let mut out = io::stdout();
    let report = program::block_on(secrets::run(&mut out, size))?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    if whole {
        writeln!(out, "Written to {}", report.write()?.display())?;
    }
    Ok(program::judged(&secrets::failures(&report)))
}
