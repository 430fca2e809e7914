//! What is published, put into order: every entry of a watched channel is told exactly once and in its place, though
//! messages get lost and come twice.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{gateway::Position, ids::ChannelId};
use fred::types::Message;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};

use super::{
    codec::{EntryRecord, NodeMessage, Said, decode},
    connection::Connection,
    keys::Topic,
    script::bytes_of,
    shared::{Request, Shared},
};
use crate::{
    cluster::{
        entry::{Entry, Notice, Unavailable},
        sessions::SessionNotice,
    },
    telemetry::metrics::{GapEnd, ReconnectCause, metrics},
};

/// The probes of a connection, each with when it was last heard.
#[derive(Debug)]
pub(super) struct Probes(Mutex<HashMap<Topic, Instant>>);

impl Probes {
    pub(super) fn new(topics: impl IntoIterator<Item = Topic>) -> Self {
        let now = Instant::now();
        Self(Mutex::new(topics.into_iter().map(|topic| (topic, now)).collect()))
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        self.0.lock().keys().cloned().collect()
    }

    fn heard(&self, topic: &Topic) {
        if let Some(heard) = self.0.lock().get_mut(topic) {
            *heard = Instant::now();
        }
    }

    /// Whether one of them has not been heard for longer than `patience`.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        self.0.lock().values().any(|heard| heard.elapsed() > patience)
    }
}

/// What follows from an entry that arrives, given the newest that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is the next.
    Tell,
    /// It was told before.
    Skip,
    /// Others belong between; what is told so far stays right.
    Gap,
    /// The journal is another one.
    NewJournal,
}

fn step(told: Option<&Position>, entry: &Position) -> Step {
    let Some(told) = told else { return Step::Tell };
    if told.epoch == entry.epoch {
        return match entry.offset.checked_sub(told.offset) {
            None | Some(0) => Step::Skip,
            Some(1) => Step::Tell,
            Some(_) => Step::Gap,
        };
    }
    match (told.epoch.is_empty(), entry.offset) {
        (true, 1) => Step::Tell,
        (true, _) => Step::Gap,
        (false, _) => Step::NewJournal,
    }
}

/// Listens until something is wrong, and says what.
pub(super) async fn listen(
    shared: &Shared,
    connection: &Arc<Connection>,
    messages: &mut broadcast::Receiver<Message>,
    requests: &mut mpsc::Receiver<Request>,
    probes: &Probes,
) -> ReconnectCause {
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) => {
                    if take(shared, probes, message).await.is_err() {
                        return ReconnectCause::NoAnswer;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    metrics().redis.messages_lost.increment(count);
                    shared.reconnected();
                }
                Err(broadcast::error::RecvError::Closed) => return ReconnectCause::Closed,
            },
            Some(request) = requests.recv() => {
                if answer(shared, connection, request).await.is_err() {
                    return ReconnectCause::NoAnswer;
                }
            }
        }
    }
}

async fn answer(shared: &Shared, connection: &Connection, request: Request) -> Result<(), fred::error::Error> {
    match request {
        Request::Watch(channel, done) => {
            connection.subscribe(&[Topic::Channel(channel)]).await?;
            let _ = done.send(());
        }
        Request::Unwatch(channel) => {
            // It may have been watched again since this was asked.
            if !shared.watched.lock().contains(channel) {
                connection.unsubscribe(&Topic::Channel(channel)).await?;
                shared.unlist(connection, channel).await?;
            }
        }
    }
    Ok(())
}

async fn take(shared: &Shared, probes: &Probes, message: Message) -> Result<(), Unavailable> {
    match Topic::parse(&message.channel) {
        Some(Topic::Channel(channel)) => {
            let record = bytes_of(message.value).and_then(|bytes| decode::<EntryRecord>(&bytes));
            match record.and_then(|record| record.into_entry(channel)) {
                Ok(entry) => return take_entry(shared, channel, entry).await,
                Err(error) => tracing::warn!(%error, %channel, "an entry of the journal is not understood"),
            }
        }
        Some(Topic::Nodes) => shared.renew_now.notify_one(),
        Some(Topic::Node(_) | Topic::AllNodes) => {
            match bytes_of(message.value).and_then(|bytes| decode::<NodeMessage>(&bytes)) {
                Ok(message) if message.from == shared.process => {}
                Ok(message) => hear(shared, message.said),
                Err(error) => tracing::warn!(%error, "a message to this node is not understood"),
            }
        }
        Some(topic @ Topic::Probe { .. }) => probes.heard(&topic),
        None => {}
    }
    Ok(())
}

