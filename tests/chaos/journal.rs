//! A channel as its events tell it to one member: without a hole, and each consistent with what was before.

use std::collections::BTreeMap;

use antiphon_core::{
    gateway::{MemberView, Position, ServerMessage},
    ids::{ChannelId, StreamId, UserId},
};

/// A member as the others see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) stream: StreamId,
    pub(crate) muted: bool,
}

/// Everyone in a channel.
pub(crate) type Seats = BTreeMap<UserId, Seat>;

/// What one member knows of a channel.
#[derive(Debug)]
pub(crate) struct View {
    me: UserId,
    position: Position,
    seats: Seats,
    /// How the channel is, as a resumption said: what was missed leads there, or it takes the place of what was known.
    owed: Option<(Position, Seats)>,
}

impl View {
    pub(crate) fn new(me: UserId, position: Position, members: &[MemberView]) -> Self {
        Self { me, position, seats: seats(members), owed: None }
    }

    /// Everyone, as far as is known.
    pub(crate) fn seats(&self) -> &Seats {
        self.owed.as_ref().map_or(&self.seats, |(_, seats)| seats)
    }

    /// How the channel is, as a resumption says. What was missed follows, if the server can say.
    pub(crate) fn resumed(&mut self, position: Position, members: &[MemberView]) -> Result<(), String> {
        self.owed = Some((position, seats(members)));
        self.pay()
    }

    /// How the channel is, since what was missed cannot be said.
    pub(crate) fn recovered(&mut self, position: Position, members: &[MemberView]) {
        (self.position, self.seats, self.owed) = (position, seats(members), None);
    }

    /// The next event.
    pub(crate) fn event(&mut self, message: &ServerMessage) -> Result<(), String> {
        let Some((_, position)) = place(message) else { return Ok(()) };
        if !follows(&self.position, position) {
            let (owed, seats) = self.owed.take().ok_or_else(|| hole(&self.position, message))?;
            (self.position, self.seats) = (owed, seats);
            if !follows(&self.position, position) {
                return Err(hole(&self.position, message));
            }
        }
        self.position = position.clone();
        self.apply(message)?;
        self.pay()
    }

    /// What was missed has come, once it reaches the place of what is owed: both must say the same.
    fn pay(&mut self) -> Result<(), String> {
        let Some((position, owed)) = self.owed.take_if(|(position, _)| *position == self.position) else {
            return Ok(());
        };
        if owed == self.seats {
            return Ok(());
        }
        let error = format!("at {position:?} events lead to {:?}, the state is {owed:?}", self.seats);
        self.seats = owed;
        Err(error)
    }

    fn apply(&mut self, message: &ServerMessage) -> Result<(), String> {
        let consistent = match message {
            ServerMessage::UserJoined(event) => {
                let seat = Seat { stream: event.stream_id, muted: false };
                self.seats.insert(event.user_id, seat).is_none() || event.user_id == self.me
            }
            ServerMessage::UserLeft(event) => {
                let left = self.seats.remove(&event.user_id);
                left.is_some_and(|seat| seat.stream == event.stream_id) || event.user_id == self.me
            }
            ServerMessage::VoiceStateChanged(event) => match self.seats.get_mut(&event.user_id) {
                Some(seat) => {
                    seat.muted = event.muted;
                    true
                }
                None => false,
            },
            _ => true,
        };
        if consistent { Ok(()) } else { Err(format!("{message:?} does not go with what was before")) }
    }
}

fn seats(members: &[MemberView]) -> Seats {
    members.iter().map(|member| (member.user_id, Seat { stream: member.stream_id, muted: member.muted })).collect()
}

fn follows(known: &Position, next: &Position) -> bool {
    known.epoch == next.epoch && known.offset + 1 == next.offset
}

fn hole(known: &Position, message: &ServerMessage) -> String {
    format!("a hole in the journal between {known:?} and {message:?}")
}

/// The place of an event in a channel's journal; `None` for what is no event of one.
pub(crate) fn place(message: &ServerMessage) -> Option<(ChannelId, &Position)> {
    match message {
        ServerMessage::UserJoined(event) => Some((event.channel_id, &event.position)),
        ServerMessage::UserLeft(event) => Some((event.channel_id, &event.position)),
        ServerMessage::VoiceStateChanged(event) => Some((event.channel_id, &event.position)),
        _ => None,
    }
}

/// Whether an event is part of what is known as of `known`.
pub(crate) fn is_old(known: &Position, message: &ServerMessage) -> bool {
    place(message).is_some_and(|(_, position)| position.epoch == known.epoch && position.offset <= known.offset)
}

mod tests {
    use antiphon_core::gateway::{LeaveReason, UserLeft, VoiceStateChanged};
    use uuid::Uuid;

    use super::*;

    const ME: UserId = UserId(Uuid::from_u128(1));
    const OTHER: UserId = UserId(Uuid::from_u128(2));

    fn at(offset: u64) -> Position {
        Position { epoch: "a".to_owned(), offset }
    }

    fn left(offset: u64) -> ServerMessage {
        let channel_id = ChannelId(Uuid::nil());
        let reason = LeaveReason::Left;
        UserLeft { channel_id, user_id: OTHER, stream_id: StreamId(5), reason, position: at(offset) }.into()
    }

    fn muted(offset: u64) -> ServerMessage {
        VoiceStateChanged {
            user_id: OTHER,
            channel_id: ChannelId(Uuid::nil()),
            muted: true,
            deafened: false,
            server_muted: false,
            by: OTHER,
            position: at(offset),
        }
        .into()
    }

    fn with_other() -> View {
        let mut view = View::new(ME, at(1), &[]);
        view.seats.insert(OTHER, Seat { stream: StreamId(5), muted: false });
        view
    }

    #[test]
    fn holes_and_contradictions_are_noticed() {
        let mut view = with_other();
        assert!(view.event(&muted(2)).is_ok() && view.seats()[&OTHER].muted);
        assert!(view.event(&left(4)).is_err(), "a hole");
        assert!(view.event(&left(3)).is_ok());
        assert!(view.event(&left(4)).is_err(), "left twice");
    }

    #[test]
    fn what_was_missed_must_lead_to_the_state() {
        let mut view = with_other();
        assert!(view.resumed(at(2), &[]).is_ok() && view.event(&left(2)).is_ok());
        let mut view = with_other();
        assert!(view.resumed(at(2), &[]).is_ok() && view.event(&muted(2)).is_err());
        let mut view = with_other();
        assert!(view.resumed(at(7), &[]).is_ok() && view.event(&left(8)).is_err(), "the state took the place");
    }
}
