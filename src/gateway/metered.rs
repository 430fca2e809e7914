//! How much a client sends beside what its messages hold. The library counts what a message holds; pieces of one that are empty hold nothing,
//! and keep a processor busy all the same.

use std::{
    error, fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use antiphon_core::gateway::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may have come of which no message is made: the longest that is under way, and as many again.
pub(super) const UNACCOUNTED_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// What a message may take beside what it holds: the headers of its frames, a thousand of them where it comes in so many pieces.
const OVERHEAD_BYTES: usize = 4 * 1024;

/// A connection of which no more is read once so much has come that makes no messages.
pub(super) struct Metered<T> {
    inner: T,
    meter: Meter,
}

/// What came and is accounted for by no message. Its clones count the same.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<AtomicUsize>);

/// Too much came.
#[derive(Debug)]
struct Exceeded;

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {UNACCOUNTED_BYTES_MAX} bytes that make no message")
    }
}

impl error::Error for Exceeded {}

/// Whether this is why a connection could not be read.
pub(super) fn is_exceeded(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Exceeded>())
}

impl Meter {
    /// A message of so many bytes is whole.
    pub(super) fn whole(&self, bytes: usize) {
        let rest = self.0.load(Ordering::Relaxed).saturating_sub(bytes + OVERHEAD_BYTES);
        self.0.store(rest, Ordering::Relaxed);
    }
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, meter: Meter::default() }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// The connection, of which anything may be read.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, meter } = self.get_mut();
        if meter.0.load(Ordering::Relaxed) > UNACCOUNTED_BYTES_MAX {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Exceeded)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(inner).poll_read(cx, buffer);
        meter.0.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn so_much_is_read_that_makes_no_message_and_no_more() {
        let sent = vec![7; 4 * UNACCOUNTED_BYTES_MAX];
        let mut metered = Metered::new(&sent[..]);
        let meter = metered.meter();
        let mut read = vec![0; UNACCOUNTED_BYTES_MAX];
        metered.read_exact(&mut read).await.expect("within the bound");
        // Messages that hold as much as came make room for as much.
        (0..2).for_each(|_| meter.whole(FRAME_BYTES_MAX));
        metered.read_exact(&mut read).await.expect("within the bound");
        // A short one makes room for little.
        meter.whole(1);
        metered.read_exact(&mut read[..OVERHEAD_BYTES + 2]).await.expect("what crosses it is still read");
        let error = metered.read_exact(&mut [0]).await.expect_err("too much");
        assert!(is_exceeded(&error) && error.to_string().contains("131072 bytes"), "{error}");
    }
}
