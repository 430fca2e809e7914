//! What happened in a channel, whoever did it, takes effect here.
//!
//! ```text
//!  a change made here ──► its news ──┐
//!  a notice of another node's ───────┼──► take_in ──► happen: roster, members told, media worker
//!  the journal or the state, read ───┘     (in the journal's order, each entry once)
//! ```

use std::sync::Arc;

use antiphon_core::{
    gateway::{LeaveReason, Position, Removed, ServerMessage, UserJoined, UserLeft, VoiceStateChanged},
    ids::{StreamId, UserId},
};

use super::{
    Rooms,
    outlet::Shared,
    room::Room,
    roster::{Difference, Order},
};
use crate::{
    cluster::{About, AboutMember, Entry, Member, News, Snapshot, Unavailable},
    telemetry::metrics::metrics,
};

impl Rooms {
    /// Brings a room up to what happened, within its turn. What was taken in before is passed over; what is missing is
    /// read.
    pub(super) async fn take_in(&self, room: &Arc<Room>, news: News) {
        let gap = match news {
            News::Entries(entries) => self.take_entries(room, entries).await,
            News::State { members, position } => {
                self.take_state(room, members, position).await;
                false
            }
        };
        // What others do while this room goes on by itself is read when it no longer does.
        if gap && !room.is_alone() {
            metrics().rooms.gaps.increment(1);
            self.read_on(room).await;
        }
    }

    /// Brings a room up to a change made here. It takes effect also where what came before it cannot be read.
    pub(super) async fn take_change(&self, room: &Arc<Room>, news: News) {
        let change = match &news {
            News::Entries(entries) => entries.last().cloned(),
            News::State { .. } => None,
        };
        self.take_in(room, news).await;
        let Some(change) = change else { return };
        let is_taken = room.live().roster.order(&change.position) == Order::Old;
        if !is_taken && !room.is_alone() {
            self.happen(room, &change).await;
            self.go_alone(room);
        }
    }

    /// Takes entries in up to the first gap. True when there was one.
    async fn take_entries(&self, room: &Arc<Room>, entries: Vec<Entry>) -> bool {
        for entry in entries {
            let order = room.live().roster.order(&entry.position);
            match order {
                Order::Old => {}
                Order::Next => {
                    room.live_mut().roster.advance(entry.position.clone());
                    self.happen(room, &entry).await;
                }
                Order::Gap => return true,
            }
        }
        false
    }

    /// Reads what happened after the newest place taken in. While that cannot be reached, or the room goes on by itself
    /// and so under a journal of its own, the room is left as it is: everything is read anew afterwards.
    pub(super) async fn read_on(&self, room: &Arc<Room>) {
        if room.is_alone() {
            return;
        }
        let applied = room.applied();
        match self.inner.membership.snapshot(room.id, applied.as_ref()).await {
            Ok(Some(snapshot)) => self.take_snapshot(room, snapshot).await,
            // Whatever kept it has lost it: what is known here is written back.
            Ok(None) => self.reconcile_soon(room),
            Err(Unavailable) => {}
        }
    }

    pub(super) async fn take_snapshot(&self, room: &Arc<Room>, snapshot: Snapshot) {
        let Snapshot { members, position, missed } = snapshot;
        let gap = match missed {
            Some(entries) => self.take_entries(room, entries).await,
            None => true,
        };
        if gap {
            self.take_state(room, members, position).await;
        }
    }

    /// Takes a state that was read, unless its journal was lost and began anew with whoever came first.
    async fn take_state(&self, room: &Arc<Room>, members: Vec<Member>, position: Position) {
        let come = {
            let live = room.live();
            live.is_forgotten_by(&members, &position).then(|| live.roster.difference(members.clone()).come)
        };
        match come {
            Some(come) => self.outlive(room, come, &position).await,
            None => self.agree(room, members, position).await,
        }
    }

    /// Lets in whoever came to a journal that began anew, and sends nobody away: the room goes on by itself until all nodes have
    /// written their members back.
    async fn outlive(&self, room: &Arc<Room>, come: Vec<Member>, position: &Position) {
        for member in come {
            self.happen(room, &come_entry(room, &member, position)).await;
        }
        self.go_alone(room);
        self.reconcile_soon(room);
    }

    /// Makes a room agree with a state; the members are told the difference, each with the state's place.
    pub(super) async fn agree(&self, room: &Arc<Room>, members: Vec<Member>, position: Position) {
        let begins = room.applied().is_none();
        if begins {
            room.live_mut().roster.begin(members, position);
            return self.look_at_recording(room).await;
        }
        let Difference { gone, come, changed } = {
            let live = &mut *room.live_mut();
            let is_old = live.roster.order(&position) == Order::Old;
            if is_old {
                return;
            }
            live.roster.advance(position.clone());
            live.roster.take_nodes(&members);
            live.roster.difference(members)
        };
        // What was written meanwhile is not in the state.
        self.finish_chat_soon(room.id);
        for (member, is_there) in gone {
            self.happen(room, &gone_entry(room, member, is_there, &position)).await;
        }
        for member in come {
            self.happen(room, &come_entry(room, &member, &position)).await;
            if member.switches() != (false, false, false) {
                self.happen(room, &changed_entry(room, &member, &position)).await;
            }
        }
        for member in changed {
            self.happen(room, &changed_entry(room, &member, &position)).await;
        }
        self.look_at_recording(room).await;
    }

