//! A balancer for TCP: new connections go to replicas that are ready, in turn, and those that are open stay where they are. As
//! a Service of Kubernetes does it, with the lag that taking an endpoint out has.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::running::get;

/// How often replicas are asked whether they are ready.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where a replica serves, and where it says whether it is ready.
type Backend = (SocketAddr, SocketAddr);

/// A running balancer; it stops when this is dropped.
#[derive(Debug)]
pub struct Balancer {
    backends: Arc<Mutex<Vec<Backend>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub async fn new(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let backends = Arc::new(Mutex::new(Vec::new()));
        let ready = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(Arc::clone(&backends), Arc::clone(&ready)));
        tasks.spawn(forward(listener, ready));
        Ok(Self {
            backends,
            _tasks: tasks,
        })
    }

    /// These are the replicas from now on: where each serves, and its probes.
    pub fn set(&self, backends: Vec<(SocketAddr, SocketAddr)>) {
        *self.backends.lock().unwrap_or_else(PoisonError::into_inner) = backends;
    }
}

async fn watch(backends: Arc<Mutex<Vec<Backend>>>, ready: Arc<Mutex<Vec<SocketAddr>>>) {
    loop {
        let all = backends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut are = Vec::new();
        for (address, probes) in all {
            if matches!(get(probes, "/readyz").await, Ok((200, _))) {
                are.push(address);
            }
        }
        *ready.lock().unwrap_or_else(PoisonError::into_inner) = are;
        sleep(INTERVAL).await;
    }
}

async fn forward(listener: TcpListener, ready: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut connections = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let to = {
            let ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
            turn = turn.wrapping_add(1);
            (!ready.is_empty()).then(|| ready[turn % ready.len()])
        };
        connections.spawn(async move {
            if let Some(to) = to
                && let Ok(mut server) = TcpStream::connect(to).await
            {
                // Either end may go at any time.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
