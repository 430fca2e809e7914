//! Offers and answers: how connections are made, changed and ended.

use antiphon_core::{
    clock::Micros,
    gateway::{PeerRole, PublishKind},
};
use str0m::{
    IceCreds, Rtc,
    change::{SdpAnswer, SdpOffer},
};

use super::{
    Peers, Publisher,
    api::{Described, PeerCommand, PeerError, PeerEvent, PeerKey, Ways, Wish},
    counters::PeerCounter,
    keys::Agreed,
    peer::{Peer, Side, named_as},
    peer_places::{NoPlace, PeerPlace},
    publishing::Publishing,
    setup, stun,
    subscribing::Subscribing,
};

/// What a description says of Opus, and what we say beside it: silence need not be sent (RFC 7587, 6.1).
const FEC: &str = "useinbandfec=1";
const FEC_AND_DTX: &str = "useinbandfec=1;usedtx=1";

impl Peers {
    /// The control plane wants something. An answer that nobody waits for any more goes nowhere.
    pub(in crate::media) fn command(&mut self, now: Micros, command: PeerCommand) {
        match command {
            PeerCommand::Publish { key, ways, offer, kind, reply } => {
                _ = reply.send(self.publish(now, key, ways, offer, kind));
            }
            PeerCommand::Subscribe { key, ways, wishes, restart, reply } => {
                _ = reply.send(self.subscribe(now, key, ways, wishes, restart));
            }
            PeerCommand::Wish { key, wishes } => {
                if let Some(number) = self.by_key.get(&key).copied() {
                    self.wish(now, number, wishes, false);
                }
            }
            PeerCommand::Play { key, ways, offer, reply } => {
                _ = reply.send(self.play(now, key, ways, offer));
            }
            PeerCommand::Answer { key, answer, reply } => {
                _ = reply.send(self.answer(now, key, answer));
            }
            PeerCommand::Candidates { key, candidates, reply } => {
                let peer = self.peer_by_key(key).ok_or(PeerError::OutOfTurn("there is no such connection yet"));
                _ = reply.send(peer.and_then(|peer| peer.trickled(candidates)));
            }
            PeerCommand::Reach { address, fragment, way, known } => {
                let is_known = str::from_utf8(&fragment).is_ok_and(|fragment| self.by_fragment.contains_key(fragment));
                // Whoever does not wait for it any more has gone.
                if known.send(is_known).is_ok() && is_known {
                    self.tcp.insert(address, way);
                }
            }
            PeerCommand::Unreach { address } => _ = self.tcp.remove(&address),
            PeerCommand::Depart { channel, stream } => self.depart(channel, stream),
            PeerCommand::Close { key } => self.close(key),
        }
    }

    fn publish(
        &mut self,
        now: Micros,
        key: PeerKey,
        ways: Ways,
        offer: Described<SdpOffer>,
        kind: PublishKind,
    ) -> Result<String, PeerError> {
        let number = self.peer_or_new(now, key, ways, |_| Side::Publishing(Publishing::new(kind)), setup::publisher)?;
        if let Some(Side::Publishing(side)) = self.peers.get_mut(&number).map(|peer| &mut peer.side) {
            side.new_kind = kind;
        }
        let answer = self.accept(now, number, offer)?;
        let room = self.rooms.entry(key.channel).or_default();
        room.publishers.insert(key.stream, Publisher { number, departs: false });
        // Whoever came over to this node is not to be forgotten with what another told of them.
        room.elsewhere.remove(&key.stream);
        if let Some(peer) = self.peers.get_mut(&number)
            && let Side::Publishing(side) = &mut peer.side
        {
            side.agreed(&peer.rtc, &answer);
        }
        self.publishes_differently(number);
        Ok(answer.replace(FEC, FEC_AND_DTX))
    }

