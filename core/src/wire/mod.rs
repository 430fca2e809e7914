//! What travels over UDP (PROTOCOL 1): datagrams, the frames inside them, and the control messages beside them.

pub mod control;
pub mod frame;
