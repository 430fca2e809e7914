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

    /// Whether somebody here may see pictures.
    pub(super) fn set_pictures<O: Output>(&mut self, turn: &mut Turn<'_, O>, pictures: bool) {
        let Some(edge) = self.edge.as_mut().filter(|edge| edge.pictures != pictures) else { return };
        edge.pictures = pictures;
        edge.ask_now();
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
        let (followed, chosen) = (edge.owner, self.best_owner(turn.work));
        if let Some(edge) = &mut self.edge {
            edge.guide.take_if(|guide| chosen != Owner::Peer(*guide));
        }
        if chosen != followed {
            self.follow(turn, chosen);
        }
    }

    fn best_owner(&self, work: &Work) -> Owner {
        let place = self.about.place;
        let deaf = self.edge.as_ref().and_then(|edge| edge.deaf);
        let usable = |number| match as_owner(work, number) {
            Owner::Nobody => false,
            Owner::Me => true,
            Owner::Peer(link) => deaf != Some(link) && work.is_usable(place, link),
        };
        let claimed = self.claim(work).owner;
        if usable(claimed) {
            return as_owner(work, claimed);
        }
        if let Some(guide) = self.edge.as_ref().and_then(|edge| edge.guide)
            && work.is_usable(place, guide)
        {
            return Owner::Peer(guide);
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
            let direct = hearing != Some(Hearing::Well) || edge.deaf == Some(link);
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
        let Some(mut previous) = edge.previous.take() else { return };
        let covered = answered && self.straggler(&previous, work).is_none();
        previous.covered_at = if covered { previous.covered_at.or(Some(now)) } else { None };
        if let Some(edge) = &mut self.edge {
            edge.previous = Some(previous);
        }
    }

    /// A node that came to the previous owner, lives as far as this one can tell, and has not come to this one.
    fn straggler(&self, previous: &Previous, work: &Work) -> Option<SlabKey> {
        let edge = self.edge.as_ref()?;
        let came = |link: SlabKey| match edge.owner {
            Owner::Nobody => false,
            Owner::Me => self.owned.has(link),
            Owner::Peer(owner) => link == owner || edge.set.contains(&link),
        };
        let lives = |link| edge.deaf != Some(link) && work.is_usable(self.about.place, link);
        previous.set.iter().copied().find(|link| !came(*link) && lives(*link))
    }

    /// Who could lead to the others, and when to follow them: the owner is lost, and they stay with it.
    fn guide(&self, work: &Work) -> Option<(SlabKey, Micros)> {
        let edge = self.edge.as_ref().filter(|edge| edge.guide.is_none())?;
        self.lost_owner(work)?;
        let straggler = self.straggler(edge.previous.as_ref()?, work)?;
        Some((straggler, edge.guide_at()))
    }

    /// Leaves an owner that does not answer, though it is heard: it does not hear this node.
    fn leave_deaf<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        if self.edge.as_mut().is_some_and(|edge| edge.note_deaf(turn.now)) {
            self.choose(turn);
        }
    }

    /// Follows somebody who still hears the owner that this node lost, when nobody else lost it.
    fn follow_guide<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let Some((guide, _)) = self.guide(turn.work).filter(|(_, at)| *at <= turn.now) else { return };
        if let Some(edge) = &mut self.edge {
            edge.guide = Some(guide);
        }
        self.choose(turn);
    }

    /// A node wants the channel, or no longer.
    pub(super) fn interest<O: Output>(&mut self, turn: &mut Turn<'_, O>, from: SlabKey, interest: &Interest) {
        self.learn(turn, interest.claim);
        if self.owned.interest(turn, self.about, from, interest) {
            self.refresh_limit(turn.now);
            self.see_who_came_along(turn.now, turn.work);
            self.stop_following(turn, from);
            self.mark(turn.work);
        } else if interest.wanted {
            let told = (self.claim(turn.work), self.edge.is_some(), &self.limit);
            self.owned.answer(turn, self.about, from, told);
        }
    }

    /// A guide that has come to this node has lost the owner, too.
    fn stop_following<O: Output>(&mut self, turn: &mut Turn<'_, O>, guide: SlabKey) {
        let was_guide = self.edge.as_mut().is_some_and(|edge| edge.guide.take_if(|known| *known == guide).is_some());
        if was_guide {
            self.choose(turn);
        }
    }

    /// An owner tells which nodes have listeners.
    pub(super) fn node_set<O: Output>(&mut self, turn: &mut Turn<'_, O>, from: SlabKey, body: &[u8]) -> Option<()> {
        let (claim, numbers) = read_node_set(body)?;
        self.learn(turn, claim);
        let Some(edge) = &mut self.edge else { return Some(()) };
        let links = read_numbers(numbers).filter_map(|number| turn.work.links.by_number(NodeNumber(number)));
        let hears_again = edge.deaf.take_if(|deaf| *deaf == from).is_some();
        if edge.owner == Owner::Peer(from) {
            edge.set.clear();
            edge.set.extend(links);
            edge.answered(turn.now);
        } else if let Some(previous) = edge.previous.as_mut().filter(|previous| previous.owner == Some(from)) {
            previous.set.clear();
            previous.set.extend(links);
        }
        if hears_again {
            self.choose(turn);
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
        self.leave_deaf(turn);
        self.follow_guide(turn);
        self.end_handover(turn);
        self.settle(turn);
    }

    fn arm<O: Output>(&mut self, turn: &mut Turn<'_, O>) {
        let edge = self.edge.as_ref();
        let due = [
            edge.and_then(|edge| edge.asks_at(turn.now)),
            edge.filter(|_| self.lost_owner(turn.work).is_some()).map(Edge::probes_at),
            edge.and_then(|edge| edge.previous.as_ref()).map(Previous::ends_at),
            self.guide(turn.work).map(|(_, at)| at),
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
        let follows = self.edge.as_ref().is_some_and(|edge| edge.owner == Owner::Peer(to));
        let astray = wanted && follows && self.lost_owner(turn.work).is_some();
        let pictures = wanted && self.edge.as_ref().is_some_and(|edge| edge.pictures);
        let interest = Interest { claim: self.claim(turn.work), max_speakers, wanted, astray, pictures };
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
