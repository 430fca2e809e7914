//! What lies between browsers and a node's media port: a way that can be narrow, or closed to all but a few.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::mpsc, task::AbortHandle};

/// A UDP port that leads to another; it closes with the test.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    /// What each client may get, in bits per second; 0 for everything.
    pub(crate) limit_bps: Arc<AtomicU64>,
    /// How long a datagram waits in a narrow way at most, in milliseconds: what would wait longer is lost.
    pub(crate) queue_ms: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Gate {
    /// A port that leads nowhere until it is told where.
    pub(crate) async fn open(from: RangeInclusive<u16>) -> (Self, mpsc::Sender<SocketAddr>) {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port"));
        let address = socket.local_addr().expect("bound");
        let (limit_bps, queue_ms) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(200)));
        let (target, mut told) = mpsc::channel(1);
        let narrow = (Arc::clone(&limit_bps), Arc::clone(&queue_ms));
        let task = tokio::spawn(async move {
            let Some(target) = told.recv().await else { return };
            let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = [0; 2_048];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                if !from.contains(&client.port()) {
                    continue;
                }
                let onward = match clients.get(&client) {
                    Some(onward) => Arc::clone(onward),
                    None => {
                        let onward = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port"));
                        onward.connect(target).await.expect("loopback");
                        clients.insert(client, Arc::clone(&onward));
                        tokio::spawn(back(Arc::clone(&onward), Arc::clone(&socket), client, narrow.clone()));
                        onward
                    }
                };
                let _ = onward.send(&buffer[..length]).await;
            }
        });
        (Self { address, limit_bps, queue_ms, task: task.abort_handle() }, target)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// From the node to one client, as slowly as the way is narrow; what would wait for too long is lost.
async fn back(
    onward: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    (limit_bps, queue_ms): (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let mut buffer = [0; 2_048];
    let mut free_at = Instant::now();
    while let Ok(length) = onward.recv(&mut buffer).await {
        let now = Instant::now();
        let limit = limit_bps.load(Ordering::Relaxed);
        if limit > 0 {
            let begins = free_at.max(now);
            if begins - now > Duration::from_millis(queue_ms.load(Ordering::Relaxed)) {
                continue;
            }
            free_at = begins + Duration::from_secs_f64(length as f64 * 8.0 / limit as f64);
            let (socket, datagram) = (Arc::clone(&socket), buffer[..length].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep_until(free_at.into()).await;
                let _ = socket.send_to(&datagram, client).await;
            });
        } else {
            let _ = socket.send_to(&buffer[..length], client).await;
        }
    }
}