    /// The one way in which anything happens in a room.
    async fn happen(&self, room: &Arc<Room>, entry: &Entry) {
        let about = match &entry.about {
            About::Member(about) => about,
            About::Chat(about) => return self.chat_happened(room, entry, *about).await,
            About::Channel => return self.channel_happened(room, entry).await,
        };
        match &*entry.event {
            ServerMessage::UserJoined(joined) => {
                room.live_mut().roster.insert(came(joined, about));
                room.broadcast(&Shared::event(&entry.event), Some(joined.stream_id));
                self.publisher_came(room, joined.stream_id).await;
                self.apply_gains_to(room, joined.user_id, joined.stream_id).await;
            }
            ServerMessage::UserLeft(left) => self.left(room, left, entry, about).await,
            ServerMessage::VoiceStateChanged(changed) => self.voice_changed(room, changed, entry).await,
            _ => room.broadcast(&Shared::event(&entry.event), None),
        }
    }

    async fn left(&self, room: &Arc<Room>, left: &UserLeft, entry: &Entry, about: &AboutMember) {
        room.live_mut().roster.remove(left.stream_id);
        let farewell = match left.reason {
            // They asked for it, and are answered.
            LeaveReason::Left | LeaveReason::Moved => None,
            reason => {
                // Who was replaced did it themselves, whatever the entry says of it.
                let by = if reason == LeaveReason::Replaced { Some(left.user_id) } else { about.by };
                Some(Shared::new(Removed { channel_id: room.id, reason, by, message: about.message.clone() }))
            }
        };
        if let (LeaveReason::Kicked | LeaveReason::Banned, Some(farewell)) = (left.reason, &farewell) {
            // Whoever was removed from a channel does not go on to read there.
            room.remove_texts_of(left.user_id, farewell);
        }
        let member = self.take_out(room, left.stream_id, farewell.as_ref()).await;
        room.broadcast(&Shared::event(&entry.event), None);
        self.publisher_went(room, left.user_id, left.stream_id).await;
        self.forget_levels_of(room, left.user_id, left.stream_id).await;
        if let Some(udp) = member.and_then(|member| member.udp) {
            self.leave_group(room, udp.cipher).await;
        }
    }

    async fn voice_changed(&self, room: &Arc<Room>, changed: &VoiceStateChanged, entry: &Entry) {
        let stream = room.live().roster.stream_of(changed.user_id);
        if let Some(stream) = stream {
            self.set_voice_of(room, stream, changed).await;
        }
        room.broadcast(&Shared::event(&entry.event), None);
    }

    async fn set_voice_of(&self, room: &Room, stream: StreamId, changed: &VoiceStateChanged) {
        if let Some(listed) = room.live_mut().roster.get_mut(stream) {
            listed.member.muted = changed.muted;
            listed.member.deafened = changed.deafened;
            listed.member.server_muted = changed.server_muted;
        }
        self.set_switches(room, stream, |switches| {
            switches.muted = changed.muted;
            switches.deafened = changed.deafened;
            switches.server_muted = changed.server_muted;
        })
        .await;
        if changed.muted || changed.server_muted {
            self.set_speaking(room, stream, false);
        }
    }
}

/// Who came, as far as the entry says.
fn came(joined: &UserJoined, about: &AboutMember) -> Member {
    Member {
        user: joined.user.clone(),
        session: about.session,
        node: about.node,
        stream: joined.stream_id,
        media: joined.media,
        muted: false,
        deafened: false,
        server_muted: about.server_muted,
        publishes: false,
    }
}

/// An entry that stands for those that were missed.
fn entry(about: &Member, by: Option<UserId>, event: impl Into<ServerMessage>, position: &Position) -> Entry {
    Entry {
        position: position.clone(),
        event: Arc::new(event.into()),
        about: About::Member(AboutMember {
            session: about.session,
            node: about.node,
            server_muted: about.server_muted,
            by,
            message: None,
        }),
    }
}

fn gone_entry(room: &Room, member: Member, is_there: bool, position: &Position) -> Entry {
    let is_here = room.live().members.contains_key(&member.stream);
    let (reason, by) = match (is_there, is_here) {
        (true, _) => (LeaveReason::Replaced, Some(member.user.id)),
        // Who leaves by themselves leaves through this node, so it was somebody else's doing.
        (false, true) => (LeaveReason::Kicked, None),
        (false, false) => (LeaveReason::Left, Some(member.user.id)),
    };
    let event = UserLeft {
        channel_id: room.id,
        user_id: member.user.id,
        stream_id: member.stream,
        reason,
        position: position.clone(),
    };
    entry(&member, by, event, position)
}

fn come_entry(room: &Room, member: &Member, position: &Position) -> Entry {
    let event = UserJoined {
        channel_id: room.id,
        user_id: member.user.id,
        stream_id: member.stream,
        user: member.user.clone(),
        media: member.media,
        position: position.clone(),
    };
    entry(member, Some(member.user.id), event, position)
}

fn changed_entry(room: &Room, member: &Member, position: &Position) -> Entry {
    let by = member.user.id;
    entry(member, Some(by), member.voice_state(room.id, by, position.clone()), position)
}
