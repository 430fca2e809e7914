//! A listener by WebRTC: what a browser does to hear a channel, without its ears. It answers what a node offers, and
//! takes Opus packets out of SRTP; they are those that were spoken, which is how they are verified like all others.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use antiphon_core::clock::Micros;
use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError,
    change::SdpOffer,
    net::{Protocol, Receive},
};

use super::swarm::SwarmClock;

/// One listener's connection.
pub(super) struct PeerWire {
    rtc: Rtc,
    clock: SwarmClock,
    /// Our end and the node's, once there is a socket.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// To be sent.
    outgoing: VecDeque<Vec<u8>>,
    timeout: Option<Instant>,
    connected: bool,
}

impl PeerWire {
    pub(super) fn new(clock: SwarmClock) -> Self {
        let config = RtcConfig::new().set_rtp_mode(true).clear_codecs().enable_opus(true, false);
        let rtc = config.build(clock.instant_of(clock.now()));
        Self { rtc, clock, ends: None, outgoing: VecDeque::new(), timeout: None, connected: false }
    }

    /// It has a socket of its own.
    pub(super) fn bind(&mut self, local: SocketAddr, node: SocketAddr) {
        self.ends = Some((local, node));
        match Candidate::host(local, "udp") {
            Ok(candidate) => _ = self.rtc.add_local_candidate(candidate),
            Err(error) => tracing::warn!(%error, "an address is no candidate"),
        }
    }

    /// Takes an offer and yields the answer.
    ///
    /// # Errors
    /// When the offer cannot be understood.
    pub(super) fn accept(&mut self, sdp: &str) -> Result<String, RtcError> {
        let offer = SdpOffer::from_sdp_string(sdp)?;
        let answer = self.rtc.sdp_api().accept_offer(offer)?;
        self.timeout = None;
        Ok(answer.to_sdp_string())
    }

    /// Whether ICE and DTLS are through.
    pub(super) const fn works(&self) -> bool {
        self.connected
    }

    /// Takes a datagram and gives the Opus packets in it to `heard`; false when it is none of WebRTC's.
    pub(super) fn datagram(&mut self, now: Micros, datagram: &[u8], heard: impl FnMut(&[u8])) -> bool {
        let Some((local, node)) = self.ends else { return false };
        let Ok(receive) = Receive::new(Protocol::Udp, node, local, datagram) else { return false };
        let taken = self.rtc.handle_input(Input::Receive(self.clock.instant_of(now), receive));
        self.drain(heard);
        taken.is_ok()
    }

    /// Does what is due and returns the next datagram to send.
    pub(super) fn poll(&mut self, now: Micros) -> Option<Vec<u8>> {
        let now = self.clock.instant_of(now);
        // Packets are heard as soon as they come: here only time passes.
        if self.timeout.is_none_or(|at| at <= now) && self.rtc.handle_input(Input::Timeout(now)).is_ok() {
            self.drain(|_| ());
        }
        self.outgoing.pop_front()
    }

    fn drain(&mut self, mut heard: impl FnMut(&[u8])) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => self.outgoing.push_back(transmit.contents.to_vec()),
                Ok(Output::Event(Event::RtpPacket(packet))) => heard(&packet.payload),
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(at)) => return self.timeout = Some(at),
                Err(error) => {
                    tracing::warn!(%error, "a WebRTC connection failed");
                    self.rtc.disconnect();
                    return self.timeout = Some(Instant::now() + std::time::Duration::from_secs(60));
                }
            }
        }
    }
}

/// The first UDP address that an offer names (RFC 8839, 5.1).
pub(super) fn candidate(sdp: &str) -> Option<SocketAddr> {
    let candidates = sdp.lines().filter_map(|line| line.trim_end().strip_prefix("a=candidate:"));
    let mut addresses = candidates.filter_map(|candidate| {
        let fields: Vec<&str> = candidate.split_ascii_whitespace().collect();
        let [_, _, transport, _, address, port, ..] = fields[..] else { return None };
        let address = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
        transport.eq_ignore_ascii_case("udp").then_some(address)
    });
    addresses.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_udp_address_of_an_offer_is_where_it_leads() {
        let sdp = "v=0\r\na=candidate:1 1 tcp 100 127.0.0.1 9 typ host tcptype passive\r\n\
                   a=candidate:2 1 UDP 90 192.0.2.7 4000 typ host\r\na=candidate:3 1 udp 80 192.0.2.8 4000 typ host\r\n";
        assert_eq!(candidate(sdp), Some("192.0.2.7:4000".parse().expect("an address")));
        assert_eq!(candidate("v=0\r\n"), None);
        assert_eq!(candidate("a=candidate:1 1 udp"), None);
    }
}
