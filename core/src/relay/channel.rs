//! A channel on this node, as an edge, as its owner, or both.

use super::{
    Counter, Output, RelayEvent,
    edge::{Edge, Owner, Previous},
    limit::Limit,
    link::{Hearing, PathKey},
    owner::Owned,
    timers::{Armed, Due},
    turn::{About, Turn, Work},
    wire::{Claim, Interest, Kind, Level, read_node_set, read_numbers, read_speaker_set},
};
use crate::{
    clock::Micros,
    ids::{ChannelId, NodeNumber, StreamId},
    ring::ChannelPlace,
    slab::SlabKey,
};

/// A channel.
pub(super) struct Channel {
    pub(super) about: About,
    key: SlabKey,
    /// Who should own it by the ring, and by a newer one that another node knows.
    ring_owner: NodeNumber,
    newer_claim: Option<Claim>,
    /// While it is open here.
    pub(super) edge: Option<Edge>,
    pub(super) owned: Owned,
    pub(super) limit: Limit,
    dirty: bool,
    pub(super) armed: Armed,
}

impl Channel {
    pub(super) fn new(id: ChannelId, key: SlabKey, work: &Work) -> Self {
        let place = ChannelPlace::of(id);
        let mut channel = Self {
            about: About { id, place },
            key,
            ring_owner: NodeNumber(0),
            newer_claim: None,
            edge: None,
            owned: Owned::default(),
            limit: Limit::default(),
            dirty: false,
            armed: Armed::default(),
        };
        channel.read_ring(work);
        channel
    }

    /// Nobody here and nobody elsewhere needs it.
    pub(super) fn is_idle(&self) -> bool {
        self.edge.is_none() && self.owned.is_empty()
    }

    pub(super) fn open<O: Output>(&mut self, turn: &mut Turn<'_, O>, max_speakers: u32) {
        if self.edge.is_some() {
            return self.set_max_speakers(turn, max_speakers);
        }
        self.edge = Some(Edge::new(turn.now, max_speakers));
        turn.work.stats.count(Counter::ChannelsOpen);
        self.owned.change();
        self.refresh_limit(turn.now);
        self.choose(turn);
        self.mark(turn.work);
    }

    pub(super) fn set_max_speakers<O: Output>(&mut self, turn: &mut Turn<'_, O>, max_speakers: u32) {
        let Some(edge) = &mut self.edge else { return };
        edge.max_speakers = max_speakers;
        edge.ask_now();
        self.refresh_limit(turn.now);
        self.mark(turn.work);
    }

