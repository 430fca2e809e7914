//! What waits to be written to one connection: two bounded queues with a policy each.
//!
//! Control messages (answers and events) are never dropped and keep their order; a client that leaves too many of them
//! unread is closed as too slow. Audio is dropped, oldest first, and counted. Control goes before audio.
//!
//! What a write costs is the system call and the waking, not the bytes: where one was just made, events that everybody in a
//! channel gets wait for [`Company`]. Answers and audio wait for nothing, and what waits goes with them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use antiphon_core::gateway::{Encoding, Shape};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{budget::Budget, close::CloseCause, company::Company};
use crate::{
    rooms::{Form, Outlet, Shared},
    telemetry::metrics::metrics,
};

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Control messages.
    pub messages: usize,
    /// Their bytes; where less waits, the next is taken however long it is. The state of a large channel may be longer
    /// than this on its own: of one long message 256 KiB count, of any further ones everything.
    pub bytes: usize,
    /// Frames of audio.
    pub frames: usize,
}

impl Default for OutboxLimits {
    /// Events have about 500 bytes: a thousand members may come back at once. 250 frames are a second of five speakers.
    fn default() -> Self {
        Self { messages: 4_096, bytes: 1 << 20, frames: 250 }
    }
}

/// What one long message counts for, so that whoever enters a large channel is not closed for the events behind its state.
const LONG_COUNTS_BYTES: usize = 256 * 1024;

/// What of a message does not count where it is the only long one.
fn surplus(bytes: &Bytes) -> usize {
    bytes.len().saturating_sub(LONG_COUNTS_BYTES)
}

/// So many bytes of events need no more company.
const COMPANY_BYTES: usize = 8 * 1024;

/// The queues of one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    encoding: Encoding,
    /// The client sent an externally tagged message, so everything is written like that from then on.
    external: AtomicBool,
    limits: OutboxLimits,
    company: Arc<Company>,
    budget: Arc<Budget>,
    queues: Mutex<Queues>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes whoever waits for the end.
    ending: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    control: VecDeque<Bytes>,
    control_bytes: usize,
    /// The surplus of the one long message in `control` that counts for less,
    pardoned_bytes: usize,
    /// and how many are before it.
    before_pardoned: usize,
    /// The message that the writer has.
    writing_bytes: usize,
    audio: VecDeque<Shared>,
    /// Something in `control` does not wait for company.
    is_urgent: bool,
    /// The writer has just written, and is woken when it has rested, or by what does not wait.
    is_resting: bool,
    /// The end of a rest will be said.
    is_in_company: bool,
    /// Messages that wait until the client may be told.
    held: Option<Vec<Shared>>,
    /// Frames are dropped: nothing may come before the answer to `Resume`.
    is_silent: bool,
    /// The client knows of its session.
    has_session: bool,
    /// What is said as soon as it does.
    waiting: Option<Shared>,
    end: Option<End>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By us, for this reason.
    Close(CloseCause),
    /// The client has gone or is going: nothing more needs to be written.
    Gone,
}

impl Queues {
    /// What waits, as it counts for this connection.
    fn counted_bytes(&self) -> usize {
        self.control_bytes - self.pardoned_bytes
    }

    fn push(&mut self, bytes: Bytes) {
        self.control_bytes += bytes.len();
        if self.pardoned_bytes == 0 {
            (self.pardoned_bytes, self.before_pardoned) = (surplus(&bytes), self.control.len());
        }
        self.control.push_back(bytes);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.control.pop_front()?;
        self.control_bytes -= bytes.len();
        match self.before_pardoned.checked_sub(1) {
            Some(before) => self.before_pardoned = before,
            None => self.pardoned_bytes = 0,
        }
        self.writing_bytes = bytes.len();
        Some(bytes)
    }

    /// Whether everything that waits, if there is anything, may wait a moment longer.
    fn is_patient(&self) -> bool {
        let has_company = self.is_urgent || self.control_bytes >= COMPANY_BYTES;
        !has_company && self.end.is_none() && self.audio.is_empty()
    }
}

