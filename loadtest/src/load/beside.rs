//! What happens in a phase beside talking: each kind is a module of its own, runs along, and says what came of it.

use antiphon_core::ids::ChannelId;
use tokio::time::Instant;

use super::{
    LoadError,
    chat::{self, ChatOutcome},
    churn::{ChurnOutcome, churn},
    members::Shared,
    outcome::Outcome,
    scrape::{ScrapesOutcome, scrape},
    storm::{Gathering, StormOutcome},
    streams::{Audience, StreamsOutcome},
    thread::Stage,
};
use crate::scenario::Phase;

/// All that is to happen.
pub(super) struct Beside<'a> {
    shared: &'a Shared,
    phase: &'a Phase,
    channels: &'a [ChannelId],
    /// Slots from here on are free.
    first_slot: usize,
    /// Tells those who come from those of other phases.
    label: String,
    storm: Option<Gathering>,
    room: Option<chat::Room>,
    audience: Option<Audience>,
}

/// What came of it.
pub(super) struct Happened {
    churn: Option<ChurnOutcome>,
    storm: Option<StormOutcome>,
    scrapes: Option<ScrapesOutcome>,
    chat: Option<ChatOutcome>,
    streams: Option<StreamsOutcome>,
}

/// How many may come and go at once in a phase.
pub(super) fn visitors(phase: &Phase) -> usize {
    phase.churn.map_or(0, |churn| churn.at_once_max()) + phase.storm.map_or(0, |storm| storm.clients)
}

/// How many are connected in a phase without being in voice.
pub(super) fn readers(phase: &Phase) -> usize {
    phase.chat.as_ref().map_or(0, |chat| chat.members) + phase.stream.as_ref().map_or(0, |stream| stream.listeners)
}

impl<'a> Beside<'a> {
    /// Makes ready what must be before the phase begins.
    pub(super) async fn prepare(
        shared: &'a Shared,
        phase: &'a Phase,
        number: usize,
        channels: &'a [ChannelId],
        first_slot: usize,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<Self, LoadError> {
        let label = format!("p{number}");
        let [of_storm, of_chat, of_streams] = ["s", "c", "l"].map(|kind| format!("{label}{kind}"));
        let behind_churn = first_slot + phase.churn.map_or(0, |churn| churn.at_once_max());
        let storm = phase.storm.map(|storm| Gathering::connect(shared, storm, &of_storm, channels, behind_churn));
        let storm = if_any(storm).await?;
        let lasting = phase.warm_up + phase.duration;
        let audience = phase.stream.clone().map(|streams| Audience::prepare(shared, streams, &of_streams, lasting));
        let audience = if_any(audience).await?;
        // The last: until the phase begins, nobody reads what its members are told.
        let room = phase.chat.clone().map(|chat| chat::Room::gather(shared, chat, &of_chat, stage));
        let room = if_any(room).await?;
        Ok(Self { shared, phase, channels, first_slot, label, storm, room, audience })
    }

    /// Lets all of it happen.
    pub(super) async fn happen(self, begun: Instant, end: Instant) -> Result<Happened, LoadError> {
        let Self { shared, phase, channels, first_slot, label, storm, room, audience } = self;
        let visit = |rate| churn(shared.clone(), rate, channels.to_vec(), first_slot, label, end);
        let fetch = |interval| async move { Ok(scrape(&shared.rests, interval, begun, end).await) };
        let (churn, storm, scrapes, chat, streams) = tokio::try_join!(
            if_any(phase.churn.map(visit)),
            if_any(storm.map(|storm| storm.come(shared, begun, end))),
            if_any(phase.scrape_every.map(fetch)),
            if_any(room.map(|room| room.write(shared, phase.warm_up, begun, end))),
            if_any(audience.map(|audience| audience.listen(shared, begun, end))),
        )?;
        Ok(Happened { churn, storm, scrapes, chat, streams })
    }
}

/// What is to happen, where anything is.
async fn if_any<T>(happening: Option<impl Future<Output = Result<T, LoadError>>>) -> Result<Option<T>, LoadError> {
    match happening {
        Some(happening) => happening.await.map(Some),
        None => Ok(None),
    }
}

impl Happened {
    pub(super) fn add_to(self, outcome: &mut Outcome) {
        (outcome.churn, outcome.storm, outcome.scrapes) = (self.churn, self.storm, self.scrapes);
        let cpu = outcome.cpu;
        outcome.chat = self.chat.map(|chat| chat.that_cost(cpu));
        outcome.streams = self.streams.map(|streams| streams.that_cost(cpu));
    }
}
