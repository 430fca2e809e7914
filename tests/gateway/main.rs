//! The gateway and the rooms behind it, through real sockets: a server in this process on free ports, over SQLite and
//! real media workers, and clients that know no more than the protocol says.
//!
//! Waiting is for events, with a generous limit that only a failing test reaches; limits that end something are set short.

mod accounts;
mod audio;
mod client;
mod closing;
mod forms;
mod hostile;
mod joining;
mod membership;
mod moving;
mod nodes;
mod outage;
mod resuming;
mod rooms;
mod server;
mod turmoil;
mod udp;
