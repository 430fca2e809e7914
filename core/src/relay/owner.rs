//! A channel as its owner knows it: which other nodes have listeners, and what they were told.
//!
//! A node is owner for whoever comes to it, whatever its own view: views may differ for a while, and the claim in
//! everything that it tells says by which epoch who should be asked instead.

use super::{
    Counter, Output,
    limit::Limit,
    turn::{About, Turn},
    wire::{Claim, Interest, Kind, SET_MAX, speaker_set_head},
};
use crate::{clock::Micros, ids::StreamId, slab::SlabKey};

/// An edge that was not heard of for this long is forgotten (DESIGN.md, Media path).
const EDGE_LIFETIME: Micros = Micros::from_secs(3);
/// What changed is told again so often and after so long each time: a lost datagram costs little more than that.
const REPEATS: u8 = 2;
const REPEAT_AFTER: Micros = Micros::from_millis(30);

/// A node with listeners.
#[derive(Clone, Copy, Debug)]
struct Edge {
    link: SlabKey,
    heard_at: Micros,
    max_speakers: u32,
    /// It does not hear the node that should own the channel.
    astray: bool,
    /// Somebody there may see pictures.
    pictures: bool,
}

/// The owner's side of a channel.
#[derive(Debug, Default)]
pub(super) struct Owned {
    edges: Vec<Edge>,
    /// The edges must be told of each other.
    changed: bool,
    repeats: u8,
    told_at: Micros,
    told_speakers: Vec<StreamId>,
    told_room: bool,
    /// The speakers must be told again.
    speakers_repeats: u8,
}

impl Owned {
    pub(super) fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = SlabKey> {
        self.edges.iter().map(|edge| edge.link)
    }

    /// Those to whom records of a kind go.
    pub(super) fn links_for(&self, kind: Kind) -> impl Iterator<Item = SlabKey> {
        self.edges.iter().filter(move |edge| kind != Kind::Picture || edge.pictures).map(|edge| edge.link)
    }

    pub(super) fn has(&self, link: SlabKey) -> bool {
        self.edges.iter().any(|edge| edge.link == link)
    }

    /// Those that do not hear the node that should own the channel.
    pub(super) fn astray(&self) -> impl Iterator<Item = SlabKey> {
        self.edges.iter().filter(|edge| edge.astray).map(|edge| edge.link)
    }

    /// The limits that the edges know of.
    pub(super) fn limits(&self) -> impl Iterator<Item = u32> {
        self.edges.iter().map(|edge| edge.max_speakers)
    }

    /// The set, or who should own the channel, is another.
    pub(super) fn change(&mut self) {
        self.changed = true;
        self.repeats = REPEATS;
    }

