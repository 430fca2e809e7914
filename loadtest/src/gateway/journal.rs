//! Keeps the events of each channel's journal in order and notices what is missing (docs/protocol.md, 3.4).

use std::collections::HashMap;

use antiphon_core::{
    gateway::{Encoding, Position, Recover, Recovered, ServerMessage, decode_server},
    ids::ChannelId,
};

/// Events held back while what they follow is asked for; beyond that the full state will do.
const HELD_MAX: usize = 1_024;

/// What to do after a message was taken.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Give these on, in order.
    pub(super) deliver: Vec<ServerMessage>,
    /// Something is missing: ask for it. What came meanwhile follows it.
    pub(super) ask: Option<Recover>,
}

impl Step {
    fn deliver(deliver: Vec<ServerMessage>) -> Self {
        Self { deliver, ask: None }
    }
}

/// Where we are in each channel's journal.
#[derive(Debug, Default)]
pub(super) struct Journals {
    channels: HashMap<ChannelId, Journal>,
}

#[derive(Debug)]
struct Journal {
    position: Position,
    /// While something was asked for: what came meanwhile.
    held: Option<Vec<ServerMessage>>,
}

impl Journals {
    /// The last position of each channel, for a `Resume`.
    pub(super) fn positions(&self) -> HashMap<ChannelId, Position> {
        self.channels.iter().map(|(channel, journal)| (*channel, journal.position.clone())).collect()
    }

    /// Takes a message in the order of its arrival.
    pub(super) fn take(&mut self, message: ServerMessage) -> Step {
        match &message {
            ServerMessage::ChannelJoined(joined) => self.begin(joined.channel_id, joined.position.clone()),
            ServerMessage::JoinAck(joined) => self.begin(joined.data.channel_id, joined.data.position.clone()),
            ServerMessage::ChannelLeft(left) => self.end(left.channel_id),
            ServerMessage::Removed(removed) => self.end(removed.channel_id),
            ServerMessage::Recovered(recovered) => {
                let recovered = recovered.clone();
                return self.recovered(&recovered, message);
            }
            _ => {}
        }
        match place(&message) {
            Some((channel, position)) => self.event(channel, position.clone(), message),
            None => Step::deliver(vec![message]),
        }
    }

    /// A channel's state is known as of `position`.
    pub(super) fn begin(&mut self, channel: ChannelId, position: Position) {
        self.channels.insert(channel, Journal { position, held: None });
    }

    /// A channel was left.
    pub(super) fn end(&mut self, channel: ChannelId) {
        self.channels.remove(&channel);
    }

    /// What was missed, as a `Resumed` brought it; returns it in order.
    pub(super) fn missed(&mut self, channel: ChannelId, events: &[serde_json::Value]) -> Vec<ServerMessage> {
        let Some(journal) = self.channels.get_mut(&channel) else { return Vec::new() };
        let mut delivered = Vec::new();
        for event in events.iter().filter_map(parse) {
            if let Some((_, position)) = place(&event) {
                journal.position = position.clone();
            }
            delivered.push(event);
        }
        delivered
    }

    fn event(&mut self, channel: ChannelId, position: Position, message: ServerMessage) -> Step {
        // An event of a channel that we are not in any more.
        let Some(journal) = self.channels.get_mut(&channel) else { return Step::default() };
        if let Some(held) = &mut journal.held {
            if held.len() < HELD_MAX {
                held.push(message);
            }
            return Step::default();
        }
        let same_epoch = position.epoch == journal.position.epoch;
        if same_epoch && position.offset <= journal.position.offset {
            return Step::default();
        }
        if same_epoch && position.offset == journal.position.offset + 1 {
            journal.position = position;
            return Step::deliver(vec![message]);
        }
        journal.held = Some(vec![message]);
        let ask = Some(Recover { channel_id: channel, position: journal.position.clone() });
        Step { deliver: Vec::new(), ask }
    }

    /// The answer to what was asked, followed by what was held back meanwhile.
    fn recovered(&mut self, recovered: &Recovered, message: ServerMessage) -> Step {
        let channel = recovered.channel_id;
        let deliver = match (&recovered.events, &recovered.position) {
            (Some(events), _) if recovered.recovered => self.missed(channel, events),
            (_, Some(position)) => {
                if let Some(journal) = self.channels.get_mut(&channel) {
                    journal.position = position.clone();
                }
                vec![message]
            }
            _ => vec![message],
        };
        let mut step = Step::deliver(deliver);
        let held = self.channels.get_mut(&channel).and_then(|journal| journal.held.take());
        for message in held.into_iter().flatten() {
            let Some((_, position)) = place(&message) else { continue };
            let position = position.clone();
            let next = self.event(channel, position, message);
            step.deliver.extend(next.deliver);
            step.ask = step.ask.or(next.ask);
        }
        step
    }

    /// What was asked for and not answered yet, to ask again.
    pub(super) fn unanswered(&self) -> Vec<Recover> {
        let waiting = self.channels.iter().filter(|(_, journal)| journal.held.is_some());
        waiting.map(|(channel, journal)| Recover { channel_id: *channel, position: journal.position.clone() }).collect()
    }
}

