//! A UDP relay between clients and a server whose directions can be blocked, to make a bad network on purpose.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinSet, time::Instant};

/// Stands between clients and a server: clients send to [`UdpProxy::address`].
pub(crate) struct UdpProxy {
    address: SocketAddr,
    switches: Arc<Switches>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Switches {
    target: Mutex<Option<SocketAddr>>,
    to_server_blocked: AtomicBool,
    to_client_blocked: AtomicBool,
    tapped: Mutex<Option<Vec<Tapped>>>,
}

/// A datagram from the server that went by.
#[derive(Clone, Debug)]
pub(crate) struct Tapped {
    /// When.
    pub(crate) at: Instant,
    /// What.
    pub(crate) datagram: Vec<u8>,
}

impl UdpProxy {
    /// Binds a port on loopback; datagrams are dropped until [`UdpProxy::forward_to`].
    pub(crate) async fn start() -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let switches = Arc::new(Switches::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(front, Arc::clone(&switches)));
        Ok(Self { address, switches, _tasks: tasks })
    }

    /// Where clients are to send.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server listens.
    pub(crate) fn forward_to(&self, server: SocketAddr) {
        *self.switches.target.lock().expect("no holder panics") = Some(server);
    }

    /// Drops (or lets through) what clients send.
    pub(crate) fn block_to_server(&self, blocked: bool) {
        self.switches.to_server_blocked.store(blocked, Ordering::Relaxed);
    }

    /// Drops (or lets through) what the server sends.
    pub(crate) fn block_to_client(&self, blocked: bool) {
        self.switches.to_client_blocked.store(blocked, Ordering::Relaxed);
    }

    /// Keeps what the server sends from now on.
    pub(crate) fn start_tap(&self) {
        *self.switches.tapped.lock().expect("no holder panics") = Some(Vec::new());
    }

    /// What the server has sent since [`UdpProxy::start_tap`].
    pub(crate) fn tapped(&self) -> Vec<Tapped> {
        self.switches.tapped.lock().expect("no holder panics").take().unwrap_or_default()
    }
}

/// Gives each client a socket of its own towards the server, so that the server tells them apart.
async fn relay(front: Arc<UdpSocket>, switches: Arc<Switches>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = [0_u8; 2048];
    while let Ok((length, client)) = front.recv_from(&mut buffer).await {
        let target = *switches.target.lock().expect("no holder panics");
        let (Some(target), false) = (target, switches.to_server_blocked.load(Ordering::Relaxed)) else { continue };
        let back = match backs.get(&client) {
            Some(back) => Arc::clone(back),
            None => {
                let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { continue };
                let back = Arc::new(socket);
                answers.spawn(answer(Arc::clone(&back), Arc::clone(&front), client, Arc::clone(&switches)));
                backs.insert(client, Arc::clone(&back));
                back
            }
        };
        let _ = back.send_to(&buffer[..length], target).await;
    }
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, switches: Arc<Switches>) {
    let mut buffer = [0_u8; 2048];
    while let Ok((length, _)) = back.recv_from(&mut buffer).await {
        if let Some(tapped) = switches.tapped.lock().expect("no holder panics").as_mut() {
            tapped.push(Tapped { at: Instant::now(), datagram: buffer[..length].to_vec() });
        }
        if !switches.to_client_blocked.load(Ordering::Relaxed) {
            let _ = front.send_to(&buffer[..length], client).await;
        }
    }
}
