//! Somebody in the room: a connection that is opened waiting, and read without.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::gateway::{ClientMessage, Encoding, Error, Heartbeat, JoinText, PostMessage, ServerMessage};

use super::{
    super::{
        LoadError,
        system::{read_stamped, realtime_ns, stamp_arrivals},
    },
    message::{Heard, content, number_of},
    tally::{Seen, Tally},
};
use crate::{
    ServerUrl,
    gateway::{ConnectionError, GatewayError, SweptConnection},
};

/// How long the server may take for each answer until somebody is in the room.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Messages read from one member before others have their turn.
const AT_ONCE: usize = 1_024;

/// The number of the request to enter the room; messages have their own.
const JOIN_REQUEST: i64 = -1;

/// A stream that says when what it brought has arrived, and how much that was.
#[derive(Clone)]
pub(super) struct StampedStream(Arc<Inner>);

struct Inner {
    stream: TcpStream,
    stamp_ns: AtomicU64,
    bytes: AtomicUsize,
}

impl StampedStream {
    fn connect(server: &ServerUrl) -> io::Result<Self> {
        let stream = TcpStream::connect(&*server.gateway().socket_addrs(|| None)?)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stamp_arrivals(&stream)?;
        Ok(Self(Arc::new(Inner { stream, stamp_ns: AtomicU64::new(0), bytes: AtomicUsize::new(0) })))
    }

    /// When the last of what was read arrived.
    fn stamp_ns(&self) -> u64 {
        self.0.stamp_ns.load(Ordering::Relaxed)
    }

    /// How many bytes were read since this was asked before.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes.swap(0, Ordering::Relaxed)
    }
}

impl Read for StampedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, stamp_ns) = read_stamped(&self.0.stream, buffer)?;
        self.0.stamp_ns.store(stamp_ns.unwrap_or_else(realtime_ns), Ordering::Relaxed);
        self.0.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(length)
    }
}

impl Write for StampedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where somebody enters, and as whom.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) server: ServerUrl,
    pub(super) encoding: Encoding,
    pub(super) token: String,
    pub(super) room: String,
}

/// Somebody in the room.
pub(super) struct Member {
    connection: SweptConnection<StampedStream>,
    pub(super) stream: StampedStream,
    encoding: Encoding,
    heartbeat: Duration,
    next_heartbeat: Instant,
    seen: Seen,
}

impl Member {
    /// Connects and enters; waits for each answer.
    pub(super) fn join(door: &Door) -> Result<Self, LoadError> {
        let stream = StampedStream::connect(&door.server)?;
        let opened = SweptConnection::open(stream.clone(), &door.server.gateway(), door.encoding, &door.token);
        let mut connection = opened.map_err(GatewayError::from)?;
        let mut heartbeat = None;
        let join = JoinText { room: door.room.clone() }.into();
        loop {
            match connection.expect().map_err(GatewayError::from)? {
                ServerMessage::Hello(hello) => heartbeat = Some(Duration::from_millis(hello.heartbeat_ms.max(100))),
                ServerMessage::Authenticated(_) => {
                    connection.send(&join, Some(JOIN_REQUEST)).map_err(GatewayError::from)?;
                }
                ServerMessage::JoinAck(_) => break,
                ServerMessage::ChatError(refusal) => {
                    let (error, error_code) = (refusal.data.message, refusal.data.error_code);
                    return Err(LoadError::Refused(Error { error, error_code, timestamp: 0 }));
                }
                ServerMessage::Error(error) => return Err(GatewayError::Refused(error).into()),
                _ => {}
            }
        }
        let heartbeat = heartbeat.ok_or(LoadError::Protocol("did not begin with Hello"))?;
        stream.0.stream.set_nonblocking(true)?;
        let next_heartbeat = Instant::now() + heartbeat;
        Ok(Self { connection, stream, encoding: door.encoding, heartbeat, next_heartbeat, seen: Seen::default() })
    }

    /// Writes the next message.
    pub(super) fn write(&mut self, room: &str, bytes: usize, tally: &mut Tally) -> Result<(), ConnectionError> {
        let number = tally.next();
        let (room, content) = (room.to_owned(), content(number, bytes));
        let message = ClientMessage::from(PostMessage { room, content, nonce: None, reply_to: None });
        tally.sent(realtime_ns());
        self.connection.send(&message, Some(number.into()))
    }

    /// Reads what is there, and says that it lives where that is due.
    pub(super) fn look(&mut self, bytes: usize, tally: &mut Tally, now: Instant) -> Result<(), ConnectionError> {
        for _ in 0..AT_ONCE {
            let Some(message) = self.connection.next()? else { break };
            self.hear(&message, bytes, tally);
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.heartbeat;
            self.connection.send(&Heartbeat {}.into(), None)?;
        }
        Ok(())
    }

    fn hear(&mut self, message: &[u8], bytes: usize, tally: &mut Tally) {
        let Some(heard) = Heard::read(self.encoding, message) else { return };
        let request = heard.request_id.and_then(|request| u32::try_from(request).ok());
        if let Some((code, number)) = heard.refusal().zip(request) {
            return tally.refused(number, code);
        }
        if heard.name != "message" {
            return;
        }
        let data = heard.data.as_ref();
        let number = data.and_then(|data| number_of(data.content?, bytes));
        let number = number.filter(|number| *number < tally.next());
        let (Some(number), Some(id)) = (number, data.and_then(|data| data.id)) else { return tally.corrupt() };
        let (coming, at_ns) = (self.seen.comes(number, id), self.stream.stamp_ns());
        match request {
            Some(request) if request == number => tally.acknowledged(number, coming, at_ns),
            Some(_) => tally.corrupt(),
            None => tally.told(number, coming, at_ns),
        }
    }

    /// Leaves.
    pub(super) fn close(self) {
        self.connection.close();
    }
}
