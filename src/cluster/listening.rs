//! What nodes tell those of each other whose administrators watch: who begins and ends to listen.

use antiphon_core::gateway::{ListeningBegun, ListeningEnded, ServerMessage};
use serde::{Deserialize, Serialize};

use crate::telemetry::metrics::metrics;

/// Events told at once; a watcher's connection could not take many more a second.
const EVENTS_MAX: usize = 200;

/// Something that happened to a listening session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListeningEvent {
    /// It began.
    Begun(ListeningBegun),
    /// It is over.
    Ended(ListeningEnded),
}

impl From<ListeningEvent> for ServerMessage {
    fn from(event: ListeningEvent) -> Self {
        match event {
            ListeningEvent::Begun(begun) => begun.into(),
            ListeningEvent::Ended(ended) => ended.into(),
        }
    }
}

/// What happened within about a second, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListeningNews {
    /// At most 200.
    pub events: Vec<ListeningEvent>,
    /// How many more there were.
    pub missed: u64,
}

impl ListeningNews {
    /// Adds an event, or counts it where there are as many as are told at once.
    pub fn push(&mut self, event: ListeningEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.missed += 1;
            metrics().streaming.listening_events_missed.increment(1);
        }
    }

    /// Adds another node's.
    pub fn append(&mut self, more: Self) {
        self.missed += more.missed;
        more.events.into_iter().for_each(|event| self.push(event));
    }

    /// Whether nothing happened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::ListeningId;

    use super::*;

    #[test]
    fn what_is_told_at_once_is_bounded_and_the_rest_is_counted() {
        let event = |number: u128| {
            ListeningEvent::Begun(ListeningBegun {
                listening_id: ListeningId(uuid::Uuid::from_u128(number)),
                path: "a.mp3".to_owned(),
                quality: "low".to_owned(),
                network: "00".to_owned(),
                began_at: "2026-11-20T12:00:00Z".to_owned(),
            })
        };
        let mut news = ListeningNews::default();
        assert!(news.is_empty());
        (0..250).for_each(|number| news.push(event(number)));
        assert_eq!((news.events.len(), news.missed), (EVENTS_MAX, 50));
        assert_eq!(news.events[EVENTS_MAX - 1], event(199), "the first are told");
        let mut others = ListeningNews { events: vec![event(300)], missed: 7 };
        others.append(news);
        assert_eq!((others.events.len(), others.missed), (EVENTS_MAX, 58));
    }
}
