//! Where people reach a node: an address that stays while the process behind it ends and starts again elsewhere.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use antiphon_loadtest::ServerUrl;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A node's lasting address, which hands each connection on.
pub(crate) struct Front {
    address: SocketAddr,
    node: watch::Sender<Option<SocketAddr>>,
    _task: JoinSet<()>,
}

impl Front {
    /// Connections are closed until [`Front::lead_to`].
    pub(crate) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let node = watch::Sender::new(None);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, node.subscribe()));
        Ok(Self { address, node, _task: task })
    }

    /// For people.
    pub(crate) fn url(&self) -> ServerUrl {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    /// Where the node is now.
    pub(crate) fn lead_to(&self, node: &ServerUrl) {
        let url = node.http("/");
        let address = url.socket_addrs(|| None).ok().and_then(|found| found.first().copied());
        self.node.send_replace(address);
    }
}

async fn accept(listener: TcpListener, node: watch::Receiver<Option<SocketAddr>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let node = *node.borrow();
        connections.spawn(async move {
            let Some(node) = node else { return };
            let Ok(mut far) = TcpStream::connect(node).await else { return };
            // An error on one side ends the other as well.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