    pub(super) fn close<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let Some(edge) = self.edge.take() else { return };
        turn.work.stats.down(Counter::ChannelsOpen);
        let previous = edge.previous.and_then(|previous| previous.owner);
        for link in edge.owner.peer().into_iter().chain(previous) {
            self.tell_interest(turn, link, 0, false);
            turn.await_owner(self.about, link, false);
        }
        self.owned.change();
        self.refresh_limit(turn.now);
        self.mark(turn.work);
    }

    /// There is a new ring.
    pub(super) fn ring_changed<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let before = self.claim(turn.work);
        self.read_ring(turn.work);
        if self.claim(turn.work) != before {
            self.owned.change();
        }
        self.choose(turn);
        self.mark(turn.work);
    }

    fn read_ring(&mut self, work: &Work) {
        self.ring_owner = work.ring.owner_at(self.about.place, |_| true).unwrap_or(NodeNumber(0));
        self.newer_claim.take_if(|claim| claim.epoch <= work.ring.epoch());
    }

    /// Who should own the channel, by the newest ring that is known of.
    fn claim(&self, work: &Work) -> Claim {
        self.newer_claim.unwrap_or(Claim { epoch: work.ring.epoch(), owner: self.ring_owner })
    }

    /// Another node says who should own the channel. One that knows a newer ring is believed, if the owner is known.
    fn learn<O: Output>(&mut self, turn: &mut Turn<'_, O>, claim: Claim) {
        if claim.epoch <= self.claim(turn.work).epoch || as_owner(turn.work, claim.owner) == Owner::Nobody {
            return;
        }
        self.newer_claim = Some(claim);
        self.owned.change();
        self.choose(turn);
        self.mark(turn.work);
    }

    /// Follows whoever should own the channel, of those that are heard.
    pub(super) fn choose<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let Some(edge) = &self.edge else { return };
        let chosen = self.best_owner(turn.work);
        if chosen != edge.owner {
            self.follow(turn, chosen);
        }
    }

    fn best_owner(&self, work: &Work) -> Owner {
        let place = self.about.place;
        let usable = |number| match as_owner(work, number) {
            Owner::Nobody => false,
            Owner::Me => true,
            Owner::Peer(link) => work.is_usable(place, link),
        };
        let claimed = self.claim(work).owner;
        if usable(claimed) {
            return as_owner(work, claimed);
        }
        work.ring.owner_at(place, usable).map_or(Owner::Nobody, |number| as_owner(work, number))
    }

    /// Leaves the owner for another; the old one and those that came to it are fed until they have come along.
    fn follow<O: Output>(&mut self, turn: &mut Turn<'_, O>, chosen: Owner) {
        let about = self.about;
        let Some(edge) = &mut self.edge else { return };
        if let Some(link) = chosen.peer() {
            turn.await_owner(about, link, true);
        }
        let (left, set) = edge.follow(turn.now, chosen);
        let former = edge.previous.take();
        if let Some(link) = former.as_ref().and_then(|former| former.owner) {
            // It forgets this node by itself; until then it still forwards what others send it.
            turn.await_owner(about, link, false);
        }
        edge.previous = left.peer().map(|link| {
            let hearing = turn.work.hearing(about.place, link);
            let owner = Some(link).filter(|_| hearing.is_some_and(|hearing| hearing != Hearing::Lost));
            if owner.is_none() {
                turn.await_owner(about, link, false);
            }
            let direct = hearing != Some(Hearing::Well);
            Previous { owner, set, direct, since: turn.now, covered_at: None }
        });
        match (&mut edge.previous, former) {
            (Some(previous), Some(former)) => previous.absorb(former),
            (previous @ None, Some(former)) => {
                *previous = Some(Previous { owner: None, direct: true, covered_at: None, ..former });
            }
            (_, None) => {}
        }
        if left != Owner::Nobody {
            turn.work.stats.count(Counter::OwnerChanges);
        }
        let owner = match chosen {
            Owner::Nobody => None,
            Owner::Me => turn.work.links.me().map(|me| me.number),
            Owner::Peer(link) => turn.work.links.get(link).map(|link| link.node.number),
        };
        turn.out.event(RelayEvent::OwnerChanged { channel: about.id, owner });
        self.see_who_came_along(turn.now, turn.work);
        self.mark(turn.work);
    }

    /// Takes note of whether all nodes that came to the previous owner have come to this one.
    fn see_who_came_along(&mut self, now: Micros, work: &Work) {
        let Some(edge) = &mut self.edge else { return };
        let answered = edge.is_answered(now);
        let Some(previous) = &mut edge.previous else { return };
        let (owner, set, owned) = (edge.owner, &edge.set, &self.owned);
        let came = |link: &SlabKey| match owner {
            Owner::Nobody => false,
            Owner::Me => owned.has(*link),
            Owner::Peer(owner) => *link == owner || set.contains(link),
        };
        let covered =
            answered && previous.set.iter().all(|link| came(link) || !work.is_usable(self.about.place, *link));
        previous.covered_at = if covered { previous.covered_at.or(Some(now)) } else { None };
    }

    /// A node wants the channel, or no longer.
    pub(super) fn interest<O: Output>(&mut self, turn: &mut Turn<'_, O>, from: SlabKey, interest: &Interest) {
        self.learn(turn, interest.claim);
        if self.owned.interest(turn, self.about, from, interest) {
            self.refresh_limit(turn.now);
            self.see_who_came_along(turn.now, turn.work);
            self.mark(turn.work);
        } else if interest.wanted {
            let told = (self.claim(turn.work), self.edge.is_some(), &self.limit);
            self.owned.answer(turn, self.about, from, told);
        }
    }

    /// An owner tells which nodes have listeners.
    pub(super) fn node_set<O: Output>(&mut self, turn: &mut Turn<'_, O>, from: SlabKey, body: &[u8]) -> Option<()> {
        let (claim, numbers) = read_node_set(body)?;
        self.learn(turn, claim);
        let Some(edge) = &mut self.edge else { return Some(()) };
        let links = read_numbers(numbers).filter_map(|number| turn.work.links.by_number(NodeNumber(number)));
        if edge.owner == Owner::Peer(from) {
            edge.set.clear();
            edge.set.extend(links);
            edge.answered(turn.now);
        } else if let Some(previous) = edge.previous.as_mut().filter(|previous| previous.owner == Some(from)) {
            previous.set.clear();
            previous.set.extend(links);
        }
        self.see_who_came_along(turn.now, turn.work);
        self.mark(turn.work);
        Some(())
    }

    /// The owner tells who is forwarded.
    pub(super) fn speaker_set(&mut self, now: Micros, from: SlabKey, body: &[u8]) -> Option<()> {
        let (room, streams) = read_speaker_set(body)?;
        if let Some(edge) = self.edge.as_mut().filter(|edge| edge.owner == Owner::Peer(from)) {
            edge.speakers.set(now, room, read_numbers(streams).map(StreamId));
        }
        Some(())
    }

    /// An edge tells how loud a candidate is.
    pub(super) fn level(&mut self, now: Micros, work: &mut Work, level: &Level) {
        if self.limit.is_set() {
            self.limit.level(now, level.stream, level.loudness, level.priority);
            self.mark(work);
        }
    }

    /// The strictest limit that any node of the channel knows of: a higher one holds once all know it.
    fn refresh_limit(&mut self, now: Micros) {
        let own = self.edge.as_ref().map(|edge| edge.max_speakers);
        let strictest = own.into_iter().chain(self.owned.limits()).filter(|limit| *limit > 0).min();
        self.limit.set_max_speakers(now, strictest.unwrap_or(0));
    }

    /// The batch is over: what changed is told.
    pub(super) fn settle<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        self.dirty = false;
        self.ask(turn);
        self.probe(turn);
        let told = (self.claim(turn.work), self.edge.is_some(), &self.limit);
        self.owned.announce(turn, self.about, told);
        self.arm(turn);
    }

    /// Time passed.
    pub(super) fn due<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        if self.owned.expire(turn, self.about) {
            self.refresh_limit(turn.now);
        }
        self.see_who_came_along(turn.now, turn.work);
        self.end_handover(turn);
        self.settle(turn);
    }

    fn arm<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let edge = self.edge.as_ref();
        let due = [
            edge.and_then(|edge| edge.asks_at(turn.now)),
            edge.filter(|_| self.lost_owner(turn.work).is_some()).map(Edge::probes_at),
            edge.and_then(|edge| edge.previous.as_ref()).map(Previous::ends_at),
            self.owned.next_at(&self.limit),
        ];
        if let Some(at) = due.into_iter().flatten().min() {
            turn.work.timers.arm(&mut self.armed, at.max(turn.now + Micros(1)), Due::Channel(self.key));
        }
    }

    /// Tells the owner, and the one before, that there are listeners here, when that is due.
    fn ask<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let Some(edge) = self.edge.as_mut().filter(|edge| edge.asks_at(turn.now).is_some_and(|at| at <= turn.now))
        else {
            return;
        };
        edge.asked(turn.now);
        let previous = edge.previous.as_ref().and_then(|previous| previous.owner);
        let (owner, max_speakers) = (edge.owner.peer(), edge.max_speakers);
        for link in owner.into_iter().chain(previous) {
            self.tell_interest(turn, link, max_speakers, true);
        }
    }

    /// Asks the lost owner whether it is back: its answer is what brings it back into view.
    fn probe<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let lost = self.lost_owner(turn.work);
        let Some(edge) = self.edge.as_mut().filter(|edge| edge.probes_at() <= turn.now) else { return };
        if let Some(link) = lost {
            edge.probed_at = turn.now;
            let max_speakers = edge.max_speakers;
            self.tell_interest(turn, link, max_speakers, true);
        }
    }

    /// Who should own the channel, when it is not followed because it is lost.
    fn lost_owner(&self, work: &Work) -> Option<SlabKey> {
        let claimed = as_owner(work, self.claim(work).owner);
        let followed = self.edge.as_ref()?.owner;
        claimed.peer().filter(|_| claimed != followed)
    }

    fn tell_interest<O: Output>(&self, turn: &mut Turn<'_, O>, to: SlabKey, max_speakers: u32, wanted: bool) {
        let interest = Interest { claim: self.claim(turn.work), max_speakers, wanted };
        turn.tell(self.about, to, Kind::Interest, &interest.write(), &[]);
    }

    /// Leaves the previous owner for good when its time is over.
    fn end_handover<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let Some(edge) = &mut self.edge else { return };
        let Some(previous) = edge.previous.take_if(|previous| previous.ends_at() <= turn.now) else { return };
        let followed = edge.owner;
        if let Some(link) = previous.owner {
            turn.await_owner(self.about, link, false);
            if followed != Owner::Peer(link) {
                self.tell_interest(turn, link, 0, false);
            }
        }
    }

    /// Has it settled when the batch is over.
    pub(super) fn mark(&mut self, work: &mut Work) {
        if !self.dirty {
            self.dirty = true;
            work.dirty.push(self.key);
        }
    }

    /// Whether it follows, or should follow, a node whose worker is heard differently now.
    pub(super) fn concerns(&self, path: PathKey, work: &Work) -> bool {
        let edge_owner = self.edge.as_ref().and_then(|edge| edge.owner.peer());
        let claimed = as_owner(work, self.claim(work).owner).peer();
        [edge_owner, claimed]
            .into_iter()
            .flatten()
            .any(|link| link == path.link && work.path(self.about.place, link) == Some(path))
    }
}

/// The node of a number as an owner.
fn as_owner(work: &Work, number: NodeNumber) -> Owner {
    if work.links.me().is_some_and(|me| me.number == number) {
        return Owner::Me;
    }
    work.links.by_number(number).map_or(Owner::Nobody, Owner::Peer)
}
