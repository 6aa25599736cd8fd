//! The benchmark of many services, for a terminal: `make bench-scale`.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use leanserve_tests::{
    Failure,
    bench::scale::{self, Shapes},
    program,
};

/// Measures how leanserve builds and keeps many services, and a bare client that makes the same writes.
#[derive(Parser)]
struct Arguments {
    /// `InferenceServices`.
    #[arg(long, env = "N", default_value = "1000")]
    services: NonZeroUsize,
    /// `InferenceServices` of a second size, such as 5000, for what each of them takes.
    #[arg(long, env = "N2", default_value_t = 0)]
    more_services: usize,
    /// Which services there are.
    #[arg(long, env = "SHAPE", default_value = "both")]
    shape: ShapeFlag,
    /// Passes of the operator, and services of the bare client, at a time.
    #[arg(long, env = "AT_ONCE", default_value = "8")]
    at_once: NonZeroUsize,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShapeFlag {
    One,
    Four,
    Both,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::ended("The benchmark", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let size = scale::Size {
        services: arguments.services.get(),
        more_services: arguments.more_services,
        at_once: arguments.at_once.get(),
    };
    let shapes: &[Shapes] = match arguments.shape {
        ShapeFlag::One => &[Shapes::One],
        ShapeFlag::Four => &[Shapes::Four],
        ShapeFlag::Both => &[Shapes::One, Shapes::Four],
    };
    let mut out = io::stdout();
    let report = program::block_on(scale::run(&mut out, size, shapes))?;
    let path = report.write()?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}
