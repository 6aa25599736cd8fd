//! What leanserve is compared with: a kube-rs reflector of all Secrets, as its documentation shows it, with the same
//! allocator and runtime as the operator. It does nothing but hold them.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, reflector, watcher},
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Holds all Secrets of a cluster until it is told to end.
#[derive(Parser)]
struct Arguments {
    /// Kubeconfig of the cluster; without one, the Pod's own account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(hold(arguments)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

async fn hold(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = match arguments.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(&path)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster()?,
    };
    let secrets: Api<Secret> = Api::all(Client::try_from(config)?);
    let (store, writer) = reflector::store();
    let reflected = reflector(writer, watcher(secrets, watcher::Config::default())).default_backoff();
    let driven = reflected.for_each(|_| std::future::ready(()));
    let told = async {
        store.wait_until_ready().await?;
        writeln!(io::stdout(), "Secrets held: {}", store.len())?;
        std::future::pending::<Result<(), Box<dyn std::error::Error>>>().await
    };
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = driven => Err("the watch has ended".into()),
        result = told => result,
        _ = terminate.recv() => Ok(()),
    }
}
