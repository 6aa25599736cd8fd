//! `leanserve`: serves `KServe` `InferenceServices` in Standard mode.
//!
//! This crate is the shell around the pure core `isvc-core`: input and output, time and wiring, and no decisions. A pass
//! over one service is `reconcile.rs`; who triggers passes is `triggers.rs`; what is watched is `watches.rs`.

mod apply;
mod args;
mod audit;
mod backoff;
mod ca_bundle;
mod cache;
mod client;
mod coexistence;
mod concurrency;
mod config;
mod controller;
mod core_dumps;
mod crd;
mod error;
mod events;
mod health;
mod http;
mod injection;
mod key;
mod leader;
mod memory;
mod mode;
mod observability;
mod observe;
mod pace;
#[cfg(test)]
mod pipeline;
mod platform;
mod policies;
mod queue;
mod reconcile;
mod references;
mod render;
mod report;
mod role;
mod secret_probe;
mod selector;
mod service_accounts;
mod stopping;
mod stored;
mod told;
mod triggers;
mod watch;
mod watches;
mod webhook;
mod workers;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use tokio::runtime::Runtime;

use crate::{
    args::{AuditArgs, Cli, Command, RunArgs, WebhookArgs},
    audit::AuditConfig,
    config::{Common, Config, InvalidFlag},
    observability::logs,
    webhook::WebhookConfig,
};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The command line is wrong; as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Webhook(args) => webhook(*args),
        Command::Audit(args) => audit(args),
        Command::Render(args) => ended(render::run(&args, &mut io::stdout().lock(), &mut io::stderr().lock())),
        Command::Crd(args) => ended(crd::run(&args, &mut io::stdout().lock())),
        Command::Version => ended(writeln!(io::stdout(), "leanserve {}", env!("CARGO_PKG_VERSION"))),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let config = Config::new(args, from_environment);
    role(config.map(|config| (config.common.clone(), controller::run(config))))
}

fn webhook(args: WebhookArgs) -> ExitCode {
    let config = WebhookConfig::new(args, from_environment);
    role(config.map(|config| (config.common.clone(), webhook::run(config))))
}

fn audit(args: AuditArgs) -> ExitCode {
    let config = AuditConfig::new(args, from_environment);
    role(config.map(|config| (config.common.clone(), audit::run(config))))
}

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs a role to its end.
fn role<E: Display>(begun: Result<(Common, impl Future<Output = Result<(), E>>), InvalidFlag>) -> ExitCode {
    let (common, work) = match begun {
        Ok(begun) => begun,
        Err(error) => return complain(&error, ExitCode::from(USAGE)),
    };
    // One thread: the work is waiting for the API server, and every further thread takes memory of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, ExitCode::FAILURE),
    };
    let end = observed(&runtime, &common, work);
    // A look-up of a name that hangs must not keep a process that is to end.
    runtime.shutdown_background();
    end
}

#[cfg(not(feature = "otlp"))]
fn observed<E: Display>(runtime: &Runtime, common: &Common, work: impl Future<Output = Result<(), E>>) -> ExitCode {
    match logs::start(common.log_format, &common.log_level) {
        Ok(()) => ended(runtime.block_on(work)),
        Err(error) => complain(&error, ExitCode::from(USAGE)),
    }
}

#[cfg(feature = "otlp")]
fn observed<E: Display>(runtime: &Runtime, common: &Common, work: impl Future<Output = Result<(), E>>) -> ExitCode {
    use observability::traces;

    let traces = match traces::start(runtime.handle()) {
        Ok(traces) => traces,
        Err(error) => return complain(&error, ExitCode::from(USAGE)),
    };
    let started = match &traces {
        Some(traces) => logs::start_with(common.log_format, &common.log_level, traces.layer()),
        None => logs::start(common.log_format, &common.log_level),
    };
    if let Err(error) = started {
        return complain(&error, ExitCode::from(USAGE));
    }
    runtime.block_on(async {
        let end = ended(work.await);
        if let Some(traces) = traces {
            traces.end().await;
        }
        end
    })
}

fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, ExitCode::FAILURE),
    }
}

fn complain(error: &impl Display, code: ExitCode) -> ExitCode {
    // Nothing can be done where standard error is closed; the exit code still tells.
    let _ = writeln!(io::stderr(), "leanserve: {error}");
    code
}

#[cfg(test)]
pub(crate) mod tests {
    use kube::{Client, Config};

    /// A client for tests that must not need an API server.
    pub(crate) fn unreachable_client() -> Client {
        // Port 9 is discard, which nothing serves.
        Client::try_from(Config::new("http://127.0.0.1:9".parse().expect("valid"))).expect("no TLS is needed")
    }
}
