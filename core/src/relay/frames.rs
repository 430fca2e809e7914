//! A frame's way through a relay.

use super::{
    Counter, Output,
    channel::Channel,
    link::Hearing,
    turn::{About, Framed, Turn, Work},
    wire::{Hop, Kind, Level, RELAYED_BODY_BYTES_MAX, RELAYED_FRAME_BYTES_MAX, audio_head},
};
use crate::{clock::Micros, slab::SlabKey, wire::frame::FrameHeader};

impl Channel {
    /// A frame of a member here. False when it is not to be heard by anyone, as others are louder.
    pub(super) fn local_frame<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        header: &FrameHeader,
        bytes: &[u8],
    ) -> bool {
        if self.limit.is_set() && !self.is_selected(turn, header) {
            turn.work.stats.count(Counter::FrameNotSelected);
            return false;
        }
        if bytes.len() > RELAYED_FRAME_BYTES_MAX {
            turn.work.stats.count(Counter::FrameTooLong);
            return true;
        }
        let head = audio_head(header);
        self.spread(turn, Framed::audio(&head, bytes));
        true
    }

    /// Something of those who meet by WebRTC here. It goes a frame's way; pictures only to nodes where somebody may see them.
    pub(super) fn local_record<O: Output>(&mut self, turn: &mut Turn<'_, O>, record: Framed<'_>) {
        if record.head.len() + record.bytes.len() > RELAYED_BODY_BYTES_MAX {
            return turn.work.stats.count(Counter::FrameTooLong);
        }
        self.spread(turn, record);
    }

    fn spread<O: Output>(&mut self, turn: &mut Turn<'_, O>, frame: Framed<'_>) {
        for link in self.owned.links_for(frame.kind) {
            turn.frame(self.about, link, Hop::FromOwner, frame);
        }
        self.feed_owners(turn, frame);
    }

    /// Something of those who meet by WebRTC elsewhere.
    pub(super) fn remote_record<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        from: SlabKey,
        hop: Hop,
        (kind, body): (Kind, &[u8]),
    ) {
        let record = Framed { kind, head: &[], bytes: body };
        if hop == Hop::ToOwner {
            for link in self.owned.links_for(kind).filter(|link| *link != from) {
                turn.frame(self.about, link, Hop::FromOwner, record);
            }
        }
        self.guide_frame(turn, from, hop, record);
        if self.edge.is_some() {
            turn.out.record(self.about.id, kind == Kind::Picture, body);
        }
    }

    /// Sends a frame of a member here to the owner and, where it is not heard, does not answer or has just changed, to those
    /// beside it.
    fn feed_owners<O: Output>(&mut self, turn: &mut Turn<'_, O>, frame: Framed<'_>) {
        let (about, owned) = (self.about, &self.owned);
        let Some(edge) = &mut self.edge else { return };
        let owner = edge.owner.peer();
        let answered = edge.is_answered(turn.now);
        let set = &edge.set[..];
        let mut direct = false;
        if let Some(owner) = owner
            && (!answered || !set.is_empty())
        {
            turn.frame(about, owner, Hop::ToOwner, frame);
            if edge.is_unheard(turn.now) || turn.work.hearing(about.place, owner) != Some(Hearing::Well) {
                direct = true;
                send_direct(turn, about, frame, set, |link| link == owner || owned.has(link));
            }
        }
        if let Some(previous) = &edge.previous {
            let to_owner = previous.owner.filter(|link| Some(*link) != owner);
            if let Some(link) = to_owner {
                turn.frame(about, link, Hop::ToOwner, frame);
            }
            let heard = |link| turn.work.hearing(about.place, link) == Some(Hearing::Well);
            if previous.direct || to_owner.is_none_or(|link| !heard(link)) {
                direct = true;
                let fed =
                    |link| Some(link) == owner || to_owner == Some(link) || set.contains(&link) || owned.has(link);
                send_direct(turn, about, frame, &previous.set, fed);
            }
        }
        if direct && !edge.direct {
            turn.work.stats.count(Counter::DirectEntries);
        }
        edge.direct = direct;
    }

    /// Whether a frame of a member here is forwarded where speakers are limited. Where the owner has told who is, that
    /// decides, and who is not stays a candidate by their level; else the loudest here are.
    fn is_selected<O: Output>(&mut self, turn: &mut Turn<'_, O>, header: &FrameHeader) -> bool {
        let now = turn.now;
        let admitted = self.limit.admit(now, header);
        if !self.owned.is_empty() {
            self.mark(turn.work);
        }
        let Some((owner, edge)) = self.edge.as_ref().and_then(|edge| Some((edge.owner.peer()?, edge))) else {
            return admitted;
        };
        let told = edge.is_answered(now) && edge.speakers.is_known(now);
        if !told || turn.work.hearing(self.about.place, owner) != Some(Hearing::Well) {
            return admitted;
        }
        let priority = header.has(FrameHeader::FLAG_PRIORITY);
        if edge.speakers.room || priority || edge.speakers.streams.contains(&header.stream) {
            return true;
        }
        if let Some(loudness) = self.limit.level_to_tell(now, header) {
            let level = Level { stream: header.stream, loudness, priority };
            turn.tell(self.about, owner, Kind::Level, &level.write(), &[]);
        }
        false
    }

    /// A frame of a member elsewhere.
    pub(super) fn remote_frame<O: Output>(
        &mut self,
        turn: &mut Turn<'_, O>,
        from: SlabKey,
        hop: Hop,
        (header, bytes): (&FrameHeader, &[u8]),
    ) {
        let open = self.edge.is_some();
        let mut passed = open;
        if hop == Hop::ToOwner {
            if self.limit.is_set() && !self.admits(turn.now, turn.work, header) {
                return turn.work.stats.count(Counter::FrameNotSelected);
            }
            let head = audio_head(header);
            for link in self.owned.links().filter(|link| *link != from) {
                turn.frame(self.about, link, Hop::FromOwner, Framed::audio(&head, bytes));
                passed = true;
            }
        }
        self.guide_frame(turn, from, hop, Framed::audio(&audio_head(header), bytes));
        if open {
            turn.out.deliver(self.about.id, header, bytes);
        } else if !passed {
            turn.work.stats.count(Counter::FrameNotOpen);
        }
    }

    /// Passes a frame on between the owner that this node follows and nodes that came here because they lost it. It goes
    /// no further from there, so that it cannot come round; where speakers are limited both sides choose their own.
    fn guide_frame<O: Output>(&self, turn: &mut Turn<'_, O>, from: SlabKey, hop: Hop, frame: Framed<'_>) {
        if self.owned.is_empty() {
            return;
        }
        let Some((edge, owner)) = self.edge.as_ref().and_then(|edge| Some((edge, edge.owner.peer()?))) else { return };
        let about = self.about;
        match hop {
            Hop::FromOwner if from == owner => {
                for link in self.owned.astray().filter(|link| *link != from) {
                    turn.frame(about, link, Hop::Direct, frame);
                }
            }
            Hop::ToOwner if from != owner && self.owned.astray().any(|link| link == from) => {
                turn.frame(about, owner, Hop::Direct, frame);
                send_direct(turn, about, frame, &edge.set, |link| link == owner || self.owned.has(link));
            }
            _ => {}
        }
    }

    fn admits(&mut self, now: Micros, work: &mut Work, header: &FrameHeader) -> bool {
        self.mark(work);
        self.limit.admit(now, header)
    }
}

/// Sends a frame to the nodes of a set, but for those that get it anyway.
fn send_direct<O: Output>(
    turn: &mut Turn<'_, O>,
    about: About,
    frame: Framed<'_>,
    set: &[SlabKey],
    fed: impl Fn(SlabKey) -> bool,
) {
    for link in set.iter().copied().filter(|link| !fed(*link)) {
        turn.frame(about, link, Hop::Direct, frame);
    }
}
