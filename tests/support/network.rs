//! The network between a cluster's nodes, to their Redis and to a client, in this process: it can be cut and healed.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

/// The way of the relay's datagrams into one node. The others send to [`Inlet::address`], which the node advertises.
pub struct Inlet {
    address: SocketAddr,
    state: Arc<Mutex<InletState>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct InletState {
    node: Option<SocketAddr>,
    /// Relay addresses of nodes whose datagrams are dropped.
    cut: HashSet<SocketAddr>,
}

impl Inlet {
    /// Datagrams are dropped until [`Inlet::lead_to`].
    pub async fn open() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let state = Arc::new(Mutex::new(InletState::default()));
        let mut task = JoinSet::new();
        task.spawn(carry(socket, Arc::clone(&state)));
        Ok(Self { address, state, _task: task })
    }

    /// Where the others are to send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the node's relay is.
    pub fn lead_to(&self, node: SocketAddr) {
        locked(&self.state).node = Some(node);
    }

    /// Drops, or lets through, what another node's relay sends.
    pub fn cut(&self, from: SocketAddr, cut: bool) {
        let mut state = locked(&self.state);
        if cut {
            state.cut.insert(from);
        } else {
            state.cut.remove(&from);
        }
    }
}

async fn carry(socket: UdpSocket, state: Arc<Mutex<InletState>>) {
    let mut buffer = [0_u8; 2048];
    loop {
        // An error belongs to a datagram sent before, to a node that has gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let to = {
            let state = locked(&state);
            state.node.filter(|_| !state.cut.contains(&from))
        };
        if let Some(to) = to {
            let _ = socket.send_to(&buffer[..length], to).await;
        }
    }
}

/// A way of TCP connections to one place: a node's to Redis, or a client's to a node. When it is dropped, its connections
/// break.
pub struct TcpWay {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl TcpWay {
    /// One that leads to a port of this machine.
    pub async fn open(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cut = watch::Sender::new(false);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, port, cut.clone()));
        Ok(Self { address, cut, _task: task })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it: what is on its way stays there, and new connections are closed. Or heals it: connections that were cut
    /// are closed then.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn accept(listener: TcpListener, port: u16, cut: watch::Sender<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        if !*cut.borrow() {
            connections.spawn(connect(near, port, cut.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(mut near: TcpStream, port: u16, mut cut: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = cut.wait_for(|cut| *cut) => {}
    }
    // Nothing comes through, and nobody is told: as when a cable is drawn.
    let _ = cut.wait_for(|cut| !*cut).await;
}

/// A way to a port of this machine that breaks once: the first connection that has brought so many bytes back ends there.
pub struct BreakingWay {
    address: SocketAddr,
    has_broken: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl BreakingWay {
    pub async fn open(port: u16, after: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let has_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&has_broken);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(carry_until_broken(near, port, after, Arc::clone(&broken)));
            }
        });
        Ok(Self { address, has_broken, _task: task })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn has_broken(&self) -> bool {
        self.has_broken.load(Ordering::Relaxed)
    }
}

async fn carry_until_broken(mut near: TcpStream, port: u16, after: u64, broken: Arc<AtomicBool>) -> io::Result<()> {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let back = async {
        let brought = tokio::io::copy(&mut (&mut from_far).take(after), &mut to_near).await?;
        if brought == after && !broken.swap(true, Ordering::Relaxed) {
            return Ok(0);
        }
        tokio::io::copy(&mut from_far, &mut to_near).await
    };
    // Both ends are closed when either does, or by the break.
    tokio::select! {
        done = tokio::io::copy(&mut from_near, &mut to_far) => done,
        done = back => done,
    }
    .map(|_| ())
}

/// A TCP port of this machine that nobody else is given, for a server that starts on it again and again.
pub struct ReservedPort {
    port: u16,
    _socket: TcpSocket,
}

impl ReservedPort {
    /// A free one.
    pub fn take() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Whoever says the same may listen on the port, as long as this socket does not.
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { port: socket.local_addr()?.port(), _socket: socket })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
