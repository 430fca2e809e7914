//! What is left of a request's body when its answer is decided is read and thrown away for a while.
//!
//! A connection that is closed while there is something to read is reset, and a reset takes the answer with it before a
//! client that still sends has read it. That would be just the answer that says why sending on is of no use.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::extract::Request;
use hyper::{
    body::{Body, Bytes, Frame, SizeHint},
    header,
};

/// So much is read of what nobody wants.
const BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// A piece of a body counts for so many bytes beside its own: a chunk of one byte costs as much time as one of some hundred, and
/// of such as a network makes these are some megabytes.
const PIECE_BYTES: u64 = 4 * 1_024;

/// For so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// A body that, once dropped, is read on in a task of its own: at most one for each connection.
#[derive(Debug)]
pub(super) struct Lingering<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    /// `None` once it is over.
    body: Option<B>,
    /// The client sends nothing before it is told to, and reading tells it to.
    waits_to_be_asked: bool,
}

impl<B> Lingering<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    /// The same request with such a body.
    pub(super) fn around(request: Request<B>) -> Request<Self> {
        let waits_to_be_asked = request.headers().contains_key(header::EXPECT);
        request.map(|body| Self { body: Some(body), waits_to_be_asked })
    }
}

impl<B> Body for Lingering<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.waits_to_be_asked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for Lingering<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Send,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if body.is_end_stream() || self.waits_to_be_asked {
            return;
        }
        // Without a runtime everything ends anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(PATIENCE, read_away(body)));
        }
    }
}

/// Reads until the end, an error, or the most that is read.
async fn read_away<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut read: u64 = 0;
    while read < BYTES_MAX {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        read += PIECE_BYTES + frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Pieces of one length without end.
    struct Endless {
        piece: &'static [u8],
        read: u64,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.read += 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.piece)))))
        }
    }

    async fn pieces_read(piece: &'static [u8]) -> u64 {
        let mut body = Endless { piece, read: 0 };
        read_away(&mut body).await;
        body.read
    }

    #[tokio::test]
    async fn a_body_of_tiny_pieces_is_given_up_as_soon_as_it_has_cost_as_much() {
        assert_eq!(pieces_read(&[0; 64 * 1_024]).await, 241, "15.1 MiB");
        assert_eq!(pieces_read(b"1").await, 4_096);
    }
}