/// The place of an event in a channel's journal; `None` for what is no event of one.
fn place(message: &ServerMessage) -> Option<(ChannelId, &Position)> {
    match message {
        ServerMessage::UserJoined(event) => Some((event.channel_id, &event.position)),
        ServerMessage::UserLeft(event) => Some((event.channel_id, &event.position)),
        ServerMessage::VoiceStateChanged(event) => Some((event.channel_id, &event.position)),
        // Those between two people have neither, and those told after a time without the journal no place.
        ServerMessage::MessagePosted(event) => Some((event.data.channel_id, event.data.position.as_ref()?)),
        ServerMessage::MessageEdited(event) => Some((event.data.channel_id?, event.data.position.as_ref()?)),
        ServerMessage::MessageDeleted(event) => Some((event.data.channel_id?, event.data.position.as_ref()?)),
        ServerMessage::ReactionsChanged(event) => Some((event.data.channel_id?, event.data.position.as_ref()?)),
        ServerMessage::RecordingStarted(event) => Some((event.channel_id, event.position.as_ref()?)),
        ServerMessage::RecordingStopped(event) => Some((event.channel_id, event.position.as_ref()?)),
        ServerMessage::RecordingFinished(event) => Some((event.channel_id, event.position.as_ref()?)),
        _ => None,
    }
}

/// Events inside `Recovered` and `Resumed` are JSON values whatever the encoding. Ones of a later protocol are passed over.
fn parse(event: &serde_json::Value) -> Option<ServerMessage> {
    let bytes = serde_json::to_vec(event).ok()?;
    decode_server(Encoding::Json, &bytes).ok().map(|(message, ..)| message)
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        gateway::{Shape, VoiceStateChanged, encode_server},
        ids::UserId,
    };
    use uuid::Uuid;

    use super::*;

    const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(3));

    fn position(offset: u64) -> Position {
        Position { epoch: "a".to_owned(), offset }
    }

    fn event(offset: u64) -> ServerMessage {
        let user = UserId(Uuid::from_u128(9));
        VoiceStateChanged {
            user_id: user,
            channel_id: CHANNEL,
            muted: offset.is_multiple_of(2),
            deafened: false,
            server_muted: false,
            by: user,
            position: position(offset),
        }
        .into()
    }

    fn as_json(message: &ServerMessage) -> serde_json::Value {
        let bytes = encode_server(Encoding::Json, Shape::Tagged, message, None);
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn joined_at(offset: u64) -> Journals {
        let mut journals = Journals::default();
        journals.begin(CHANNEL, position(offset));
        journals
    }

    #[test]
    fn in_order_passes_and_old_is_dropped() {
        let mut journals = joined_at(4);
        assert_eq!(journals.take(event(5)), Step::deliver(vec![event(5)]));
        assert_eq!(journals.take(event(5)), Step::default());
        assert_eq!(journals.take(event(6)), Step::deliver(vec![event(6)]));
        assert_eq!(journals.positions()[&CHANNEL], position(6));
    }

    #[test]
    fn a_gap_is_asked_for_and_what_follows_waits() {
        let mut journals = joined_at(4);
        let asked = Recover { channel_id: CHANNEL, position: position(4) };
        assert_eq!(journals.take(event(7)), Step { deliver: Vec::new(), ask: Some(asked.clone()) });
        assert_eq!(journals.take(event(8)), Step::default());
        assert_eq!(journals.unanswered(), [asked]);
        let answer = Recovered {
            channel_id: CHANNEL,
            recovered: true,
            events: Some([5, 6, 7].map(|offset| as_json(&event(offset))).to_vec()),
            members: None,
            position: None,
            recording: None,
        };
        assert_eq!(journals.take(answer.into()), Step::deliver([5, 6, 7, 8].map(event).to_vec()));
        assert_eq!(journals.take(event(9)), Step::deliver(vec![event(9)]));
        assert_eq!(journals.unanswered(), []);
    }

    #[test]
    fn a_gap_in_what_waited_is_asked_for_in_turn() {
        let mut journals = joined_at(4);
        journals.take(event(6));
        journals.take(event(9));
        let answer = Recovered {
            channel_id: CHANNEL,
            recovered: true,
            events: Some([5, 6].map(|offset| as_json(&event(offset))).to_vec()),
            members: None,
            position: None,
            recording: None,
        };
        let asked = Recover { channel_id: CHANNEL, position: position(6) };
        assert_eq!(journals.take(answer.into()), Step { deliver: vec![event(5), event(6)], ask: Some(asked) });
    }

    #[test]
    fn the_full_state_replaces_what_cannot_be_recovered() {
        let mut journals = joined_at(4);
        let mut anew = event(1);
        if let ServerMessage::VoiceStateChanged(change) = &mut anew {
            change.position = Position { epoch: "b".to_owned(), offset: 1 };
        }
        assert!(journals.take(anew.clone()).ask.is_some(), "another epoch");
        let state: ServerMessage = Recovered {
            channel_id: CHANNEL,
            recovered: false,
            events: None,
            members: Some(Vec::new()),
            position: Some(Position { epoch: "b".to_owned(), offset: 1 }),
            recording: None,
        }
        .into();
        assert_eq!(journals.take(state.clone()), Step::deliver(vec![state]));
        assert_eq!(journals.positions()[&CHANNEL].epoch, "b");
    }
}
