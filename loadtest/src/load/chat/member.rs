//! Somebody in the room: a connection that is opened waiting, and read without.

use std::time::{Duration, Instant};

use antiphon_core::{
    gateway::{ClientMessage, Encoding, Heartbeat, Hello, JoinText, PostMessage, ServerMessage, decode_server},
    ids::ChannelId,
};

use super::{
    super::LoadError,
    message::{Heard, content, number_of},
    resuming::{Missed, Ticket, error_of},
    stream::StampedStream,
    tally::{Seen, Tally},
};
use crate::{
    ServerUrl,
    gateway::{Closed, ConnectionError, GatewayError, HEARTBEATS_UNANSWERED_MAX, SweptConnection, nodes_of},
};

/// Messages read from one member before others have their turn.
const AT_ONCE: usize = 1_024;

/// The number of the request to enter the room; messages have their own.
const JOIN_REQUEST: i64 = -1;

/// Where somebody enters, and as whom.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) server: ServerUrl,
    /// Where else the session may go on, in the order in which they are tried.
    pub(super) others: Vec<ServerUrl>,
    pub(super) encoding: Encoding,
    pub(super) token: String,
    pub(super) room: ChannelId,
}

/// Somebody in the room.
pub(super) struct Member {
    pub(super) connection: SweptConnection<StampedStream>,
    pub(super) stream: StampedStream,
    pub(super) door: Door,
    /// Their place among the members, which says what they write.
    index: usize,
    pub(super) ticket: Ticket,
    heartbeat: Duration,
    next_heartbeat: Instant,
    /// When the server said anything; `None` before anybody looked.
    heard_at: Option<Instant>,
    pub(super) seen: Seen,
}

impl Member {
    /// Connects and enters; waits for each answer.
    pub(super) fn join(door: Door, index: usize) -> Result<Self, LoadError> {
        let stream = StampedStream::connect(&door.server)?;
        let opened = SweptConnection::open(stream.clone(), &door.server.gateway(), door.encoding, Some(&door.token));
        let mut connection = opened.map_err(GatewayError::from)?;
        let mut greeted = None;
        let join = JoinText { room: door.room.to_string() }.into();
        let joined = loop {
            match connection.expect().map_err(GatewayError::from)? {
                ServerMessage::Hello(hello) => greeted = Some(hello),
                ServerMessage::Authenticated(_) => {
                    connection.send(&join, Some(JOIN_REQUEST)).map_err(GatewayError::from)?;
                }
                ServerMessage::JoinAck(joined) => break joined.data,
                ServerMessage::ChatError(refusal) => return Err(LoadError::Refused(error_of(refusal))),
                ServerMessage::Error(error) => return Err(GatewayError::Refused(error).into()),
                _ => {}
            }
        };
        let hello = greeted.ok_or(LoadError::Protocol("did not begin with Hello"))?;
        stream.wait_no_more()?;
        let heartbeat = heartbeat(&hello);
        Ok(Self {
            connection,
            stream,
            door,
            index,
            ticket: Ticket::new(hello.session_id, hello.resume_token, joined.position),
            heartbeat,
            next_heartbeat: Instant::now() + heartbeat,
            heard_at: None,
            seen: Seen::default(),
        })
    }

    /// Goes on with that connection of the same session, which a node greeted with `hello`.
    pub(super) fn go_on(&mut self, connection: SweptConnection<StampedStream>, stream: StampedStream, hello: &Hello) {
        (self.connection, self.stream, self.heartbeat) = (connection, stream, heartbeat(hello));
        (self.next_heartbeat, self.heard_at) = (Instant::now() + self.heartbeat, None);
    }

    /// Writes the message with that number: for the first time, or again, which is told to nobody twice.
    pub(super) fn write(&mut self, number: u32, bytes: usize) -> Result<(), ConnectionError> {
        let (room, content) = (self.door.room.to_string(), content(number, bytes));
        let nonce = Some(format!("{number:08x}"));
        let message = ClientMessage::from(PostMessage { room, content, nonce, reply_to: None });
        self.connection.send(&message, Some(number.into()))
    }

