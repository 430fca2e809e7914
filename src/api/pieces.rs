//! A small body is taken in no more pieces than any client makes of it.
//!
//! Each piece costs as much time as some hundred bytes, and is kept until all of them are there: a body of 60 KiB in chunks of one byte
//! takes a core for half a second and megabytes of memory.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
};
use hyper::body::{Frame, SizeHint};

/// A body that comes in the shortest segments that a network makes (536 bytes; RFC 9293, 3.7.1) has as many with half a mebibyte.
pub(super) const PIECES_MAX: usize = 1_024;

/// Why such a body is not read to its end.
#[derive(Debug)]
pub(super) struct TooManyPieces;

impl fmt::Display for TooManyPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body comes in more than {PIECES_MAX} pieces: send it in fewer, such as whole")
    }
}

impl Error for TooManyPieces {}

impl TooManyPieces {
    /// Whether that is at the bottom of an error.
    pub(super) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        error.is::<Self>() || error.source().is_some_and(Self::is_cause_of)
    }
}

/// A body of which so many pieces are taken.
pub(super) struct InPieces {
    body: Body,
    left: usize,
}

impl InPieces {
    pub(super) const fn of(body: Body) -> Self {
        Self { body, left: PIECES_MAX }
    }
}

impl HttpBody for InPieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
            return polled.map_err(Into::into);
        }
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(Some(Err(TooManyPieces.into()))) };
        self.left = left;
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