    fn play(&mut self, now: Micros, key: PeerKey, ways: Ways, offer: Described<SdpOffer>) -> Result<String, PeerError> {
        let make = |deafened| Side::Subscribing(Subscribing::new(true, deafened));
        let number = self.peer_or_new(now, key, ways, make, setup::player)?;
        let answer = self.accept(now, number, offer)?;
        self.note_subscriber(key, number);
        Ok(answer)
    }

    fn subscribe(
        &mut self,
        now: Micros,
        key: PeerKey,
        ways: Ways,
        wishes: Vec<Wish>,
        restart: bool,
    ) -> Result<(), PeerError> {
        let make = |deafened| Side::Subscribing(Subscribing::new(false, deafened));
        let number = self.peer_or_new(now, key, ways, make, setup::subscriber)?;
        self.note_subscriber(key, number);
        self.wish(now, number, wishes, restart);
        Ok(())
    }

    fn wish(&mut self, now: Micros, number: u32, wishes: Vec<Wish>, restart: bool) {
        if let Some(Side::Subscribing(side)) = self.peers.get_mut(&number).map(|peer| &mut peer.side) {
            side.wish(wishes);
        }
        self.offer(now, number, restart);
        self.choose_layers(now, number);
    }

    fn note_subscriber(&mut self, key: PeerKey, number: u32) {
        let room = self.rooms.entry(key.channel).or_default();
        if !room.subscribers.contains(&number) {
            room.subscribers.push(number);
            self.tell_interest(key.channel);
        }
    }

    /// Offers a subscriber what it wishes for, unless it has an offer to answer first, or had one just now: then it is looked after when
    /// another may follow.
    pub(super) fn offer(&mut self, now: Micros, number: u32, restart: bool) {
        let credentials = self.new_credentials();
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Side::Subscribing(side) = &mut peer.side else { return };
        if !restart && side.offers_at().is_none_or(|at| at > now) {
            return self.mark(number);
        }
        let Some(planned) = side.plan(now, &mut peer.rtc, restart) else { return };
        let tracks = side.offered();
        let sdp = match &planned.restart {
            Some(drawn) => {
                let sdp = named_as(&planned.sdp, drawn, &credentials);
                peer.fragments.push(credentials.ufrag.clone());
                self.by_fragment.insert(credentials.ufrag.clone(), number);
                // One that was offered before and not answered is not to be answered any more.
                if let Some(former) = peer.restarts.replace(credentials) {
                    peer.fragments.retain(|fragment| *fragment != former.ufrag);
                    self.by_fragment.remove(&former.ufrag);
                }
                sdp
            }
            None => planned.sdp,
        };
        let key = peer.key;
        self.stats.count(PeerCounter::Negotiations);
        self.mark(number);
        self.tell(PeerEvent::Offer { key, sdp, tracks });
    }

    fn answer(&mut self, now: Micros, key: PeerKey, answer: Described<SdpAnswer>) -> Result<(), PeerError> {
        let number = *self.by_key.get(&key).ok_or(PeerError::OutOfTurn("there is no offer to answer"))?;
        let Some(peer) = self.peers.get_mut(&number) else { return Ok(()) };
        let Side::Subscribing(side) = &mut peer.side else { return Ok(()) };
        let pending = side.pending.take().ok_or(PeerError::OutOfTurn("there is no offer to answer"))?;
        let before = peer.rtc.direct_api().local_ice_credentials();
        let accepted = peer.rtc.sdp_api().accept_answer(pending, answer.sdp);
        side.behind |= accepted.is_err();
        let behind = side.behind;
        if accepted.is_ok() {
            side.settle(&mut peer.rtc);
        }
        let is_restarted = peer.rtc.direct_api().local_ice_credentials().ufrag != before.ufrag;
        match peer.restarts.take() {
            Some(ours) if is_restarted => {
                peer.renew(ours).iter().for_each(|former| _ = self.by_fragment.remove(former));
            }
            // Its client goes on by the way that there is: the answer was to an offer before, or could not be used.
            Some(ours) => {
                peer.fragments.retain(|fragment| *fragment != ours.ufrag);
                self.by_fragment.remove(&ours.ufrag);
            }
            None => {}
        }
        accepted.map_err(|error| PeerError::sdp(&error))?;
        peer.described(answer.candidates);
        self.stats.count(PeerCounter::Negotiations);
        self.mark(number);
        if behind {
            self.offer(now, number, false);
        }
        self.choose_layers(now, number);
        Ok(())
    }