    /// A node wants the channel, or no longer. True when that changes the set or a limit.
    pub(super) fn interest<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        about: About,
        from: SlabKey,
        interest: &Interest,
    ) -> bool {
        let Interest { max_speakers, astray, pictures, .. } = *interest;
        if !interest.wanted {
            return self.forget(turn, about, |edge| edge.link == from);
        }
        if let Some(edge) = self.edges.iter_mut().find(|edge| edge.link == from) {
            edge.heard_at = turn.now;
            (edge.astray, edge.pictures) = (astray, pictures);
            return std::mem::replace(&mut edge.max_speakers, max_speakers) != max_speakers;
        }
        if self.edges.is_empty() {
            turn.work.stats.count(Counter::ChannelsOwned);
        }
        self.edges.push(Edge { link: from, heard_at: turn.now, max_speakers, astray, pictures });
        turn.serve_edge(about, from, true);
        self.change();
        true
    }

    /// Forgets edges that were not heard of, or that the registry no longer knows. True when there were any.
    pub(super) fn expire<O: Output>(&mut self, turn: &mut Turn<'_, O>, about: About) -> bool {
        let now = turn.now;
        let gone: Vec<_> = self.edges.iter().filter(|edge| turn.work.links.get(edge.link).is_none()).collect();
        let gone: Vec<_> = gone.into_iter().map(|edge| edge.link).collect();
        self.forget(turn, about, |edge| now.since(edge.heard_at) >= EDGE_LIFETIME || gone.contains(&edge.link))
    }

    fn forget<O: Output>(&mut self, turn: &mut Turn<'_, O>, about: About, which: impl Fn(&Edge) -> bool) -> bool {
        let mut forgotten = false;
        self.edges.retain(|edge| {
            let goes = which(edge);
            if goes {
                turn.serve_edge(about, edge.link, false);
            }
            forgotten |= goes;
            !goes
        });
        if forgotten {
            self.change();
            if self.edges.is_empty() {
                turn.work.stats.down(Counter::ChannelsOwned);
            }
        }
        forgotten
    }

    /// Answers one edge with all that it must know.
    pub(super) fn answer<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        about: About,
        to: SlabKey,
        (claim, open, limit): (Claim, bool, &Limit),
    ) {
        self.tell_nodes(turn, about, Some(to), claim, open);
        if limit.is_set() {
            self.tell_speakers(turn, about, Some(to), limit);
        }
    }

    /// Tells all edges what changed since they were told, or is due to be told again.
    pub(super) fn announce<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        about: About,
        (claim, open, limit): (Claim, bool, &Limit),
    ) {
        if self.edges.is_empty() {
            return;
        }
        let again = turn.now.since(self.told_at) >= REPEAT_AFTER;
        let nodes = std::mem::take(&mut self.changed) || (again && self.repeats > 0);
        let speakers =
            limit.is_set() && (self.speakers_changed(turn.now, limit) || (again && self.speakers_repeats > 0));
        if nodes {
            self.repeats = self.repeats.saturating_sub(u8::from(again));
            self.tell_nodes(turn, about, None, claim, open);
        }
        if speakers || (nodes && limit.is_set()) {
            self.speakers_repeats = self.speakers_repeats.saturating_sub(u8::from(again));
            self.tell_speakers(turn, about, None, limit);
        }
        if nodes || speakers {
            self.told_at = turn.now;
        }
    }

    /// Whether the speakers, or whether there is room for more, differ from what was told. Takes note of them.
    fn speakers_changed(&mut self, now: Micros, limit: &Limit) -> bool {
        let room = limit.room_at() <= now;
        let same = room == self.told_room
            && limit.speakers().len() == self.told_speakers.len()
            && limit.speakers().all(|stream| self.told_speakers.contains(&stream));
        if !same {
            self.told_room = room;
            self.told_speakers.clear();
            self.told_speakers.extend(limit.speakers());
            self.speakers_repeats = REPEATS;
        }
        !same
    }

    /// When something is due.
    pub(super) fn next_at(&self, limit: &Limit) -> Option<Micros> {
        if self.edges.is_empty() {
            return None;
        }
        let expiry = self.edges.iter().map(|edge| edge.heard_at + EDGE_LIFETIME).min();
        let repeat = (self.repeats > 0 || self.speakers_repeats > 0).then(|| self.told_at + REPEAT_AFTER);
        let room = (limit.is_set() && !self.told_room).then(|| limit.room_at());
        [expiry, repeat, room].into_iter().flatten().min()
    }

    fn tell_nodes<O: Output>(
        &self,
        turn: &mut Turn<'_, O>,
        about: About,
        only: Option<SlabKey>,
        claim: Claim,
        open: bool,
    ) {
        let mut numbers = std::mem::take(&mut turn.work.numbers);
        numbers.clear();
        let links = &turn.work.links;
        let me = links.me().filter(|_| open).map(|me| me.number);
        let others = self.links().filter_map(|link| links.get(link).map(|link| link.node.number));
        me.into_iter().chain(others).take(SET_MAX).for_each(|number| numbers.extend(number.0.to_be_bytes()));
        if self.edges.len() + usize::from(open) > SET_MAX {
            turn.work.stats.count(Counter::SetsCut);
        }
        self.tell(turn, about, only, (Kind::NodeSet, &claim.write(), &numbers));
        turn.work.numbers = numbers;
    }

    fn tell_speakers<O: Output>(&self, turn: &mut Turn<'_, O>, about: About, only: Option<SlabKey>, limit: &Limit) {
        let mut numbers = std::mem::take(&mut turn.work.numbers);
        numbers.clear();
        limit.speakers().take(SET_MAX).for_each(|stream| numbers.extend(stream.0.to_be_bytes()));
        // Whom the record has no room for must not be dropped at the source.
        let cut = limit.speakers().len() > SET_MAX;
        if cut {
            turn.work.stats.count(Counter::SetsCut);
        }
        let room = cut || limit.room_at() <= turn.now;
        self.tell(turn, about, only, (Kind::SpeakerSet, &speaker_set_head(room), &numbers));
        turn.work.numbers = numbers;
    }

    fn tell<O: Output>(
        &self,
        turn: &mut Turn<'_, O>,
        about: About,
        only: Option<SlabKey>,
        (kind, head, numbers): (Kind, &[u8], &[u8]),
    ) {
        for link in self.links().filter(|link| only.is_none_or(|only| only == *link)) {
            turn.tell(about, link, kind, head, numbers);
        }
    }
}
