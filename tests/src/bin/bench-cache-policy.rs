//! The benchmark of cache policies, for a terminal: `make bench-cache-policy`.

use std::{
    env,
    io::{self, Write},
    num::NonZeroUsize,
    process::{Command, ExitCode},
};

use clap::{Parser, ValueEnum};
use leanserve_tests::{
    bench::cache_policy::{self, Kind},
    program,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares the cache of kube-secret-access with others: hit rates, times and memory.
#[derive(Parser)]
struct Arguments {
    /// Seeds for hit rates, and repetitions for times and memory.
    #[arg(long, env = "RUNS", default_value = "5")]
    runs: NonZeroUsize,
    /// Only print the bytes that an entry of this one takes.
    #[arg(long, hide = true)]
    overhead: Option<Kind>,
}

fn main() -> ExitCode {
    program::ended("The benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    if let Some(kind) = arguments.overhead {
        writeln!(out, "{}", cache_policy::overhead(kind)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = cache_policy::run(&mut out, arguments.runs.get(), &overhead)?;
    let path = report.write()?;
    writeln!(out, "\n{}\nWritten to {}", report.machine, path.display())?;
    Ok(program::judged(&report.failures()))
}

/// From a process of its own, because memory that was freed is used again.
fn overhead(kind: Kind) -> io::Result<f64> {
    let name = kind.to_possible_value().map(|value| value.get_name().to_owned());
    let output = Command::new(env::current_exe()?)
        .arg("--overhead")
        .arg(name.unwrap_or_default())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(io::Error::other)
}