fn hear(shared: &Shared, said: Said) {
    match said {
        Said::SessionClaimed { session } => {
            shared.sessions.remove(&session);
            shared.notify_of_session(SessionNotice::Claimed(session));
        }
        Said::Listening { news } => shared.notify_of_session(SessionNotice::Listening(news)),
        Said::AccountDisabled { user } => shared.notify_of_session(SessionNotice::AccountDisabled(user)),
        Said::ChannelChanged { channel } => shared.notify(Notice::ChannelChanged { channel }),
        Said::StandingChanged { channel, user } => shared.notify(Notice::StandingChanged { channel, user }),
        Said::Removed { channel, leave } => shared.notify(Notice::Removed { channel, leave }),
        Said::Direct { direct } => shared.notify(Notice::Direct(direct)),
    }
}

async fn take_entry(shared: &Shared, channel: ChannelId, entry: Entry) -> Result<(), Unavailable> {
    let Some(told) = shared.watched.lock().told(channel) else { return Ok(()) };
    match step(told.as_ref(), &entry.position) {
        Step::Skip => {}
        Step::Tell => tell(shared, channel, entry),
        Step::NewJournal => lose(shared, channel, &entry.position),
        Step::Gap => {
            let since = told.filter(|told| told.epoch == entry.position.epoch);
            let since = since.unwrap_or_else(|| Position { epoch: entry.position.epoch.clone(), offset: 0 });
            repair(shared, channel, &since, &entry.position).await?;
        }
    }
    Ok(())
}

/// Tells what was missed, from the journal, up to `newest` at least; or that the journal no longer has it.
async fn repair(shared: &Shared, channel: ChannelId, since: &Position, newest: &Position) -> Result<(), Unavailable> {
    if let Some(entries) = shared.missed(channel, since).await? {
        metrics().redis.gaps.of(GapEnd::Repaired).increment(1);
        for entry in entries {
            tell(shared, channel, entry);
        }
    } else {
        metrics().redis.gaps.of(GapEnd::TooLong).increment(1);
        lose(shared, channel, newest);
    }
    Ok(())
}

fn tell(shared: &Shared, channel: ChannelId, entry: Entry) {
    if shared.watched.lock().tell(channel, &entry.position) {
        shared.notify(Notice::Entry { channel, entry });
    }
}

/// Says that the channel must be read anew; what comes after `newest` is told entry by entry again.
fn lose(shared: &Shared, channel: ChannelId, newest: &Position) {
    if shared.watched.lock().tell(channel, newest) {
        shared.notify(Notice::Lost { channel });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.to_owned(), offset }
    }

    #[test]
    fn every_entry_has_its_turn() {
        let cases = [
            (None, at("a", 7), Step::Tell),
            (Some(at("a", 6)), at("a", 7), Step::Tell),
            (Some(at("a", 7)), at("a", 7), Step::Skip),
            (Some(at("a", 8)), at("a", 7), Step::Skip),
            (Some(at("a", 5)), at("a", 7), Step::Gap),
            (Some(at("", 0)), at("a", 1), Step::Tell),
            (Some(at("", 0)), at("a", 2), Step::Gap),
            (Some(at("a", 9)), at("b", 1), Step::NewJournal),
            (Some(at("a", 9)), at("b", 10), Step::NewJournal),
        ];
        for (told, entry, expected) in cases {
            assert_eq!(step(told.as_ref(), &entry), expected, "{told:?} {entry:?}");
        }
    }

    #[test]
    fn one_silent_probe_is_enough() {
        let topics = [0, 1].map(|probe| Topic::Probe { process: 1, probe });
        let probes = Probes::new(topics.clone());
        assert!(!probes.is_silent(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(2));
        probes.heard(&topics[0]);
        assert!(probes.is_silent(Duration::from_millis(1)));
    }
}
