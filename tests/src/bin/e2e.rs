//! The scenarios on a real node, for a terminal: `make e2e`.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, builder::BoolishValueParser};
use leanserve_tests::{
    Failure,
    e2e::{self, Scenario, Soak},
    program,
    report::{Report, measured_versions},
};

/// Runs leanserve as a Deployment on a real cluster and proves what it promises there.
#[derive(Parser)]
struct Arguments {
    /// Scenarios to run, separated by commas; all of them when there are none.
    #[arg(long, env = "ONLY", value_delimiter = ',', value_parser = scenario)]
    only: Vec<Scenario>,
    /// How long the soak is: minutes (10m) or hours (2h).
    #[arg(long, env = "SOAK", default_value = "10m", value_parser = length)]
    soak: Duration,
    /// In which mode Secrets are read during the soak.
    #[arg(long, env = "MODE", default_value = "auto", value_parser = ["auto", "direct", "lru", "watch"])]
    mode: String,
    /// Also on a cluster of `KUBECONFIG` that `make cluster` has not made, in which the release `leanserve` is then replaced and
    /// removed.
    #[arg(
        long,
        env = "E2E_FOREIGN_CLUSTER",
        value_parser = BoolishValueParser::new(),
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
    )]
    foreign_cluster: bool,
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let names = || Scenario::ALL.map(Scenario::name).join(", ");
    Scenario::ALL
        .into_iter()
        .find(|scenario| scenario.name() == text)
        .ok_or_else(|| format!("there are {}", names()))
}

fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length such as 10m or 2h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(wrong()),
    }
}

fn main() -> ExitCode {
    program::ended("The end-to-end test", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let scenarios = if arguments.only.is_empty() {
        Scenario::ALL.to_vec()
    } else {
        arguments.only.clone()
    };
    let soak = Soak {
        length: arguments.soak,
        mode: arguments.mode.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rows = runtime.block_on(e2e::run(&scenarios, &soak, arguments.foreign_cluster))?;
    let mut report = Report::new("e2e", measured_versions(&["kube", "k8s-openapi"]), rows);
    if !arguments.only.is_empty() {
        report = report.of_a_part();
    }
    let path = report.write()?;
    let mut out = io::stdout();
    write!(out, "\n{}\n{}\n", report.machine, report.table())?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_cluster_is_allowed_as_the_documentation_says() {
        // The variable's value goes through the same parser.
        for (argument, may) in [
            ("--foreign-cluster=1", true),
            ("--foreign-cluster=true", true),
            ("--foreign-cluster", true),
            ("--foreign-cluster=0", false),
        ] {
            let arguments = Arguments::try_parse_from(["e2e", argument]).map(|arguments| arguments.foreign_cluster);
            assert_eq!(arguments.map_err(|error| error.to_string()), Ok(may), "{argument}");
        }
    }
}
