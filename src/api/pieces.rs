//! A small body is taken in no more pieces than any client makes of it.
//!
//! Each piece costs as much time as some hundred bytes, and is kept until all of them are there: a body of 60 KiB in chunks of one byte
//! takes a core for half a second and megabytes of memory.

use std::{error::Error, fmt};

use axum::{BoxError, body::Body};
use futures_util::StreamExt as _;

/// So many pieces are taken of any body, and of a longer one as many as the shortest segments that a network makes (536 bytes; RFC 9293,
/// 3.7.1).
const PIECES_MIN: u32 = 1_024;
const SEGMENT_BYTES: u32 = 512;

/// Why such a body is not read to its end.
#[derive(Debug)]
pub(super) struct TooManyPieces {
    most: u32,
}

impl fmt::Display for TooManyPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body comes in more than {} pieces: send it in fewer, such as whole", self.most)
    }
}

impl Error for TooManyPieces {}

impl TooManyPieces {
    /// The one at the bottom of an error.
    pub(super) fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        error.downcast_ref().or_else(|| Self::cause_of(error.source()?))
    }
}

/// A body of at most `bytes_max` that fails where it comes in more pieces than that.
pub(super) fn in_pieces(body: Body, bytes_max: u32) -> Body {
    let most = PIECES_MIN.max(bytes_max / SEGMENT_BYTES);
    let counted = body.into_data_stream().zip(futures_util::stream::iter(1_u32..));
    Body::from_stream(counted.map(move |(piece, count)| {
        if count > most { Err(BoxError::from(TooManyPieces { most })) } else { piece.map_err(BoxError::from) }
    }))
}
