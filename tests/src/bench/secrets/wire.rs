//! Bytes between a client and the API server, and a gate in that way.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Passes connections on and counts what they carry, both ways, TLS and TCP payload alike. Connections wait while the
/// gate is closed.
pub(super) struct Proxy {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    gate: watch::Sender<bool>,
    passing: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the server of a configuration, as part of the calling runtime.
    pub(super) async fn before(config: &Config, open: bool) -> io::Result<Self> {
        let authority = config.cluster_url.authority();
        let server = authority
            .map(ToString::to_string)
            .ok_or_else(|| io::Error::other("the server has no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let (gate, opened) = watch::channel(open);
        let passing = tokio::spawn(pass_on(listener, server, opened, Arc::clone(&bytes)));
        Ok(Self {
            address,
            bytes,
            gate,
            passing,
        })
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The configuration of a client that goes through it.
    pub(super) fn config(&self, config: &Config) -> io::Result<Config> {
        let mut config = config.clone();
        // The certificate is for the loopback address, whatever the port.
        config.cluster_url = self.url().parse().map_err(io::Error::other)?;
        Ok(config)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets connections through from now on.
    pub(super) fn open(&self) {
        self.gate.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass_on(listener: TcpListener, server: String, opened: watch::Receiver<bool>, bytes: Arc<AtomicU64>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (server, mut opened, bytes) = (server.clone(), opened.clone(), Arc::clone(&bytes));
        connections.spawn(async move {
            if opened.wait_for(|open| *open).await.is_err() {
                return;
            }
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            // Either way: a proxy must not add waits of its own.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::join!(
                copy(from_client, to_server, &bytes),
                copy(from_server, to_client, &bytes)
            );
        });
    }
}

/// Until one side closes. What breaks here the client sees for itself.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // Before they are on: whoever has the answer finds it counted.
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::Proxy;

    #[tokio::test]
    async fn bytes_of_both_ways_count_and_the_gate_holds_them() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let url = format!("http://{}", server.local_addr().expect("it has an address"));
        let proxy = Proxy::before(&Config::new(url.parse().expect("a URL")), false)
            .await
            .expect("it listens");
        let mut client = TcpStream::connect(proxy.address).await.expect("it connects");
        client.write_all(b"question").await.expect("it is taken");
        assert_eq!(proxy.bytes(), 0);
        proxy.open();
        let (mut answerer, _) = server.accept().await.expect("it is passed on");
        let mut question = [0; 8];
        answerer.read_exact(&mut question).await.expect("it comes");
        answerer.write_all(b"answer").await.expect("it is taken");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.expect("it comes");
        assert_eq!((&question, &answer, proxy.bytes()), (b"question", b"answer", 14));
    }
}
