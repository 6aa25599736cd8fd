//! What every role of the program needs: to begin, to be looked at, to reach the API server, and to be told to stop.

use std::{io, sync::Arc, time::Duration};

use kube::Client;
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::interval,
};
use tracing::{info, warn};

use crate::{
    client::{self, ConnectError, Oversight},
    config::Common,
    core_dumps,
    health::Health,
    http::{self, ListenError, MetricsPage, Pages, Site},
    leader::{clock::Clock, fence::Fence},
    observability::metrics::RequestMetrics,
};

/// Why a role does not run (any more).
#[derive(Debug, Error)]
pub(crate) enum RoleError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
    #[error("a background task has ended")]
    Background,
    #[error("told to stop a second time; ended at once")]
    Impatient,
}

/// A role that has begun: it can be looked at, and be told to stop.
pub(crate) struct Role {
    pub(crate) stop: StopSignals,
    pub(crate) background: Background,
}

/// Tasks that end with the role and not before: one that ends earlier has failed.
#[derive(Default)]
pub(crate) struct Background(JoinSet<()>);

impl Background {
    /// Adds a task that never ends by itself.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Waits until one has failed.
    pub(crate) async fn failed(&mut self) -> RoleError {
        if self.0.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        RoleError::Background
    }
}

impl Role {
    /// Turns core dumps off, listens for signals, and serves `/livez`, `/readyz` and `/metrics`.
    ///
    /// # Errors
    ///
    /// [`RoleError::Signal`] and [`RoleError::Listen`].
    pub(crate) async fn begin(
        common: &Common,
        health: &Arc<Health>,
        metrics: Arc<dyn MetricsPage>,
    ) -> Result<Self, RoleError> {
        // Before any credential is read.
        if let Err(error) = core_dumps::turn_off() {
            warn!(%error, "core dumps cannot be turned off, and would hold Secrets");
        }
        let stop = StopSignals::listen()?;
        let mut background = Background::default();
        let pages = Arc::new(Pages {
            health: Arc::clone(health),
            metrics,
        });
        for (address, site) in [(common.probes, Site::Probes), (common.metrics, Site::Metrics)] {
            if let Some(address) = address {
                background.spawn(http::serve(http::listen(address).await?, site, Arc::clone(&pages)));
            }
        }
        background.spawn(beat(Arc::clone(health)));
        info!(
            version = env!("CARGO_PKG_VERSION"),
            namespace = common.namespace,
            "starting"
        );
        Ok(Self { stop, background })
    }
}

/// The client of a role of which any number of replicas may work at a time.
pub(crate) async fn connect(
    common: &Common,
    health: &Arc<Health>,
    metrics: &Arc<RequestMetrics>,
) -> Result<Client, ConnectError> {
    let oversight = Oversight {
        fence: Arc::new(Fence::open(Clock::boot())),
        health: Arc::clone(health),
        metrics: Arc::clone(metrics),
        concurrency: None,
    };
    client::connect(common, oversight).await
}

/// Shows that the executor runs tasks.
async fn beat(health: Arc<Health>) {
    let mut beats = interval(Duration::from_secs(1));
    loop {
        beats.tick().await;
        health.beat();
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, RoleError> {
        let listen = |kind| signal(kind).map_err(RoleError::Signal);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits until either has come.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
