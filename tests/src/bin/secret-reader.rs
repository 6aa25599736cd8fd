//! The library kube-secret-access as a process of its own, to measure what it takes: a `Switch` that does what the
//! arguments say and nothing else, with the allocator and the runtime of the operator.
//!
//! It starts, says `Idle`, waits for SIGUSR1, does its work, says `Done`, and holds everything until SIGTERM.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Source, Switch, Want};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a watch may take to hold everything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the Secrets of a watch, one in so many is looked for: reading all would be work that holding them is not.
const LOOK_AT: usize = 100;

type Error = Box<dyn std::error::Error>;

/// Reads Secrets NAMESPACE/PREFIX0 to NAMESPACE/PREFIX(COUNT-1) on SIGUSR1, and ends on SIGTERM.
#[derive(Parser)]
struct Arguments {
    /// Kubeconfig of the cluster.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The mode: with `watch` the Secrets are held, else they are read one after the other.
    #[arg(long)]
    mode: Mode,
    /// Where the Secrets are.
    #[arg(long)]
    namespace: String,
    /// What their names begin with.
    #[arg(long)]
    prefix: String,
    /// How many there are.
    #[arg(long)]
    count: usize,
    /// How often each is read.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Reads at once, and requests in flight.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// The most Secrets held.
    #[arg(long, default_value_t = 20_000)]
    max_secrets: usize,
    /// The most bytes held.
    #[arg(long, default_value_t = 64 << 20)]
    max_bytes: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(work(arguments)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

async fn work(arguments: Arguments) -> Result<(), Error> {
    let mut begin = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let kubeconfig = Kubeconfig::read_from(&arguments.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube_secret_access::client(config)?;
    writeln!(io::stdout(), "Idle")?;
    let done = async {
        begin.recv().await;
        let access = Switch::new(client, options(&arguments))?;
        if arguments.mode == Mode::Watch {
            held(&access, &arguments).await?;
        } else {
            scan(&access, &arguments).await?;
        }
        writeln!(io::stdout(), "Done")?;
        std::future::pending::<()>().await;
        drop(access);
        Ok(())
    };
    tokio::select! {
        result = done => result,
        _ = terminate.recv() => Ok(()),
    }
}

fn options(arguments: &Arguments) -> AccessOptions {
    let defaults = AccessOptions::for_mode(arguments.mode);
    let max_age = defaults.lru.max_age;
    let mut options = defaults.with_bounds(arguments.max_secrets, arguments.max_bytes, max_age);
    options.fetch.max_in_flight = arguments.at_once;
    options
}

fn secret(arguments: &Arguments, number: usize) -> Result<SecretRef, Error> {
    Ok(SecretRef::new(
        &arguments.namespace,
        &format!("{}{number}", arguments.prefix),
    )?)
}

/// Waits until the watch holds the Secrets.
async fn held(access: &Switch, arguments: &Arguments) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    for number in (0..arguments.count).step_by(LOOK_AT) {
        let secret = secret(arguments, number)?;
        loop {
            match access.read(&secret, Want::cached()).await {
                Ok(read) if read.source() == Source::Watch => break,
                Ok(read) => return Err(format!("a watched Secret came from {}", read.source().as_str()).into()),
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
    Ok(())
}

/// Reads all, round after round.
async fn scan(access: &Switch, arguments: &Arguments) -> Result<(), Error> {
    let numbers = (0..arguments.rounds).flat_map(|_| 0..arguments.count);
    stream::iter(numbers)
        .map(|number| async move {
            let secret = secret(arguments, number)?;
            access.read(&secret, Want::default()).await?;
            Ok::<(), Error>(())
        })
        .buffer_unordered(arguments.at_once)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}
