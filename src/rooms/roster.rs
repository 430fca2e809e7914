//! Everyone in a channel, on whatever node, as of a place in its journal.

use std::collections::HashMap;

use antiphon_core::{
    gateway::{MemberView, Position},
    ids::{StreamId, UserId},
};

use crate::cluster::Member;

/// A channel's members as of the newest place taken in.
#[derive(Debug, Default)]
pub(super) struct Roster {
    by_stream: HashMap<StreamId, Listed>,
    by_user: HashMap<UserId, StreamId>,
    /// `None` before the first member here.
    applied: Option<Position>,
}

/// Somebody in the channel.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) member: Member,
    /// In a talk spurt, as the members here were told.
    pub(super) speaking: bool,
}

/// How a journal's place lies to the newest one taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It is taken in already.
    Old,
    /// It is the next one.
    Next,
    /// Something is missing in between, or it is of another journal.
    Gap,
}

/// What lies between the roster and a state.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Not in the state, or there through another session or stream; and whether the user is.
    pub(super) gone: Vec<(Member, bool)>,
    /// Not in the roster.
    pub(super) come: Vec<Member>,
    /// With other switches in the state.
    pub(super) changed: Vec<Member>,
}

impl Roster {
    pub(super) fn applied(&self) -> Option<&Position> {
        self.applied.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.by_stream.len()
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<&Listed> {
        self.by_stream.get(&stream)
    }

    pub(super) fn get_mut(&mut self, stream: StreamId) -> Option<&mut Listed> {
        self.by_stream.get_mut(&stream)
    }

    pub(super) fn stream_of(&self, user: UserId) -> Option<StreamId> {
        self.by_user.get(&user).copied()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.by_stream.values().map(|listed| &listed.member)
    }

    pub(super) fn speaking(&self) -> usize {
        self.by_stream.values().filter(|listed| listed.speaking).count()
    }

    /// How clients see everyone, in the order of age.
    pub(super) fn views(&self) -> Vec<MemberView> {
        let mut views: Vec<MemberView> =
            self.by_stream.values().map(|listed| view(listed.member.clone(), listed.speaking)).collect();
        views.sort_unstable_by_key(|view| view.user_id);
        views
    }

    pub(super) fn order(&self, position: &Position) -> Order {
        match &self.applied {
            Some(applied) if applied.epoch == position.epoch && position.offset <= applied.offset => Order::Old,
            Some(applied) if applied.epoch == position.epoch && position.offset == applied.offset + 1 => Order::Next,
            _ => Order::Gap,
        }
    }

    pub(super) fn advance(&mut self, position: Position) {
        self.applied = Some(position);
    }

    pub(super) fn insert(&mut self, member: Member) {
        self.by_user.insert(member.user.id, member.stream);
        self.by_stream.insert(member.stream, Listed { member, speaking: false });
    }

    pub(super) fn remove(&mut self, stream: StreamId) -> Option<Listed> {
        let listed = self.by_stream.remove(&stream)?;
        // The user may be here with a newer stream.
        if self.stream_of(listed.member.user.id) == Some(stream) {
            self.by_user.remove(&listed.member.user.id);
        }
        Some(listed)
    }

    /// Begins with a state.
    pub(super) fn begin(&mut self, members: Vec<Member>, position: Position) {
        *self = Self { applied: Some(position), ..Self::default() };
        members.into_iter().for_each(|member| self.insert(member));
    }

    pub(super) fn difference(&self, members: Vec<Member>) -> Difference {
        let there: HashMap<UserId, &Member> = members.iter().map(|member| (member.user.id, member)).collect();
        let is_same = |one: &Member, other: &Member| one.session == other.session && one.stream == other.stream;
        let gone = self.members().filter_map(|member| match there.get(&member.user.id) {
            Some(other) if is_same(member, other) => None,
            other => Some((member.clone(), other.is_some())),
        });
        let mut difference = Difference { gone: gone.collect(), ..Difference::default() };
        for member in members {
            match self.get(member.stream).map(|listed| &listed.member) {
                Some(known) if is_same(known, &member) => {
                    if known.switches() != member.switches() {
                        difference.changed.push(member);
                    }
                }
                _ => difference.come.push(member),
            }
        }
        difference
    }
}

/// A member as clients see them.
pub(super) fn view(member: Member, speaking: bool) -> MemberView {
    MemberView {
        user_id: member.user.id,
        stream_id: member.stream,
        muted: member.muted,
        deafened: member.deafened,
        server_muted: member.server_muted,
        speaking,
        media: member.media,
        user: member.user,
    }
}
