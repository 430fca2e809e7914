//! A session with a gateway: it survives its connections.
//!
//! [`Gateway::connect`] authenticates and leaves a task behind that keeps the connection alive. When the connection is
//! lost, the task resumes the session with growing pauses; what was missed comes before what follows, and a gap in a
//! channel's journal is asked for (`Recover`), so that whoever reads the events sees each of them once, in order.
//! `SweptConnection` is a bare connection without a task, for whoever looks after a thousand of them at once.

mod connection;
mod journal;
mod patience;
mod scheme;
mod session;
mod swept;

pub(crate) use connection::install_crypto_provider;
pub use connection::{Closed, ConnectionError};
pub(crate) use patience::{Backoff, HEARTBEATS_UNANSWERED_MAX, RESUME_FOR};
pub use scheme::WrongScheme;
pub(crate) use session::nodes_of;
pub use session::{Gateway, GatewayClosed, GatewayConfig, GatewayError, GatewayEvent, Identity};
pub(crate) use swept::SweptConnection;
