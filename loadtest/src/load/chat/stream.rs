//! A member's stream: it says when what it brought has arrived, and how much that was.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::super::system::{read_stamped, realtime_ns, stamp_arrivals};
use crate::ServerUrl;

/// How long the server may take to take a connection, and for each answer while the stream waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The stream; its copies are the same one.
#[derive(Clone)]
pub(super) struct StampedStream(Arc<Inner>);

struct Inner {
    stream: TcpStream,
    stamp_ns: AtomicU64,
    bytes: AtomicUsize,
}

impl StampedStream {
    /// One that waits, until [`wait_no_more`](Self::wait_no_more).
    pub(super) fn connect(server: &ServerUrl) -> io::Result<Self> {
        let stream = connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stamp_arrivals(&stream)?;
        Ok(Self(Arc::new(Inner { stream, stamp_ns: AtomicU64::new(0), bytes: AtomicUsize::new(0) })))
    }

    /// From now on whoever reads gets what is there.
    pub(super) fn wait_no_more(&self) -> io::Result<()> {
        self.0.stream.set_nonblocking(true)
    }

    /// When the last of what was read arrived.
    pub(super) fn stamp_ns(&self) -> u64 {
        self.0.stamp_ns.load(Ordering::Relaxed)
    }

    /// How many bytes were read since this was asked before.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.swap(0, Ordering::Relaxed)
    }
}

/// To the first of its addresses that takes the connection.
fn connect(server: &ServerUrl) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in server.gateway().socket_addrs(|| None)? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Read for StampedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, stamp_ns) = read_stamped(&self.0.stream, buffer)?;
        self.0.stamp_ns.store(stamp_ns.unwrap_or_else(realtime_ns), Ordering::Relaxed);
        self.0.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(length)
    }
}

impl Write for StampedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
