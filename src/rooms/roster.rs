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

    /// Takes over through which nodes members are: a move is no event.
    pub(super) fn take_nodes(&mut self, members: &[Member]) {
        for member in members {
            if let Some(listed) = self.get_mut(member.stream).filter(|listed| is_same(&listed.member, member)) {
                listed.member.node = member.node;
            }
        }
    }

    pub(super) fn difference(&self, members: Vec<Member>) -> Difference {
        let there: HashMap<UserId, &Member> = members.iter().map(|member| (member.user.id, member)).collect();
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

fn is_same(one: &Member, other: &Member) -> bool {
    one.session == other.session && one.stream == other.stream
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

#[cfg(test)]
mod tests {
    use antiphon_core::{
        gateway::{MediaTransport, Role, UserView},
        ids::{NodeNumber, SessionId},
    };
    use uuid::Uuid;

    use super::*;

    fn member(number: u32) -> Member {
        Member {
            user: UserView {
                id: UserId(Uuid::from_u128(number.into())),
                username: format!("user{number}"),
                display_name: String::new(),
                role: Role::User,
                is_active: true,
                is_guest: false,
                created_at: "2026-01-01T00:00:00Z".to_owned(),
            },
            session: SessionId(Uuid::from_u128(number.into())),
            node: NodeNumber(1),
            stream: StreamId(number),
            media: MediaTransport::Udp,
            muted: false,
            deafened: false,
            server_muted: false,
            publishes: false,
        }
    }

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.to_owned(), offset }
    }

    #[test]
    fn places_are_taken_in_one_after_the_other() {
        let mut roster = Roster::default();
        assert_eq!(roster.order(&at("one", 1)), Order::Gap, "nothing is known yet");
        roster.begin(vec![member(1)], at("one", 5));
        for (position, order) in [
            (at("one", 4), Order::Old),
            (at("one", 5), Order::Old),
            (at("one", 6), Order::Next),
            (at("one", 7), Order::Gap),
            (at("two", 6), Order::Gap),
        ] {
            assert_eq!(roster.order(&position), order, "{position:?}");
        }
    }

    #[test]
    fn a_user_with_a_newer_stream_stays_when_the_older_one_goes() {
        let mut roster = Roster::default();
        roster.insert(member(1));
        let newer = Member { stream: StreamId(9), ..member(1) };
        roster.insert(newer.clone());
        assert!(roster.remove(StreamId(1)).is_some() && roster.remove(StreamId(1)).is_none());
        assert_eq!((roster.stream_of(newer.user.id), roster.len()), (Some(StreamId(9)), 1));
    }

    #[test]
    fn a_state_differs_by_who_went_came_and_changed() {
        let mut roster = Roster::default();
        roster.begin(vec![member(1), member(2), member(3), member(4)], at("one", 5));
        let elsewhere = Member { session: SessionId(Uuid::from_u128(99)), stream: StreamId(99), ..member(3) };
        let muted = Member { muted: true, ..member(4) };
        let moved = Member { node: NodeNumber(2), ..member(1) };
        let Difference { mut gone, come, changed } =
            roster.difference(vec![moved, elsewhere.clone(), muted.clone(), member(5)]);
        gone.sort_unstable_by_key(|(member, _)| member.stream);
        assert_eq!(gone, [(member(2), false), (member(3), true)]);
        assert_eq!(come, [elsewhere, member(5)]);
        assert_eq!(changed, [muted], "a member that moved between nodes is no change");
    }

    #[test]
    fn a_member_that_moved_is_known_through_its_node_of_now() {
        let mut roster = Roster::default();
        roster.begin(vec![member(1), member(2)], at("one", 5));
        let moved = |number| Member { node: NodeNumber(7), ..member(number) };
        roster.take_nodes(&[moved(1), Member { session: SessionId(Uuid::from_u128(99)), ..moved(2) }]);
        let node = |stream| roster.get(StreamId(stream)).map(|listed| listed.member.node);
        assert_eq!((node(1), node(2)), (Some(NodeNumber(7)), Some(NodeNumber(1))), "another session is another member");
    }
}