    /// Answers a client's offer.
    fn accept(&mut self, now: Micros, number: u32, offer: Described<SdpOffer>) -> Result<String, PeerError> {
        let ours = self.new_credentials();
        let Some(peer) = self.peers.get_mut(&number) else { return Err(PeerError::Stopping) };
        peer.offers(now, &offer.sources)?;
        let before = peer.rtc.direct_api().local_ice_credentials();
        let answer = match peer.rtc.sdp_api().accept_offer(offer.sdp) {
            Ok(answer) => answer.to_sdp_string(),
            Err(error) => {
                let is_new = peer.addresses.is_empty() && !peer.connected;
                // Under credentials that the library has drawn for what it then could not use, its client would not be found.
                let is_half_done = peer.rtc.direct_api().local_ice_credentials().ufrag != before.ufrag;
                if is_new {
                    self.remove(number);
                } else if is_half_done {
                    self.end(number, PeerCounter::Broken);
                }
                return Err(PeerError::sdp(&error));
            }
        };
        self.stats.count(PeerCounter::Negotiations);
        let drawn = peer.rtc.direct_api().local_ice_credentials();
        let answer = if drawn.ufrag == before.ufrag {
            answer
        } else {
            let answer = named_as(&answer, &drawn, &ours);
            peer.fragments.push(ours.ufrag.clone());
            self.by_fragment.insert(ours.ufrag.clone(), number);
            peer.renew(ours).iter().for_each(|former| _ = self.by_fragment.remove(former));
            answer
        };
        peer.described(offer.candidates);
        self.mark(number);
        Ok(answer)
    }

    fn new_credentials(&self) -> IceCreds {
        let (ufrag, pass) = stun::credentials(self.setup.worker);
        IceCreds { ufrag, pass }
    }

    fn place(&mut self) -> Result<PeerPlace, PeerError> {
        self.setup.places.take().map_err(|why| {
            self.stats.count(PeerCounter::NoPlace);
            PeerError::TooMany(match why {
                NoPlace::Full => "this node has as many WebRTC connections as it may: try another",
                NoPlace::TooManyWait => {
                    "too many WebRTC connections of this node wait for their clients: try again in some seconds, or another"
                }
            })
        })
    }

    fn peer_or_new(
        &mut self,
        now: Micros,
        key: PeerKey,
        ways: Ways,
        side: impl FnOnce(bool) -> Side,
        make: fn(std::time::Instant, &str0m::config::DtlsCert, IceCreds) -> (Rtc, Agreed),
    ) -> Result<u32, PeerError> {
        if let Some(number) = self.by_key.get(&key) {
            return Ok(*number);
        }
        let Some(deafened) = self.deafened.get(&(key.channel, key.stream)).copied() else {
            return Err(PeerError::OutOfTurn("this session is no longer in that channel"));
        };
        let place = self.place()?;
        self.next_number = self.next_number.wrapping_add(1);
        let (number, at, credentials) = (self.next_number, self.instant(now), self.new_credentials());
        let fragment = credentials.ufrag.clone();
        let rtc = make(at, &self.setup.certificate, credentials);
        self.stats.count(match key.role {
            PeerRole::Publisher => PeerCounter::Publishers,
            PeerRole::Subscriber => PeerCounter::Subscribers,
        });
        self.by_fragment.insert(fragment.clone(), number);
        self.by_key.insert(key, number);
        self.peers.insert(number, Box::new(Peer::new(at, key, rtc, side(deafened), fragment, (place, ways))));
        self.mark(number);
        Ok(number)
    }
}
