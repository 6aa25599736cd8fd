//! The benchmark of policies, for a terminal: `make bench-policy`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use leanserve_tests::{
    Failure,
    bench::policy::{self, Sets},
    program,
};

/// Measures what policies take of each role, of the API server and of a write, and how fast deleted ones are gone.
#[derive(Parser)]
struct Arguments {
    /// How many policies, separated by commas, in ascending order.
    #[arg(long, env = "POLICIES", value_delimiter = ',', default_value = "0,87,1000,10000")]
    policies: Vec<usize>,
    /// How many are deleted at once; 0 leaves that out.
    #[arg(long, env = "DELETED", default_value_t = 1000)]
    deleted: usize,
    /// How many services are audited, separated by commas; 0 leaves that out.
    #[arg(long, env = "SERVICES", value_delimiter = ',', default_value = "1000,10000")]
    services: Vec<usize>,
    /// How many reviews the webhook is asked for at once; 0 leaves that out.
    #[arg(long, env = "REVIEWS", default_value_t = 10_000)]
    reviews: usize,
    /// How many different parameters they have.
    #[arg(long, env = "SETS", default_value = "both")]
    sets: SetsFlag,
}

#[derive(Clone, Copy, ValueEnum)]
enum SetsFlag {
    Few,
    Distinct,
    Both,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::ended("The benchmark", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let size = policy::Size {
        policies: arguments.policies.clone(),
        deleted: arguments.deleted,
        services: arguments.services.iter().copied().filter(|count| *count > 0).collect(),
        reviews: arguments.reviews,
    };
    let sets: &[Sets] = match arguments.sets {
        SetsFlag::Few => &[Sets::Few(20)],
        SetsFlag::Distinct => &[Sets::Distinct],
        SetsFlag::Both => &[Sets::Few(20), Sets::Distinct],
    };
    let mut out = io::stdout();
    let report = program::block_on(policy::run(&mut out, &size, sets))?;
    let path = report.write()?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}
