//! Streams of members on other nodes, as the relay brings them: which frames came before, and who speaks.

use super::{
    sequence::{Order, SequenceWindow},
    speaking::Speaking,
    timers::{self, Due},
    turn::Work,
};
use crate::{
    clock::Micros,
    hash::IdMap,
    ids::StreamId,
    slab::{Slab, SlabKey},
};

/// How many streams of other nodes a channel knows at a time: more than speak in one within [`LIFETIME`].
const STREAMS_MAX: usize = 1_024;
/// A stream that was not heard for this long is forgotten: duplicates of the relay come within a second or not at all.
const LIFETIME: Micros = Micros::from_secs(10);

/// A stream of another node.
#[derive(Debug)]
pub(super) struct RemoteStream {
    pub(super) stream: StreamId,
    sequence: SequenceWindow,
    heard_at: Micros,
    pub(super) speaking: Speaking,
}

impl RemoteStream {
    pub(super) fn note(&mut self, now: Micros, sequence: u16) -> Order {
        self.heard_at = now;
        self.sequence.note(sequence)
    }

    fn forgotten_at(&self) -> Micros {
        self.heard_at + LIFETIME
    }
}

/// All of them in one channel.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    streams: Slab<RemoteStream>,
    by_stream: IdMap<StreamId, SlabKey>,
}

impl Remotes {
    pub(super) fn get_mut(&mut self, key: SlabKey) -> Option<&mut RemoteStream> {
        self.streams.get_mut(key)
    }

    /// A stream; made at its first frame, unless there are too many.
    pub(super) fn of(
        &mut self,
        now: Micros,
        stream: StreamId,
        channel: SlabKey,
        work: &mut Work,
    ) -> Option<(SlabKey, &mut RemoteStream)> {
        let key = match self.by_stream.get(&stream) {
            Some(key) => *key,
            None if self.streams.len() >= STREAMS_MAX => return None,
            None => self.add(now, stream, channel, work),
        };
        Some((key, self.streams.get_mut(key)?))
    }

    fn add(&mut self, now: Micros, stream: StreamId, channel: SlabKey, work: &mut Work) -> SlabKey {
        work.timers.reserve(timers::PER_REMOTE);
        let key = self.streams.insert_with(|_| RemoteStream {
            stream,
            sequence: SequenceWindow::default(),
            heard_at: now,
            speaking: Speaking::default(),
        });
        self.by_stream.insert(stream, key);
        work.timers.arm(now + LIFETIME, Due::RemoteSilent { channel, remote: key });
        key
    }

    /// A stream may not have been heard for long enough to be forgotten.
    pub(super) fn silent_due(&mut self, now: Micros, key: SlabKey, channel: SlabKey, work: &mut Work) {
        let Some(remote) = self.streams.get(key) else { return };
        if remote.forgotten_at() <= now && remote.speaking.is_over() {
            self.by_stream.remove(&remote.stream);
            self.streams.remove(key);
            return work.timers.release(timers::PER_REMOTE);
        }
        // One whose end could not be told yet is kept until it is.
        let at = remote.forgotten_at().max(now + Micros::from_secs(1));
        work.timers.arm(at, Due::RemoteSilent { channel, remote: key });
    }

    /// The channel closes.
    pub(super) fn clear(&mut self, work: &mut Work) {
        work.timers.release(self.streams.len() * timers::PER_REMOTE);
        *self = Self::default();
    }
}
