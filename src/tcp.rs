//! How TCP ports are taken.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted: the kernel keeps no more than `net.core.somaxconn` of them, and lets further
/// ones try again for seconds. After a node's death all of its people come to the others within a second.
const WAITING_MAX: u32 = 8_192;

/// Listens on an address.
///
/// # Errors
/// When it cannot be taken.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What still waits for a former process' connections to time out keeps nobody from beginning again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, task::JoinSet, time::timeout};

    use super::*;

    #[tokio::test]
    async fn hundreds_may_wait_where_the_kernel_lets_them() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = listener.local_addr().expect("bound");
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux");
        let count = allowed.trim().parse::<usize>().expect("a number").min(400);
        let mut connecting: JoinSet<_> = (0..count).map(|_| TcpStream::connect(address)).collect();
        let mut connected = Vec::new();
        while let Some(stream) = timeout(std::time::Duration::from_secs(30), connecting.join_next()).await.expect("all")
        {
            connected.push(stream.expect("no panic").expect("none is turned away"));
        }
        assert_eq!(connected.len(), count);
    }
}
