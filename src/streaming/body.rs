//! Parts of a file as the body of an answer, block by block: an answer has a block in memory, however long it is.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;

use super::{
    Heard, OpenFile, Place,
    cache::{BLOCK_BYTES, Blocks},
};
use crate::telemetry::metrics::metrics;

/// A part of a body.
#[derive(Clone, Debug)]
pub enum Part {
    /// These bytes, such as the head of a part.
    Bytes(Bytes),
    /// This range of the file.
    File(Range<u64>),
}

impl Part {
    /// In bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

/// The body. A file that cannot be read on, or has become shorter, breaks the answer off.
pub struct FileBody {
    blocks: Arc<Blocks>,
    file: Arc<OpenFile>,
    parts: VecDeque<Part>,
    reading: Option<Reading>,
    _place: Place,
    heard: Heard,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl FileBody {
    pub(super) fn new(
        blocks: Arc<Blocks>,
        file: Arc<OpenFile>,
        parts: Vec<Part>,
        (place, heard): (Place, Heard),
    ) -> Self {
        Self { blocks, file, parts: parts.into(), reading: None, _place: place, heard }
    }

    /// The block with the first byte of `range`, once it is here.
    fn poll_block(&mut self, context: &mut Context<'_>, index: u64) -> Poll<io::Result<Bytes>> {
        if self.reading.is_none()
            && let Some(block) = self.blocks.get(&self.file, index)
        {
            return Poll::Ready(Ok(block));
        }
        let (blocks, file) = (&self.blocks, &self.file);
        let reading = self.reading.get_or_insert_with(|| Box::pin(Arc::clone(blocks).read(Arc::clone(file), index)));
        let block = ready!(reading.as_mut().poll(context));
        self.reading = None;
        Poll::Ready(block)
    }

    /// As much of `range` as one block has.
    fn poll_range(&mut self, context: &mut Context<'_>, range: Range<u64>) -> Poll<io::Result<Bytes>> {
        let index = range.start / BLOCK_BYTES;
        let block = ready!(self.poll_block(context, index))?;
        let from = range.start - index * BLOCK_BYTES;
        let until = (range.end - index * BLOCK_BYTES).min(BLOCK_BYTES);
        if range.start + (until - from) < range.end {
            self.parts.push_front(Part::File(range.start + (until - from)..range.end));
        }
        self.heard.sent(range.start..range.start + (until - from));
        let place = |at: u64| usize::try_from(at).map_err(io::Error::other);
        Poll::Ready(Ok(block.slice(place(from)?..place(until)?)))
    }
}

impl Stream for FileBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let bytes = match this.parts.pop_front() {
            None => return Poll::Ready(None),
            Some(Part::Bytes(bytes)) => Ok(bytes),
            Some(Part::File(range)) => match this.poll_range(context, range.clone()) {
                Poll::Ready(bytes) => bytes,
                Poll::Pending => {
                    this.parts.push_front(Part::File(range));
                    return Poll::Pending;
                }
            },
        };
        let streaming = &metrics().streaming;
        match &bytes {
            Ok(bytes) => streaming.sent_bytes.increment(bytes.len() as u64),
            Err(error) => {
                this.parts.clear();
                streaming.read_failures.increment(1);
                tracing::warn!(%error, "an audio file cannot be read on");
            }
        }
        Poll::Ready(Some(bytes))
    }
}
