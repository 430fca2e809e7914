//! Voice over UDP and the gateway as state machines, driven by datagrams, messages and the time.
//!
//! [`VoiceSession`] is a client's voice in all its channels. It holds one [`UdpSession`] per node and decides,
//! frame by frame, which way to send; what it hears comes out of one place, whichever way it came.

mod path;
mod reception;
mod session;
mod udp;

pub use reception::ReceptionCounters;
pub use session::{Heard, OutgoingFrame, Route, SendError, Sent, VoiceOutput, VoiceSession};
pub use udp::{DatagramDrop, Opened, SetupError, UdpCounters, UdpOutput, UdpSession};
