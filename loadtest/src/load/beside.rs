//! What happens in a phase beside talking: each kind is a module of its own, runs along, and says what came of it.

use antiphon_core::ids::ChannelId;
use tokio::time::Instant;

use super::{
    LoadError,
    churn::{ChurnOutcome, churn},
    members::Shared,
    outcome::Outcome,
    scrape::{ScrapesOutcome, scrape},
    storm::{Gathering, StormOutcome},
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
}

/// What came of it.
pub(super) struct Happened {
    churn: Option<ChurnOutcome>,
    storm: Option<StormOutcome>,
    scrapes: Option<ScrapesOutcome>,
}

/// How many may come and go at once in a phase.
pub(super) fn visitors(phase: &Phase) -> usize {
    phase.churn.map_or(0, |churn| churn.at_once_max()) + phase.storm.map_or(0, |storm| storm.clients)
}

impl<'a> Beside<'a> {
    /// Makes ready what must be before the phase begins.
    pub(super) async fn prepare(
        shared: &'a Shared,
        phase: &'a Phase,
        number: usize,
        channels: &'a [ChannelId],
        first_slot: usize,
    ) -> Result<Self, LoadError> {
        let label = format!("p{number}");
        let storm = match phase.storm {
            Some(storm) => {
                let behind_churn = first_slot + phase.churn.map_or(0, |churn| churn.at_once_max());
                Some(Gathering::connect(shared, storm, &format!("{label}s"), channels, behind_churn).await?)
            }
            None => None,
        };
        Ok(Self { shared, phase, channels, first_slot, label, storm })
    }

    /// Lets all of it happen.
    pub(super) async fn happen(self, begun: Instant, end: Instant) -> Result<Happened, LoadError> {
        let Self { shared, phase, channels, first_slot, label, storm } = self;
        let storm = async {
            match storm {
                Some(storm) => storm.come(shared, begun, end).await.map(Some),
                None => Ok(None),
            }
        };
        let churn = async {
            match phase.churn {
                Some(rate) => churn(shared.clone(), rate, channels.to_vec(), first_slot, label, end).await.map(Some),
                None => Ok(None),
            }
        };
        let scrapes = async {
            match phase.scrape_every {
                Some(interval) => Ok(Some(scrape(&shared.rests, interval, begun, end).await)),
                None => Ok(None),
            }
        };
        let (churn, storm, scrapes) = tokio::try_join!(churn, storm, scrapes)?;
        Ok(Happened { churn, storm, scrapes })
    }
}

impl Happened {
    pub(super) fn add_to(self, outcome: &mut Outcome) {
        (outcome.churn, outcome.storm, outcome.scrapes) = (self.churn, self.storm, self.scrapes);
    }
}
