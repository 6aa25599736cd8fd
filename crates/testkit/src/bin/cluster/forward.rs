//! The way from the machine's loopback into the cluster's network namespace.
//!
//! A socket stays in the network namespace in which it was made. The listener was made outside and is inherited, the
//! connections on to the API server are made inside.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// Copies every connection to the listener to `target`, for ever.
pub(crate) async fn forward(listener: TcpListener, target: SocketAddr) {
    loop {
        let Ok((mut outer, _)) = listener.accept().await else {
            // Out of descriptors, or the peer has gone already; the next may do better.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        tokio::spawn(async move {
            // Refused while the API server is down: the client sees its connection closed, as it would directly.
            let Ok(mut inner) = TcpStream::connect(target).await else {
                return;
            };
            let _ = outer.set_nodelay(true);
            let _ = inner.set_nodelay(true);
            let _ = copy_bidirectional(&mut outer, &mut inner).await;
        });
    }
}
