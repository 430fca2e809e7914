//! A session goes on at another node, or the same: a new connection, and all that was missed meanwhile.

use std::collections::HashMap;

use antiphon_core::{
    gateway::{
        ChatError, Error, Hello, MessageData, Position, Resume, Resumed, ResumedText, RoomHistory, ServerMessage,
        decode_server,
    },
    ids::{ChannelId, MessageId, SessionId},
};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Bytes;

use super::{
    super::system::realtime_ns,
    member::{Door, Member},
    stream::StampedStream,
};
use crate::{
    ServerUrl,
    gateway::{ConnectionError, GatewayError, SweptConnection},
};

/// The number of requests for the room's history; messages have their own.
const HISTORY_REQUEST: i64 = -2;

/// Messages of the history asked for at once: as many as a server gives.
const HISTORY_MAX: u32 = 200;

/// What a session is resumed by.
pub(super) struct Ticket {
    session: SessionId,
    token: String,
    /// Where in the room's journal the last message stood.
    position: Position,
}

impl Ticket {
    pub(super) const fn new(session: SessionId, token: String, position: Position) -> Self {
        Self { session, token, position }
    }

    /// A message came that stands there.
    pub(super) fn is_at(&mut self, epoch: &str, offset: u64) {
        if self.position.epoch != epoch {
            self.position = Position { epoch: epoch.to_owned(), offset };
        }
        self.position.offset = self.position.offset.max(offset);
    }

    fn resume(&self, room: ChannelId) -> Resume {
        Resume {
            session_id: self.session,
            resume_token: self.token.clone(),
            positions: HashMap::from([(room, self.position.clone())]),
        }
    }
}

/// What a session had missed when it went on.
pub(super) struct Missed {
    /// Ids and contents, in order.
    pub(super) messages: Vec<(u64, String)>,
    /// When they arrived.
    pub(super) at_ns: u64,
    /// What came while the history was read, and when.
    pub(super) meanwhile: Vec<(Bytes, u64)>,
    /// Whether the journal had it all; else it is from the room's history.
    pub(super) recovered: bool,
}

impl Member {
    /// Resumes the session at that node, waiting for each answer. The connection of before is used no more once this
    /// one works.
    pub(super) fn resume_at(&mut self, node: &ServerUrl) -> Result<Missed, GatewayError> {
        let stream = StampedStream::connect(node).map_err(ConnectionError::from)?;
        let url = node.gateway();
        let mut connection = SweptConnection::open(stream.clone(), &url, self.door.encoding, None)?;
        let hello = greeting(&mut connection)?;
        connection.send(&self.ticket.resume(self.door.room).into(), None)?;
        let resumed = answer(&mut connection)?;
        let at_ns = stream.stamp_ns();
        let text = self.resumed(resumed)?;
        let recovered = text.recovered == Some(true);
        let mut missed = Missed { messages: Vec::new(), at_ns, meanwhile: Vec::new(), recovered };
        if recovered {
            missed.messages = text.events.iter().flatten().filter_map(posted).collect();
        } else {
            let after = self.seen.last_id();
            missed.read_history(&mut connection, &stream, &self.door, after)?;
        }
        stream.wait_no_more().map_err(ConnectionError::from)?;
        self.go_on(connection, stream, &hello);
        self.now_at(node);
        Ok(missed)
    }

    /// Keeps what the next resume needs: the token of before holds only until something else is sent.
    fn resumed(&mut self, resumed: Resumed) -> Result<ResumedText, GatewayError> {
        (self.ticket.session, self.ticket.token) = (resumed.session_id, resumed.resume_token);
        let text = resumed.rooms.into_iter().find(|text| text.channel_id == self.door.room);
        let text = text.ok_or(GatewayError::Protocol("resumed a session without the room that it was in"))?;
        self.ticket.position = text.position.clone();
        Ok(text)
    }

    /// The session is at this node now; the one before is one of the others.
    fn now_at(&mut self, node: &ServerUrl) {
        let before = std::mem::replace(&mut self.door.server, node.clone());
        self.door.others.retain(|other| other != node && *other != before);
        if before != *node {
            self.door.others.push(before);
        }
    }

    /// Where the session may go on: where it was, and elsewhere.
    pub(super) fn nodes(&self) -> Vec<ServerUrl> {
        std::iter::once(&self.door.server).chain(&self.door.others).cloned().collect()
    }
}

impl Missed {
    /// Asks for everything after that id, page after page.
    fn read_history(
        &mut self,
        connection: &mut SweptConnection<StampedStream>,
        stream: &StampedStream,
        door: &Door,
        mut after: u64,
    ) -> Result<(), GatewayError> {
        loop {
            let (room, limit, after_id) = (door.room.to_string(), Some(HISTORY_MAX), Some(MessageId(after)));
            let ask = RoomHistory { room, limit, before: None, after: after_id };
            connection.send(&ask.into(), Some(HISTORY_REQUEST))?;
            let page = self.page(connection, stream, door)?;
            // A page of long messages has fewer than were asked for.
            let is_last = page.is_empty();
            let posted = page.into_iter().map(|message| (message.id.0, message.content));
            self.messages.extend(posted);
            self.at_ns = realtime_ns();
            match self.messages.last() {
                Some((last, _)) if !is_last => after = *last,
                _ => return Ok(()),
            }
        }
    }

    /// The answer, and whatever comes before it.
    fn page(
        &mut self,
        connection: &mut SweptConnection<StampedStream>,
        stream: &StampedStream,
        door: &Door,
    ) -> Result<Vec<MessageData>, GatewayError> {
        loop {
            let bytes = connection.next()?.ok_or(ConnectionError::TimedOut)?;
            let decoded = decode_server(door.encoding, &bytes);
            let (message, ..) = decoded.map_err(|error| ConnectionError::Message(error.to_string()))?;
            match message {
                ServerMessage::RoomHistoryPage(page) => return Ok(page.data),
                ServerMessage::ChatError(refusal) => return Err(GatewayError::Refused(error_of(refusal))),
                ServerMessage::Error(error) => return Err(GatewayError::Refused(error)),
                _ => self.meanwhile.push((bytes, stream.stamp_ns())),
            }
        }
    }
}

fn greeting(connection: &mut SweptConnection<StampedStream>) -> Result<Hello, GatewayError> {
    match connection.expect()? {
        ServerMessage::Hello(hello) => Ok(hello),
        ServerMessage::Error(error) => Err(GatewayError::Refused(error)),
        _ => Err(GatewayError::Protocol("did not begin with Hello")),
    }
}

fn answer(connection: &mut SweptConnection<StampedStream>) -> Result<Resumed, GatewayError> {
    match connection.expect()? {
        ServerMessage::Resumed(resumed) => Ok(resumed),
        ServerMessage::Error(error) => Err(GatewayError::Refused(error)),
        _ => Err(GatewayError::Protocol("answered Resume with something else")),
    }
}

/// A refusal in the words of all.
pub(super) fn error_of(refusal: ChatError) -> Error {
    Error { error: refusal.data.message, error_code: refusal.data.error_code, timestamp: 0 }
}

/// The id and content of a journal's event, where that is a message.
fn posted(event: &serde_json::Value) -> Option<(u64, String)> {
    #[derive(Deserialize)]
    struct Data {
        id: u64,
        content: String,
    }
    let is_message = event.get("type").is_some_and(|name| name == "message");
    let data = Data::deserialize(event.get("data").filter(|_| is_message)?).ok()?;
    Some((data.id, data.content))
}
