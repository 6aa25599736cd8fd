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

/// What is measured unless a part is asked for.
const POLICIES: [usize; 4] = [0, 87, 1000, 10_000];
const DELETED: usize = 1000;
const SERVICES: [usize; 2] = [1000, 10_000];
const REVIEWS: usize = 10_000;

/// Measures what policies take of each role, of the API server and of a write, and how fast deleted ones are gone.
#[derive(Parser)]
struct Arguments {
    /// How many policies, separated by commas, in ascending order.
    #[arg(long, env = "POLICIES", value_delimiter = ',', default_values_t = POLICIES)]
    policies: Vec<usize>,
    /// How many are deleted at once; 0 leaves that out.
    #[arg(long, env = "DELETED", default_value_t = DELETED)]
    deleted: usize,
    /// How many services are audited, separated by commas; 0 leaves that out.
    #[arg(long, env = "SERVICES", value_delimiter = ',', default_values_t = SERVICES)]
    services: Vec<usize>,
    /// How many reviews the webhook is asked for at once; 0 leaves that out.
    #[arg(long, env = "REVIEWS", default_value_t = REVIEWS)]
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

impl Arguments {
    /// Whether nothing was left out.
    fn is_everything(&self) -> bool {
        self.policies == POLICIES
            && self.deleted == DELETED
            && self.services == SERVICES
            && self.reviews == REVIEWS
            && matches!(self.sets, SetsFlag::Both)
    }
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
    let mut report = program::block_on(policy::run(&mut out, &size, sets))?;
    if !arguments.is_everything() {
        report = report.of_a_part();
    }
    let path = report.write()?;
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}
