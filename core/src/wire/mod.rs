//! What travels over UDP (docs/protocol.md): datagrams, the frames inside them, and the control messages beside them.

pub mod control;
pub mod datagram;
pub mod frame;
