//! What every step of a relay has at hand: the time, the output, the other nodes and the ring.

use super::{
    Counter, Output, RelayStats,
    link::{Hearing, Leaving, Links, Outgoing, PathKey},
    timers::{Due, Timers},
    wire::{AUDIO_HEADER_BYTES, Hop, Kind},
};
use crate::{
    clock::Micros,
    ids::ChannelId,
    ring::{ChannelPlace, Ring},
    slab::SlabKey,
};

/// A relay's own tools, used in turn by its channels.
pub(super) struct Work {
    pub(super) links: Links,
    pub(super) ring: Ring,
    pub(super) timers: Timers,
    /// Channels with something to tell when the batch is over.
    pub(super) dirty: Vec<SlabKey>,
    pub(super) stats: RelayStats,
    /// Where the numbers of a set are put together.
    pub(super) numbers: Vec<u8>,
}

/// One call into the relay.
pub(super) struct Turn<'a, O> {
    pub(super) now: Micros,
    pub(super) out: &'a mut O,
    pub(super) work: &'a mut Work,
}

/// Which channel a step is about.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) id: ChannelId,
    pub(super) place: ChannelPlace,
}

/// A frame, or a packet that goes its way, as it goes into a record.
#[derive(Clone, Copy)]
pub(super) struct Framed<'a> {
    pub(super) kind: Kind,
    pub(super) head: &'a [u8],
    pub(super) bytes: &'a [u8],
}

impl<'a> Framed<'a> {
    /// A frame of audio.
    pub(super) fn audio(head: &'a [u8; AUDIO_HEADER_BYTES], bytes: &'a [u8]) -> Self {
        Self { kind: Kind::Audio, head, bytes }
    }
}

impl Work {
    /// The worker of another node that a channel lives in.
    pub(super) fn path(&self, place: ChannelPlace, link: SlabKey) -> Option<PathKey> {
        self.links.get(link).map(|other| PathKey { link, worker: place.worker(other.node.workers) })
    }

    /// Whether that worker is heard; `None` when the registry no longer knows the node.
    pub(super) fn hearing(&self, place: ChannelPlace, link: SlabKey) -> Option<Hearing> {
        self.path(place, link).and_then(|path| self.links.hearing(path))
    }

    /// Whether that node may own the channel as far as this one hears.
    pub(super) fn is_usable(&self, place: ChannelPlace, link: SlabKey) -> bool {
        self.hearing(place, link).is_some_and(|hearing| hearing != Hearing::Lost)
    }
}

impl<O: Output> Turn<'_, O> {
    /// Puts a record into the next datagram to a node. False when there is no way to it, or no datagram that long.
    pub(super) fn tell(&mut self, about: About, to: SlabKey, kind: Kind, head: &[u8], tail: &[u8]) -> bool {
        self.push(about, to, (kind, Hop::ToOwner), head, tail)
    }

    /// Sends a frame to a node.
    pub(super) fn frame(&mut self, about: About, to: SlabKey, hop: Hop, frame: Framed<'_>) {
        if self.push(about, to, (frame.kind, hop), frame.head, frame.bytes) {
            self.work.stats.count(match (frame.kind, hop) {
                (Kind::Picture, _) => Counter::PicturesSent,
                (Kind::Meeting, _) => Counter::MeetingsSent,
                (_, Hop::ToOwner) => Counter::SentToOwner,
                (_, Hop::FromOwner) => Counter::SentFromOwner,
                (_, Hop::Direct) => Counter::SentDirect,
            });
        }
    }

    fn push(&mut self, about: About, to: SlabKey, kind: (Kind, Hop), head: &[u8], tail: &[u8]) -> bool {
        let Some(path) = self.work.path(about.place, to) else { return false };
        let mut leaving = Leaving { now: self.now, stats: &mut self.work.stats, out: &mut *self.out };
        self.work.links.push(path, &Outgoing { channel: about.id, kind, head, tail }, &mut leaving)
    }

    /// The channel waits for that node as its owner from now on, or no longer.
    pub(super) fn await_owner(&mut self, about: About, link: SlabKey, waits: bool) {
        if let Some(path) = self.work.path(about.place, link)
            && self.work.links.await_path(self.now, path, waits)
        {
            self.look_at(path);
        }
    }

    /// The channel has that node as an edge from now on, or no longer.
    pub(super) fn serve_edge(&mut self, about: About, link: SlabKey, serves: bool) {
        if let Some(path) = self.work.path(about.place, link)
            && self.work.links.serve_path(path, serves)
        {
            self.look_at(path);
        }
    }

    fn look_at(&mut self, key: PathKey) {
        if let Some(path) = self.work.links.path_mut(key) {
            self.work.timers.arm(&mut path.armed, self.now, Due::Path(key));
        }
    }
}
