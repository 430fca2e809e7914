//! Who waits to hear of what they wrote. They are noted before it is committed: from then on any node may tell it, and whoever
//! takes the note answers with it, so that each is answered once and gets nothing of their own besides.

use std::{collections::HashMap, sync::Arc};

use antiphon_core::{gateway::RequestId, ids::MessageId};
use parking_lot::Mutex;

use super::presence::Presence;

/// Something written that its sender waits to hear of.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its number.
    pub number: MessageId,
    /// Through which session.
    pub presence: Arc<Presence>,
    /// What the session's client called the message that did it.
    pub request_id: Option<RequestId>,
}

/// By the number of what they wrote. As many as writers store at once.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<HashMap<MessageId, Sent>>);

impl Awaited {
    /// Notes who waits.
    pub fn note(&self, sent: Sent) {
        self.0.lock().insert(sent.number, sent);
    }

    /// Who is to be answered, if nobody has taken that upon themselves.
    #[must_use]
    pub fn take(&self, number: MessageId) -> Option<Sent> {
        self.0.lock().remove(&number)
    }
}
