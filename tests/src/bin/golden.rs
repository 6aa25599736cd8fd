//! Recorded behaviour of `KServe` against the operator, for a terminal: `make golden` and `make golden-import`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use golden::Recording;
use leanserve_tests::{
    Failure,
    golden::{Injection, Order, run},
    program,
};

/// Plays the recorded cases with the operator on a real control plane, and compares.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Folder of the recording
    #[arg(long, default_value_os_t = recording())]
    dir: PathBuf,

    /// Play only cases with this in the name of their folder
    #[arg(long, default_value = "")]
    case: String,

    /// Where the operator injects storage
    #[arg(long, value_enum, default_value = "deployment")]
    mode: Injection,

    /// Folder with others' CRDs: of `KServe` in kserve-full/, of Gateway API and KEDA in others/
    #[arg(long)]
    crds: Option<PathBuf>,

    /// How many cases are played at a time
    #[arg(long, default_value_t = 8)]
    jobs: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Take a recording into the repository, in the compact form
    Import {
        /// Folder of the recording
        dir: PathBuf,
    },
    /// Write the accepted differences into a page
    Compat {
        /// The page
        page: PathBuf,
        /// Fail if the page is not up to date, instead of writing it
        #[arg(long)]
        check: bool,
    },
}

/// The repository's own recording.
fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Import { dir }) => import(dir, &arguments.dir),
        Some(Command::Compat { page, check }) => compat(page, *check, &arguments.dir),
        None => play(&arguments),
    };
    program::ended("The run", done)
}

fn import(from: &Path, to: &Path) -> Result<ExitCode, Failure> {
    let count = golden::import(&Recording::at(from), to).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{count} cases imported; each reads as the original does")?;
    Ok(ExitCode::SUCCESS)
}

fn compat(page: &Path, check: bool, recording: &Path) -> Result<ExitCode, Failure> {
    let recording = Recording::at(recording);
    let accepted = recording.accepted().map_err(io::Error::other)?;
    let cases = recording.cases().map_err(io::Error::other)?;
    let written = std::fs::read_to_string(page)?;
    let table = golden::compat::table(&accepted, &cases);
    let wanted = golden::compat::with_table(&written, &table)
        .ok_or_else(|| io::Error::other(format!("{}: has no place for the table", page.display())))?;
    if !check {
        std::fs::write(page, wanted)?;
    } else if written != wanted {
        return Err(io::Error::other(format!("{}: not up to date; run make compat", page.display())).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn play(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let order = Order {
        recording: arguments.dir.clone(),
        filter: arguments.case.clone(),
        definitions: arguments.crds.clone(),
        injection: arguments.mode,
        at_a_time: arguments.jobs.max(1),
    };
    let mut out = io::stdout();
    let played = program::block_on(run(&mut out, &order));
    let (report, unused) = played?;
    write!(out, "\n{}\n{}", report.differences(), report.table())?;
    let accepted = report.accepted();
    if !accepted.is_empty() {
        write!(out, "\nAccepted, and why:\n\n{accepted}")?;
    }
    for unused in unused {
        writeln!(out, "accepted.yaml: no longer needed: {unused}")?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/reports/golden.json");
    report.write(&path).map_err(io::Error::other)?;
    writeln!(out, "Written to {}", path.display())?;
    Ok(program::judged(&report.failures()))
}
