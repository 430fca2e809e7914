//! What is heard, by whomever: counted, and told apart by listener.

use std::collections::HashMap;

use antiphon_core::clock::Micros;

use super::{Role, Swarm, SwarmClock, client::SwarmClient};
use crate::{
    load::{
        quality::{Experience, Quality},
        silence::Ends,
        tally::{Listener, Speaker, Tally},
        wire::Wire,
    },
    voice::Route,
};

/// What is heard, by whomever.
pub(super) struct Hearing {
    pub(super) tally: Tally,
    pub(super) speakers: Vec<Speaker>,
    pub(super) frame_bytes: usize,
    pub(super) unopened: u64,
}

impl Hearing {
    pub(super) fn heard(&mut self, listener: &mut Listener<'_>, bytes: &[u8], at_ns: u64, route: Route) -> bool {
        self.tally.heard(listener, &self.speakers, bytes, self.frame_bytes, at_ns, route)
    }

    /// A datagram has come to a client's socket, which is not yet the client where its way is impaired.
    pub(super) fn arrived(&mut self, client: &mut SwarmClient, clock: SwarmClock, at_ns: u64, datagram: &mut [u8]) {
        let at = clock.of_stamp(at_ns);
        match client.socket.as_mut().and_then(|socket| socket.way.as_mut()) {
            None => self.datagram(client, at, at_ns, datagram),
            Some(way) => {
                if !way.arrive(at, datagram) {
                    self.missed(client, datagram);
                }
            }
        }
    }

    /// Opens a datagram that has come to a client.
    pub(super) fn datagram(&mut self, client: &mut SwarmClient, at: Micros, at_ns: u64, datagram: &mut [u8]) {
        let SwarmClient { wire, role, channel, seen, pairs, ear, .. } = client;
        let mut listener = Listener { role: *role, channel: *channel, seen, pairs, ear };
        let mut counted = false;
        let opened = wire.open(at, datagram, |bytes, route| counted |= self.heard(&mut listener, bytes, at_ns, route));
        self.unopened += u64::from(!opened);
        self.tally.datagrams += u64::from(counted);
    }

    /// Takes note of a datagram that the impairment has lost.
    pub(super) fn missed(&mut self, client: &mut SwarmClient, datagram: &mut [u8]) {
        let SwarmClient { wire, role, channel, seen, pairs, ear, .. } = client;
        let mut listener = Listener { role: *role, channel: *channel, seen, pairs, ear };
        if let Wire::Node(voice) = wire {
            voice.missed(datagram, |bytes| self.tally.lost_on_way(&mut listener, bytes, self.frame_bytes));
        }
    }
}

impl Swarm {
    /// How many missed deliveries the impairment explains, and how it sounded to those who stayed.
    pub(super) fn experienced(&self) -> (u64, Option<Quality>) {
        let speakers = &self.hearing.speakers;
        let mut of_channel = vec![(0, 0); self.speakers_of_channel.len()];
        for speaker in speakers {
            let (counted, lost) = &mut of_channel[speaker.channel];
            (*counted, *lost) = (*counted + speaker.counted, *lost + speaker.lost_on_way);
        }
        let own: HashMap<usize, (u64, u64)> =
            speakers.iter().map(|speaker| (speaker.slot, (speaker.counted, speaker.lost_on_way))).collect();
        let mut explained = 0;
        let stays = self.clients.iter().enumerate().filter_map(|(slot, client)| Some((slot, client.as_ref()?)));
        let stays = stays.filter(|(_, client)| client.role == Role::Stays);
        let experiences = stays.map(|(slot, client)| {
            let (counted, lost) = of_channel.get(client.channel).copied().unwrap_or_default();
            let (own_counted, own_lost) = own.get(&slot).copied().unwrap_or_default();
            let expected = counted - own_counted;
            let missed = expected.saturating_sub(client.ear.delivered);
            explained += missed.min(client.ear.lost_on_way + lost - own_lost);
            Experience { expected, ear: client.ear, jitter_us: client.jitter_us() }
        });
        let quality = Quality::of(experiences);
        (explained, quality)
    }
}

/// Every listener and speaker of the same channel, of those who stay.
pub(super) fn pairs<'a>(
    speakers: &'a [Speaker],
    clients: &'a mut [Option<SwarmClient>],
) -> impl Iterator<Item = Ends<'a>> + use<'a> {
    let stays = clients.iter_mut().enumerate().filter_map(|(slot, client)| Some((slot, client.as_mut()?)));
    let stays = stays.filter(|(_, client)| client.role == Role::Stays);
    stays.flat_map(move |(listener, client)| {
        let channel = client.channel;
        // A channel's speakers stand in the order of their numbers there.
        let of_channel = speakers.iter().filter(move |speaker| speaker.channel == channel);
        let others = of_channel.zip(&mut client.pairs).filter(move |(speaker, _)| speaker.slot != listener);
        others.map(move |(speaker, pair)| Ends { listener, speaker: speaker.slot, sent: speaker.counted, pair })
    })
}