/// What to write next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// An encoded message.
    Message(Bytes),
    /// Nothing waits: what was written must go out.
    Flush,
    /// Nothing comes any more.
    End(End),
}

impl Outbox {
    pub(super) fn new(encoding: Encoding, limits: OutboxLimits, company: Arc<Company>, budget: Arc<Budget>) -> Self {
        Self {
            encoding,
            external: AtomicBool::new(false),
            limits,
            company,
            budget,
            queues: Mutex::default(),
            filled: Notify::new(),
            ending: Notify::new(),
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Notes the shape of a message from the client.
    pub(super) fn answer_in_kind(&self, shape: Shape) {
        if shape == Shape::External {
            self.external.store(true, Relaxed);
        }
    }

    fn form(&self) -> Form {
        Form { encoding: self.encoding, shape: self.shape() }
    }

    /// Keeps messages back, and lets no frame through, until [`Outbox::release`].
    pub(super) fn hold(&self) {
        self.hold_messages();
        self.queues.lock().is_silent = true;
    }

    /// Keeps messages back until [`Outbox::release`].
    pub(super) fn hold_messages(&self) {
        self.queues.lock().held.get_or_insert_default();
    }

    /// Sends `first`, if there is one, then what was kept back.
    pub(super) fn release(&self, first: Option<&Shared>) {
        let mut queues = self.queues.lock();
        let held = queues.held.take().unwrap_or_default();
        queues.is_silent = false;
        for message in first.into_iter().chain(&held) {
            self.push(&mut queues, message);
        }
    }

    /// Sends `message` to a client that has a session, or when it has one: on connecting it expects other answers.
    pub(super) fn send_to_session(&self, message: &Shared) {
        let mut queues = self.queues.lock();
        if queues.has_session {
            self.push(&mut queues, message);
        } else {
            queues.waiting = Some(message.clone());
        }
    }

    /// Notes that the client was told of its session.
    pub(super) fn begin_session(&self) {
        let mut queues = self.queues.lock();
        queues.has_session = true;
        if let Some(message) = queues.waiting.take() {
            self.push(&mut queues, &message);
        }
    }

    /// Ends the connection once what waits is written; a reader that is too slow gets no more than the Close. The first
    /// end holds.
    pub(super) fn end(&self, end: End) {
        self.end_with(&mut self.queues.lock(), end);
    }

    fn end_with(&self, queues: &mut Queues, end: End) {
        if queues.end.is_some() {
            return;
        }
        queues.end = Some(end);
        queues.held = None;
        queues.audio = VecDeque::new();
        if matches!(end, End::Gone | End::Close(CloseCause::SlowReader | CloseCause::NodeFull)) {
            queues.control = VecDeque::new();
            (queues.control_bytes, queues.pardoned_bytes) = (0, 0);
        }
        self.filled.notify_one();
        self.ending.notify_waiters();
    }

    /// How the connection ends, once that is certain.
    pub(super) fn end_in_sight(&self) -> Option<End> {
        self.queues.lock().end
    }

    /// Bytes of messages that this connection has not been able to write.
    pub(super) fn unread_bytes(&self) -> usize {
        let queues = self.queues.lock();
        queues.control_bytes + queues.writing_bytes
    }

    /// Waits until it is certain how the connection ends.
    pub(super) async fn until_ending(&self) -> End {
        loop {
            let ending = self.ending.notified();
            if let Some(end) = self.end_in_sight() {
                return end;
            }
            ending.await;
        }
    }

    fn push(&self, queues: &mut Queues, message: &Shared) {
        if queues.end.is_some() {
            return;
        }
        let waiting = queues.held.as_ref().map_or(queues.control.len(), Vec::len);
        if waiting >= self.limits.messages || queues.counted_bytes() >= self.limits.bytes {
            self.end_with(queues, End::Close(CloseCause::SlowReader));
            return;
        }
        if let Some(held) = &mut queues.held {
            held.push(message.clone());
            return;
        }
        queues.push(message.bytes(self.form()).clone());
        self.budget.check();
        queues.is_urgent |= !message.is_patient();
        if !(queues.is_resting && queues.is_patient()) {
            self.filled.notify_one();
        }
    }

    /// Notes that everything was just written: what comes may rest for a moment.
    pub(super) fn rest(self: &Arc<Self>) {
        let is_new = {
            let queues = &mut *self.queues.lock();
            queues.is_resting = true;
            !std::mem::replace(&mut queues.is_in_company, true)
        };
        if is_new {
            self.company.join(Arc::clone(self));
        }
    }

    /// Ends the rest: what came meanwhile is written.
    pub(super) fn end_rest(&self) {
        let queues = &mut *self.queues.lock();
        (queues.is_resting, queues.is_in_company) = (false, false);
        if !queues.control.is_empty() {
            self.filled.notify_one();
        }
    }

    /// What to write next. Where everything went out it waits until there is something.
    pub(super) async fn next(&self, is_flushed: bool) -> Outgoing {
        loop {
            // Whoever fills the queue leaves a permit, so nothing is missed between the look and the wait.
            match self.take() {
                Some(outgoing) => return outgoing,
                None if !is_flushed => return Outgoing::Flush,
                None => self.filled.notified().await,
            }
        }
    }

    /// The next thing to write; `None` while there is nothing, or all of it rests.
    fn take(&self) -> Option<Outgoing> {
        let frame = {
            let mut queues = self.queues.lock();
            queues.writing_bytes = 0;
            if queues.is_resting && queues.is_patient() {
                return None;
            }
            queues.is_resting = false;
            if let Some(bytes) = queues.pop() {
                queues.is_urgent &= !queues.control.is_empty();
                return Some(Outgoing::Message(bytes));
            }
            if let Some(end) = queues.end {
                return Some(Outgoing::End(end));
            }
            queues.audio.pop_front()?
        };
        metrics().gateway.frames_sent.increment(1);
        Some(Outgoing::Message(frame.bytes(self.form()).clone()))
    }
}

impl Outlet for Outbox {
    fn send(&self, message: &Shared) {
        self.push(&mut self.queues.lock(), message);
    }

    fn send_audio(&self, frame: &Shared) {
        let mut queues = self.queues.lock();
        if queues.end.is_some() || queues.is_silent {
            return;
        }
        if queues.audio.len() >= self.limits.frames {
            queues.audio.pop_front();
            metrics().gateway.frames_dropped.increment(1);
        }
        queues.audio.push_back(frame.clone());
        drop(queues);
        self.filled.notify_one();
    }

    fn shape(&self) -> Shape {
        if self.external.load(Relaxed) { Shape::External } else { Shape::Tagged }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::gateway::{HeartbeatAck, Reconnect, RequestId};

    use super::*;

    fn outbox(messages: usize, bytes: usize, frames: usize) -> Outbox {
        Outbox::new(Encoding::Json, OutboxLimits { messages, bytes, frames }, Arc::default(), Arc::default())
    }

    fn message(number: u64) -> Shared {
        Shared::new(HeartbeatAck { server_time_us: number })
    }

    /// Everything that waits, up to the end.
    fn taken(outbox: &Outbox) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            match outbox.take() {
                Some(Outgoing::Message(bytes)) => taken.push(String::from_utf8(bytes.to_vec()).expect("JSON")),
                Some(Outgoing::End(end)) => {
                    taken.push(format!("{end:?}"));
                    return taken;
                }
                Some(Outgoing::Flush) | None => return taken,
            }
        }
    }

    fn json(number: u64) -> String {
        format!(r#"{{"type":"HeartbeatAck","server_time_us":{number}}}"#)
    }

    #[test]
    fn control_keeps_its_order_and_goes_before_audio() {
        let outbox = outbox(10, 10_000, 10);
        outbox.send_audio(&message(100));
        outbox.send(&message(1));
        outbox.send(&message(2));
        assert_eq!(taken(&outbox), [json(1), json(2), json(100)]);
    }

    #[test]
    fn the_oldest_audio_gives_way_and_no_control_does() {
        let outbox = outbox(10, 10_000, 3);
        for number in 0..10 {
            outbox.send_audio(&message(number));
        }
        assert_eq!(taken(&outbox), [json(7), json(8), json(9)]);
        assert_eq!(outbox.end_in_sight(), None);
    }

    #[test]
    fn whoever_leaves_too_much_unread_is_closed() {
        for outbox in [outbox(3, 10_000, 10), outbox(10, json(1).len() * 3, 10)] {
            for number in 0..3 {
                outbox.send(&message(number));
            }
            assert_eq!(outbox.end_in_sight(), None);
            outbox.send(&message(3));
            assert_eq!(outbox.end_in_sight(), Some(End::Close(CloseCause::SlowReader)));
            assert_eq!(taken(&outbox), ["Close(SlowReader)"], "what waited is given up");
        }
    }

    #[test]
    fn one_long_message_is_no_slow_reader() {
        let outbox = outbox(10, 1, 10);
        outbox.send(&message(1));
        assert_eq!(taken(&outbox), [json(1)]);
        assert_eq!(outbox.end_in_sight(), None);
    }

    #[test]
    fn events_follow_the_state_of_a_large_channel() {
        let limits = OutboxLimits::default();
        let outbox = Outbox::new(Encoding::Json, limits, Arc::default(), Arc::default());
        outbox.send(&long(limits.bytes * 4));
        outbox.send(&message(1));
        outbox.send(&message(2));
        assert_eq!(outbox.end_in_sight(), None);
        assert_eq!(taken(&outbox)[1..], [json(1), json(2)]);
    }

    /// A message with so many bytes and a few more.
    fn long(length: usize) -> Shared {
        Shared::new(Reconnect { reason: "x".repeat(length), grace_ms: 0, nodes: Vec::new() })
    }

    #[test]
    fn of_long_messages_one_is_pardoned_at_a_time() {
        let limits = OutboxLimits::default();
        let outbox = Outbox::new(Encoding::Json, limits, Arc::default(), Arc::default());
        outbox.send(&long(limits.bytes * 2));
        outbox.send(&long(limits.bytes / 2));
        assert!(outbox.take().is_some(), "the first is read");
        // The pardon has passed to nobody: the second was there already, and counts for all it has.
        outbox.send(&long(limits.bytes * 2));
        assert_eq!(outbox.end_in_sight(), None);
        assert!(outbox.unread_bytes() > limits.bytes * 9 / 2, "what the writer has counts, too");
        outbox.send(&long(limits.bytes));
        assert_eq!(outbox.end_in_sight(), None);
        outbox.send(&message(1));
        assert_eq!(outbox.end_in_sight(), Some(End::Close(CloseCause::SlowReader)));
    }

    #[test]
    fn a_pardon_does_not_pass_to_one_of_the_same_length() {
        let limits = OutboxLimits::default();
        let outbox = Outbox::new(Encoding::Json, limits, Arc::default(), Arc::default());
        outbox.send(&long(limits.bytes / 2));
        outbox.send(&long(limits.bytes / 2));
        assert!(outbox.take().is_some(), "the pardoned one is read");
        // The second counts for all it has, and this one is pardoned, also when the second is read.
        outbox.send(&long(limits.bytes / 2));
        assert!(outbox.take().is_some());
        assert!(outbox.queues.lock().pardoned_bytes > 0);
    }

    fn event(number: u64) -> Shared {
        Shared::event(&Arc::new(HeartbeatAck { server_time_us: number }.into()))
    }

    #[tokio::test]
    async fn events_wait_for_company_after_a_write_and_for_nothing_else() {
        let outbox = Arc::new(outbox(1_000, 100_000, 10));
        outbox.send(&event(1));
        assert_eq!(taken(&outbox), [json(1)], "the last write was long ago");
        let urgent: [fn(&Outbox); 4] = [
            |outbox| outbox.send(&message(2)),
            |outbox| outbox.send_audio(&message(3)),
            |outbox| (0..COMPANY_BYTES as u64 / 40).for_each(|number| outbox.send(&event(number))),
            |outbox| outbox.end(End::Close(CloseCause::RateLimited)),
        ];
        for make_urgent in urgent {
            outbox.rest();
            outbox.send(&event(4));
            assert_eq!(taken(&outbox), Vec::<String>::new(), "it rests");
            make_urgent(&outbox);
            assert_eq!(taken(&outbox)[0], json(4), "what rests goes with what does not");
        }
    }

    #[tokio::test]
    async fn a_rest_ends_by_itself_and_is_ended_once() {
        let outbox = Arc::new(outbox(10, 10_000, 10));
        outbox.rest();
        outbox.send(&event(1));
        assert_eq!(outbox.next(true).await, Outgoing::Message(json(1).into()), "its moment is over");
        assert_eq!(outbox.next(false).await, Outgoing::Flush, "and nothing else waits");
        outbox.rest();
        outbox.send(&event(2));
        let (first, ()) = tokio::join!(outbox.next(true), async { outbox.send(&message(3)) });
        assert_eq!(first, Outgoing::Message(json(2).into()));
        assert_eq!(outbox.next(false).await, Outgoing::Message(json(3).into()));
        // That was within one moment: there is one end to it, which a second rest shares.
        outbox.rest();
        outbox.send(&event(4));
        assert!(outbox.queues.lock().is_in_company);
        outbox.end_rest();
        assert_eq!(taken(&outbox), [json(4)]);
        assert!(!outbox.queues.lock().is_in_company);
    }

    #[test]
    fn an_error_is_written_before_the_close() {
        let outbox = outbox(10, 10_000, 10);
        outbox.send(&message(1));
        outbox.end(End::Close(CloseCause::RateLimited));
        outbox.end(End::Gone);
        outbox.send(&message(2));
        outbox.send_audio(&message(3));
        assert_eq!(taken(&outbox), [json(1), "Close(RateLimited)".to_owned()]);
    }

    #[test]
    fn what_is_held_back_follows_the_answer() {
        let outbox = outbox(10, 10_000, 10);
        outbox.hold();
        outbox.send(&message(2));
        outbox.send_audio(&message(100));
        outbox.send(&message(3));
        assert_eq!(taken(&outbox), Vec::<String>::new());
        outbox.release(Some(&message(1)));
        outbox.send(&message(4));
        assert_eq!(taken(&outbox), [json(1), json(2), json(3), json(4)]);
    }

    #[test]
    fn a_client_on_connecting_hears_of_a_drain_after_its_session() {
        let outbox = outbox(10, 10_000, 10);
        outbox.send(&message(1));
        outbox.send_to_session(&message(3));
        outbox.send(&message(2));
        assert_eq!(taken(&outbox), [json(1), json(2)]);
        outbox.begin_session();
        outbox.send_to_session(&message(4));
        assert_eq!(taken(&outbox), [json(3), json(4)]);
    }

    #[test]
    fn frames_go_on_while_messages_are_held_back() {
        let outbox = outbox(10, 10_000, 10);
        outbox.hold_messages();
        outbox.send(&message(1));
        outbox.send_audio(&message(100));
        assert_eq!(taken(&outbox), [json(100)]);
        outbox.release(None);
        assert_eq!(taken(&outbox), [json(1)]);
    }

    #[test]
    fn the_shape_changes_with_the_clients_first_external_message() {
        let outbox = outbox(10, 10_000, 10);
        outbox.answer_in_kind(Shape::External);
        outbox.answer_in_kind(Shape::Tagged);
        outbox.send(&Shared::answer(HeartbeatAck { server_time_us: 1 }, Some(RequestId::Number(2))));
        assert_eq!(taken(&outbox), [r#"{"HeartbeatAck":{"request_id":2,"server_time_us":1}}"#]);
    }
}
