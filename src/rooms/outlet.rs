//! How rooms reach a member: messages that are encoded once however many they go to, and the queue they go into.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use antiphon_core::gateway::{Encoding, RequestId, ServerMessage, Shape, encode_server};
use bytes::Bytes;

/// Where messages for one connection go. A member without a connection has one that discards what it gets.
pub trait Outlet: Send + Sync + fmt::Debug {
    /// Queues an answer or an event. While the connection lives, none of these is lost and their order stays: where
    /// the queue is full the connection is closed as too slow.
    fn send(&self, message: &Shared);

    /// Queues a frame of audio. Where the queue is full its oldest frame gives way and is counted.
    fn send_audio(&self, frame: &Shared);

    /// Where the client wants a message's type: events inside a message follow that, too.
    fn shape(&self) -> Shape;
}

/// Where nobody hears: a client without a connection to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Unheard;

impl Outlet for Unheard {
    fn send(&self, _: &Shared) {}

    fn send_audio(&self, _: &Shared) {}

    fn shape(&self) -> Shape {
        Shape::Tagged
    }
}

/// Which of the four encoded forms a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// JSON or `MessagePack`.
    pub encoding: Encoding,
    /// With `type`, or under its type.
    pub shape: Shape,
}

impl Form {
    const fn index(self) -> usize {
        let encoding = match self.encoding {
            Encoding::Json => 0,
            Encoding::MessagePack => 2,
        };
        match self.shape {
            Shape::Tagged => encoding,
            Shape::External => encoding + 1,
        }
    }
}

/// Memory of all encoded messages of this process.
static ENCODED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How much memory encoded messages take that somebody still has to be sent, each counted once however many wait for it.
#[must_use]
pub fn encoded_bytes() -> usize {
    ENCODED_BYTES.load(Relaxed)
}

/// An encoded message, which counts until the last who holds it has let go.
struct Encoded(Vec<u8>);

impl Encoded {
    fn bytes(encoded: Vec<u8>) -> Bytes {
        ENCODED_BYTES.fetch_add(encoded.capacity(), Relaxed);
        Bytes::from_owner(Self(encoded))
    }
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        ENCODED_BYTES.fetch_sub(self.0.capacity(), Relaxed);
    }
}

/// A message to any number of connections, encoded at most once in each form.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    message: Arc<ServerMessage>,
    request_id: Option<RequestId>,
    /// May wait a moment for company.
    is_patient: bool,
    encoded: [OnceLock<Bytes>; 4],
}

impl Shared {
    /// A message of our own accord.
    pub fn new(message: impl Into<ServerMessage>) -> Self {
        Self::answer(message, None)
    }

    /// A message that answers the one which carried `request_id`.
    pub fn answer(message: impl Into<ServerMessage>, request_id: Option<RequestId>) -> Self {
        Self::build(Arc::new(message.into()), request_id, false)
    }

    /// An entry of a channel's journal. It goes to everyone there, so it may wait a moment for the next one.
    #[must_use]
    pub fn event(event: &Arc<ServerMessage>) -> Self {
        Self::build(Arc::clone(event), None, true)
    }

    /// An entry of a channel's journal, as the answer to whoever made it.
    #[must_use]
    pub fn answer_event(event: &Arc<ServerMessage>, request_id: Option<RequestId>) -> Self {
        Self::build(Arc::clone(event), request_id, false)
    }

    fn build(message: Arc<ServerMessage>, request_id: Option<RequestId>, is_patient: bool) -> Self {
        Self(Arc::new(Inner { message, request_id, is_patient, encoded: [const { OnceLock::new() }; 4] }))
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &ServerMessage {
        &self.0.message
    }

    /// Whether it may wait a moment, so that others travel with it.
    #[must_use]
    pub fn is_patient(&self) -> bool {
        self.0.is_patient
    }

    /// Its bytes in a form, made when first asked for.
    #[must_use]
    pub fn bytes(&self, form: Form) -> &Bytes {
        self.0.encoded[form.index()].get_or_init(|| {
            Encoded::bytes(encode_server(form.encoding, form.shape, &self.0.message, self.0.request_id.as_ref()))
        })
    }
}

impl fmt::Debug for Shared {
    /// Its type only: messages hold tokens, keys and what people say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.0.message.name())
    }
}

/// An event as a value inside another message, in the shape that the connection speaks.
pub(super) fn event_value(event: &ServerMessage, shape: Shape) -> serde_json::Value {
    let bytes = encode_server(Encoding::Json, shape, event, None);
    serde_json::from_slice(&bytes).expect("it was encoded as JSON just now")
}

#[cfg(test)]
mod tests {
    use antiphon_core::gateway::{Ack, HeartbeatAck};

    use super::*;

    #[test]
    fn each_form_is_encoded_once_and_is_its_own() {
        let message = Shared::answer(Ack {}, Some(RequestId::Number(7)));
        let mut seen = Vec::new();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            for shape in [Shape::Tagged, Shape::External] {
                let form = Form { encoding, shape };
                let bytes = message.bytes(form).clone();
                assert_eq!(bytes.as_ptr(), message.clone().bytes(form).as_ptr(), "shared by clones");
                assert!(!seen.contains(&bytes), "{form:?}");
                seen.push(bytes);
            }
        }
        assert_eq!(&seen[0][..], br#"{"type":"Ack","request_id":7}"#);
        assert_eq!(&seen[1][..], br#"{"Ack":{"request_id":7}}"#);
    }

    #[test]
    fn a_message_counts_once_for_each_form_until_nobody_holds_it() {
        // Far more than what other tests of this process hold meanwhile.
        const LONG: usize = 16 << 20;
        let reason = "x".repeat(LONG);
        let message = Shared::new(antiphon_core::gateway::Reconnect { reason, grace_ms: 0, nodes: Vec::new() });
        let counts = |times: usize| (times * LONG..(4 * times + 1) * LONG).contains(&encoded_bytes());
        assert!(counts(0), "it is not encoded before it is asked for");
        let held = [(); 10].map(|()| message.bytes(Form::default()).clone());
        assert!(counts(1), "ten who wait for it hold it once: {}", encoded_bytes());
        drop(message);
        assert!(counts(1), "they still do");
        drop(held);
        assert!(counts(0), "{}", encoded_bytes());
    }

    #[test]
    fn what_a_message_holds_is_not_shown() {
        let message = Shared::new(HeartbeatAck { server_time_us: 12_345 });
        assert_eq!(format!("{message:?}"), "Shared(HeartbeatAck)");
    }

    #[test]
    fn an_event_inside_a_message_has_the_connections_shape() {
        let event = ServerMessage::HeartbeatAck(HeartbeatAck { server_time_us: 1 });
        assert_eq!(event_value(&event, Shape::Tagged)["type"], "HeartbeatAck");
        assert_eq!(event_value(&event, Shape::External)["HeartbeatAck"]["server_time_us"], 1);
    }
}