    /// Reads what is there, and says that it lives where that is due. Returns the nodes that it is asked to go to.
    pub(super) fn look(
        &mut self,
        bytes: usize,
        tally: &mut Tally,
        now: Instant,
    ) -> Result<Vec<ServerUrl>, ConnectionError> {
        let mut heard_at = *self.heard_at.get_or_insert(now);
        for _ in 0..AT_ONCE {
            let Some(message) = self.connection.next()? else { break };
            heard_at = now;
            let nodes = self.hear(&message, self.stream.stamp_ns(), bytes, tally);
            if !nodes.is_empty() {
                return Ok(nodes);
            }
        }
        self.heard_at = Some(heard_at);
        if now.duration_since(heard_at) > self.heartbeat * (HEARTBEATS_UNANSWERED_MAX + 1) {
            return Err(ConnectionError::Closed(Closed::BROKEN));
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.heartbeat;
            self.connection.send(&Heartbeat {}.into(), None)?;
        }
        Ok(Vec::new())
    }

    /// Hears a message that arrived then. Returns the nodes that it asks to go to.
    fn hear(&mut self, message: &[u8], at_ns: u64, bytes: usize, tally: &mut Tally) -> Vec<ServerUrl> {
        let Some(heard) = Heard::read(self.door.encoding, message) else { return Vec::new() };
        let request = heard.request_id.and_then(|request| u32::try_from(request).ok());
        if let Some((code, number)) = heard.refusal().zip(request) {
            tally.refused(number, code);
        } else if heard.name == "Reconnect" {
            return asked_to(self.door.encoding, message);
        } else if heard.name == "message" {
            let data = heard.data.as_ref();
            if let Some(position) = data.and_then(|data| data.position.as_ref()) {
                self.ticket.is_at(position.epoch, position.offset);
            }
            let content = data.and_then(|data| data.content);
            self.hear_content(content.zip(data.and_then(|data| data.id)), request, at_ns, bytes, tally);
        }
        Vec::new()
    }

    /// Hears what was written: the content and the id that the server gave it.
    fn hear_content(
        &mut self,
        written: Option<(&str, u64)>,
        request: Option<u32>,
        at_ns: u64,
        bytes: usize,
        tally: &mut Tally,
    ) {
        let numbered = written.and_then(|(content, id)| Some((number_of(content, bytes)?, id)));
        let Some((number, id)) = numbered.filter(|(number, _)| *number < tally.next()) else {
            return tally.corrupt();
        };
        let coming = self.seen.comes(number, id);
        match request {
            Some(request) if request == number => tally.acknowledged(number, coming, at_ns),
            Some(_) => tally.corrupt(),
            // Whose answer was lost is told of their own message like all others.
            None if tally.is_by(number, self.index) => tally.acknowledged(number, coming, at_ns),
            None => tally.told(number, coming, at_ns),
        }
    }

    /// Hears what was missed while the session had no connection; how many messages that were.
    pub(super) fn catch_up(&mut self, missed: &Missed, bytes: usize, tally: &mut Tally) -> u64 {
        for (id, content) in &missed.messages {
            self.hear_content(Some((content, *id)), None, missed.at_ns, bytes, tally);
        }
        for (message, at_ns) in &missed.meanwhile {
            // A node that is asked to let go so early asks again by closing.
            let _asked = self.hear(message, *at_ns, bytes, tally);
        }
        missed.messages.len() as u64
    }

    /// Leaves.
    pub(super) fn close(self) {
        self.connection.close();
    }
}

fn heartbeat(hello: &Hello) -> Duration {
    Duration::from_millis(hello.heartbeat_ms.max(100))
}

/// Where a node that drains would have somebody go.
fn asked_to(encoding: Encoding, message: &[u8]) -> Vec<ServerUrl> {
    match decode_server(encoding, message) {
        Ok((ServerMessage::Reconnect(reconnect), ..)) => nodes_of(&reconnect),
        _ => Vec::new(),
    }
}
